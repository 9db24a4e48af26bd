"""The examples run as they stand, stay short, and say what a reader is promised."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAID = {
    "build_graph": "item follows item",
    "train_session_model": "session kNN",
    "meta_train": "not adapted",
    "custom_encoder": "the stacked engine knows every operation",
    "recommend_new_session": "after one item only",
    "cold_user_aspects": "was read from",
}


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs_and_is_short(
    name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)  # where some of them write
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 80
    runpy.run_path(str(path), run_name="__main__")
    assert SAID[name] in capsys.readouterr().out
