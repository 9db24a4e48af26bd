"""Ids and names with control characters and HTML, in files of text and explanations."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphmeta as gm
from graphmeta.errors import InputError
from graphmeta.inference.cells import cell_of, text_of
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


FORMULAS = [
    "=1+1", "+1+1", "-2+3", "@SUM(A1)", "  =1", "'=1", "''=1", "'-5", "-5", "+49", "-1e3", "'", "it's", "\uff1d1", "-",
    '=HYPERLINK("http://x","a, b")', "a=b", "", "'-",
]  # fmt: skip


@pytest.fixture(scope="module")
def formulas() -> tuple[gm.System, pd.DataFrame]:
    """A model and a file of sessions whose ids are formulas, with the same texts as names."""
    ids = [one for one in FORMULAS if one.strip()]
    clicks = pd.DataFrame({"s": np.repeat(ids, 2), "i": [ids[(n * 5) % len(ids)] for n in range(2 * len(ids))]})
    items = gm.EntityTable(np.array(ids, dtype=object), {}, np.array(ids[::-1], dtype=object))
    made = gm.build("popularity", items)
    made.fit_statistics(gm.EventLog.read(clicks, session="s", item="i", items=items))
    return made, clicks


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_no_cell_is_a_formula_and_the_file_is_read_back(formulas, tmp_path: Path, kind: str) -> None:
    system, clicks = formulas
    clicks.to_csv(tmp_path / "in.csv", index=False)
    gm.recommend_file(system, SessionFile(tmp_path / "in.csv", item="i", session="s"), tmp_path / f"out.{kind}", 30)
    if kind in ("csv", "tsv"):
        with (tmp_path / f"out.{kind}").open(newline="") as file:
            cells = [cell for row in csv.reader(file, delimiter="\t" if kind == "tsv" else ",") for cell in row]
        run = [one for one in cells if one.lstrip()[:1] in set("=+-@\uff1d")]
        assert {"-5", "+49", "-1e3"} <= set(run) and all(float(one) for one in run)
    found = gm.read_recommendations(tmp_path / f"out.{kind}")
    assert found["session"].drop_duplicates().tolist() == clicks["s"].drop_duplicates().tolist()
    for session, own in list(found.groupby("session", sort=False))[::5]:
        wanted = system.recommend(clicks["i"][clicks["s"] == session].tolist(), 30)
        assert own["item"].tolist() == [one.item for one in wanted]
        assert own["name"].tolist() == [one.name for one in wanted]
        assert own["score"].tolist() == [one.score for one in wanted]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(st.sampled_from("'=+-@ \t\r\n5.e\uff1da"), max_size=6))
def test_a_cell_is_never_a_formula_and_gives_its_text(text: str) -> None:
    cell = cell_of(text)
    assert text_of(cell) == text and cell.endswith(text)
    if cell.lstrip()[:1] in tuple("=+-@\uff1d"):
        assert float(cell) is not None  # a number


def test_whole_numbers_and_rows_without_items_are_read_back(tmp_path: Path) -> None:
    log = gm.EventLog.read(pd.DataFrame({"s": [1, 1, 2, 2], "i": [-5, 7, 7, -5]}), session="s", item="i")
    system = gm.build("sr_gnn", log.items, width=4)
    pd.DataFrame({"s": [-1, -2], "i": [-5, 99]}).to_csv(tmp_path / "in.csv", index=False)
    frames = []
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        source = SessionFile(tmp_path / "in.csv", item="i", session="s")
        gm.recommend_file(system, source, tmp_path / f"out.{kind}", 2)
        frames.append(gm.read_recommendations(tmp_path / f"out.{kind}"))
        assert frames[-1]["session"].tolist() == [-1, -1, -2] and set(frames[-1]["item"][:2]) == {-5, 7}
        assert frames[-1].iloc[2][["rank", "item", "name", "score"]].isna().all()
    for other in frames[1:]:
        pd.testing.assert_frame_equal(frames[0], other, check_dtype=False, rtol=1e-6)


def test_other_files_are_not_recommendations(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "broken.parquet").write_text("no")
    for name in ("other.csv", "broken.jsonl", "broken.parquet", "none.csv", "other.txt"):
        with pytest.raises(InputError, match=name) as error:
            gm.read_recommendations(tmp_path / name)
        assert "\n" not in str(error.value)
