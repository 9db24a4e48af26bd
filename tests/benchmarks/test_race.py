"""Time to accuracy: which trainings are in the race, and the minutes to a mark, which has two figures."""

import pytest

from benchmarks import race, report, rows


def arm(system: str, epochs: int, hit: float, mrr: float, seconds: float, tag: str = "recipe") -> rows.Row:
    found = {"metrics": {"hit@20": hit, "mrr@20": mrr}, "wall_s": seconds, "cpu_s": 2 * seconds, "threads": 2}
    command = f"python -m benchmarks.accuracy diginetica {system} --recipe --held-out 0 --tag {tag}"
    ran = {"command": command, "commit": "abc", "date": "", "arguments": {}, "history": [], "peak_mb": 1}
    return {
        "dataset": "diginetica",
        "protocol": "sr-gnn",
        "system": system,
        "epochs": epochs,
        "seed": 0,
        **found,
        **ran,
    }


ROWS = [
    arm("niser", 3, 0.55, 0.195, 250),
    arm("niser", 1, 0.515, 0.184, 94, "race-1"),
    arm("sr_gnn", 3, 0.6, 0.1, 60),
]


def test_a_mark_needs_both_figures():
    lines = race.table(ROWS).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| niser", "| niser", "| sr_gnn"]
    assert lines[2].endswith("| 51.50 | 18.40 | 1.6 | 3.1 | 2 | 1.6 | 4.2 |")
    assert lines[4].endswith("| 1.0 | 2.0 | 2 | – | – |")  # accurate, but ranked low


@pytest.mark.parametrize(
    "change", [("--recipe", ""), ("--held-out 0", "--held-out 1000"), ("--tag", "--warm-start saved/x --tag")]
)
def test_only_trainings_by_the_recipe_on_all_sessions_are_in_the_race(change):
    other = {**ROWS[0], "command": ROWS[0]["command"].replace(*change)}
    assert race.raced([*ROWS, other, {**ROWS[0], "protocol": "cbml"}]) == ROWS


def test_trainings_for_the_race_are_in_its_table_only():
    assert [race.only_raced(row) for row in ROWS] == [False, True, False]
    whole = [{**row, "slices": {}, "samples": 1, "candidates": 2} for row in ROWS]
    page = report.report(whole)
    table, race_table = page[page.index("every test prefix (SR") :].split("time to accuracy (every")
    assert table.count("| niser") == 1 and race_table.count("| niser") == 2


def test_it_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    race.draw(ROWS, "diginetica")
    assert (tmp_path / "diginetica" / "sr-gnn" / "race.png").stat().st_size > 10_000
    assert "race.png" in race.race_section("Race", ROWS, "")


def test_a_training_is_a_row_of_accuracy():
    words = race.job("diginetica", "niser", 3).command
    assert race._in_race(words) and words[:3] == ("accuracy", "diginetica", "niser") and "race-3" in words


def test_unknown_encoders_are_named():
    with pytest.raises(SystemExit):
        race.parser().parse_args(["diginetica", "--systems", "sasrec"])
