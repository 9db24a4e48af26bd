"""The examples run unchanged on less data, are short, and print the documented results."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from graphmeta.cli.commands import main

EXAMPLES = Path(__file__).parent.parent / "examples"
SAID = {
    "build_graph": "item follows item",
    "train_session_model": "session kNN",
    "meta_train": "not adapted",
    "custom_encoder": "the stacked engine supports every operation",
    "graph_encoder": "the stacked engine supports every operation",
    "graph_layers": "new user [Recommendation(",
    "recommend_new_session": "after one item only",
    "cold_user_aspects": "attention:",
    "callbacks": "'valid_mrr_20': ",
    "client": "recommended:",
}
LESS = {"1_500": "400", "2_500": "600", "common=320": "common=80"}  # sessions; users in both domains


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs_and_is_short(
    name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)  # where some of them write
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 80
    text = path.read_text()
    for much, less in LESS.items():
        text = text.replace(much, less)
    exec(compile(text, path, "exec"), {"__name__": "__main__"})
    assert SAID[name] in capsys.readouterr().out


def test_the_client_without_a_found_item_names_the_remedy(monkeypatch: pytest.MonkeyPatch):
    names: dict = {"__name__": "__main__"}
    text = (EXAMPLES / "client.py").read_text()
    monkeypatch.setenv("GRAPHMETA_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GRAPHMETA_WORD", "a&b c")
    sent = []
    text = text.replace(
        "client = Client(", "Client.send = lambda _, path: sent.append(path) or {'items': []}; client = Client("
    )
    with pytest.raises(SystemExit, match="no item has the word in its name or id; choose another: GRAPHMETA_WORD"):
        exec(compile(text, "client.py", "exec"), names | {"sent": sent})
    assert sent == ["/items?query=a%26b%20c"]


def test_the_nightly_job_has_options_that_exist(capsys: pytest.CaptureFixture):
    text = (EXAMPLES / "retrain_nightly.sh").read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    commands = re.findall(r"^ *graphmeta (\w+)(.*)$", text, re.M)
    assert [name for name, _ in commands] == ["fit", "rollback"]
    for name, rest in commands:
        assert main([name, "--help"]) == 0
        known = capsys.readouterr().out
        assert all(option in known for option in re.findall(r"--[\w-]+", rest))
