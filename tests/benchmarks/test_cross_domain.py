"""The rows of the benchmark and their section in the report."""

import sys
from pathlib import Path

import pytest

from benchmarks import cross_domain, report, rows
from graphmeta.datasets.reviews import synthetic_reviews


def test_a_row_becomes_a_line_of_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny():
        planted = synthetic_reviews(common=20, alone=5, items=6, each=3)
        return planted.source, planted.target

    data = cross_domain.Dataset(tiny, length=20, min_count=1, width=4)
    monkeypatch.setitem(cross_domain.DATASETS, "planted", data)
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    arguments = ["planted", "item_mean", "catn", "cmf", "--seed", "0", "1", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.cross_domain", *arguments])
    cross_domain.main()
    found = rows.results("planted", "cross-domain")
    assert len(found) == 6 and {row["samples"] for row in found} == {6 * 3}
    assert found[0]["command"].startswith("python -m benchmarks.cross_domain planted catn --linking 1 --epochs 1 ")
    text = report.report(found)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.split(" |")[0] for line in lines[1:]} == {"| catn", "| cmf", "| item_mean"}
    mse = sum(row["metrics"]["mse"] for row in found if row["system"] == "catn") / 2
    assert f"| catn | {mse:.4f} ± " in text
