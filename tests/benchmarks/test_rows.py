"""Result files: where they lie, and how they are found again."""

import json
import re

import pytest

from benchmarks import rows
from benchmarks.rows import path_of, read, results
from benchmarks.tables import HERE

RESULTS = HERE / "results"


def row(dataset="d", protocol="p", system="s", seed=0):
    return {"dataset": dataset, "protocol": protocol, "system": system, "seed": seed}


def test_every_result_lies_in_the_folder_of_its_data_protocol_and_system():
    for path in RESULTS.rglob("*.json"):
        found = read(path)
        expected = path_of(found)
        assert path.parent == expected.parent and path.stem.endswith(expected.stem)


def test_rows_are_found_by_data_protocol_and_system(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    wanted = [row(), row(seed=1), row(system="t"), row(protocol="q"), row(dataset="e")]
    for each in wanted:
        rows.write(each)
    rows.write(row(), variant="no-gate")
    assert (tmp_path / "d" / "p" / "s" / "no-gate-seed0.json").exists()
    assert len(results()) == 6 and len(results("d")) == 5 and results("e") == [row(dataset="e")]
    assert results("d", "p", "s") == [row(), row(), row(seed=1)]
    assert results(protocol="q") == [row(protocol="q")] and results(system="nobody") == []


def test_files_of_the_flat_layout_are_still_found(tmp_path):
    (tmp_path / "d-p-s-seed0.json").write_text(json.dumps(row()))
    assert results("d", "p", folder=tmp_path) == [row()]


def test_rows_of_one_variant_differ_in_their_seed_alone():
    """So no table chooses among the seeds of a system's best run."""
    for folder in {path.parent for path in RESULTS.rglob("*seed*.json")}:
        found = [(re.sub(r"-?seed\d+$", "", path.stem), path) for path in folder.glob("*seed*.json")]
        for name in {name for name, _ in found}:
            same = {rows.variant(read(path)) for other, path in found if other == name}
            assert len(same) == 1, (folder, same)
