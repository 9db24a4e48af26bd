"""Time to accuracy: trainings are run once, and a mark is reached by the shortest that has both figures."""

from functools import partial

import pytest

from benchmarks import accuracy, race, rows
from graphmeta.sampling.samples import prefixes
from graphmeta.testing import fake_log


def arm(system: str, epochs: int, hit: float, mrr: float, seconds: float) -> rows.Row:
    found = {"metrics": {"hit@20": hit, "mrr@20": mrr}, "wall_s": seconds, "cpu_s": 2 * seconds}
    ran = {"command": "python -m benchmarks.race", "date": ""}
    return {"dataset": "diginetica", "protocol": "race", "system": system, "epochs": epochs, "seed": 0, **found, **ran}


ROWS = [arm("niser", 3, 0.55, 0.195, 250), arm("niser", 1, 0.515, 0.184, 94), arm("sr_gnn", 3, 0.6, 0.1, 60)]


def test_a_mark_needs_both_figures():
    lines = race.table(ROWS).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| niser", "| niser", "| sr_gnn"]
    assert lines[2].endswith("| 51.50 | 18.40 | 1.6 | 3.1 | 1.6 | 4.2 |")
    assert lines[4].endswith("| 1.0 | 2.0 | – | – |")  # precise, but ranked low


def test_a_training_is_run_once_and_drawn(tmp_path, monkeypatch):
    log = fake_log(sessions=300)
    invented = accuracy.Dataset("diginetica", lambda: (log, None, log), {"sr-gnn": prefixes}, {})
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setitem(accuracy.DATASETS, "diginetica", invented)
    monkeypatch.setattr(race, "fitted", partial(fitted_on_few, race.fitted))
    race.run("diginetica", "niser", 1, 0)
    (row,) = rows.results("diginetica", "race", folder=tmp_path)
    assert row["samples"] == len(prefixes(log)) and row["wall_s"] > 0 and row["cpu_s"] > 0
    assert "--recipe" not in row["command"] and row["metrics"]["hit@20"] > 0
    monkeypatch.setattr(race, "fitted", None)  # not trained again
    race.run("diginetica", "niser", 1, 0)
    race.draw([row, *ROWS], "diginetica")
    assert (tmp_path / "diginetica" / "race" / "race.png").stat().st_size > 10_000
    assert "race.png" in race.race_section("Race", [row], "")


def fitted_on_few(fitted, options, train_log, valid_log):
    options.held_out = 20
    options.arguments = {"width": 4}
    return fitted(options, train_log, valid_log)


def test_unknown_encoders_are_named():
    with pytest.raises(SystemExit):
        race.parser().parse_args(["diginetica", "--systems", "sasrec"])
