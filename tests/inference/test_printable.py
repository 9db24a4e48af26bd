"""Ids and names with control characters and HTML, in files of text and explanations."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graphmeta as gm
from graphmeta.inference.session_file import SessionFile

ODD = ["a\x1b[31m", "b\x85c", "<b>d</b>", "e\tf", "=1+1"]


@pytest.fixture(scope="module")
def system() -> gm.System:
    clicks = pd.DataFrame({"s": np.repeat(np.arange(12), 3), "i": [ODD[n % 5] for n in range(36)]})
    log = gm.EventLog.read(clicks, session="s", item="i")
    made = gm.build("item_knn", log.items)
    made.fit_statistics(log)
    return made


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_file_of_text_has_no_control_character(system: gm.System, tmp_path: Path, kind: str) -> None:
    pd.DataFrame({"s": ["x\x1b[2J", "y"], "i": ODD[:2]}).to_csv(tmp_path / "in.csv", index=False)
    source = SessionFile(tmp_path / "in.csv", item="i", session="s")
    gm.recommend_file(system, source, tmp_path / f"out.{kind}", 4)
    text = (tmp_path / f"out.{kind}").read_text()
    assert all(one.isprintable() for line in text.split("\n") for one in line.replace("\t", ""))
    assert "x\\x1b[2J" in text and "<b>d</b>" in text and "b c" in text


def test_an_explanation_has_none_but_its_ids_are_as_they_were(system: gm.System) -> None:
    found = system.explain(ODD[:2], ODD[2])
    assert found.item == ODD[2] and [share.id for share in found.clicks] == ODD[:2]
    assert all(one.isprintable() for line in str(found).split("\n") for one in line)
