"""The README's Python runs as it stands, and its table of results and RESULTS.md are those of the rows."""

import re
from pathlib import Path

import pytest

import graphmeta as gm
from benchmarks.report import with_table
from benchmarks.rows import results
from benchmarks.summary import FINDINGS, readme_table, summary

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_python_blocks_run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    # A small part of the bundled dataset and a quick system are enough to run every line.
    weeks = gm.datasets.complete_journey()
    weeks = weeks.before(float(weeks.starts[2500]))
    part = weeks.of_sessions(weeks.session_user % 3 == 0)
    monkeypatch.setattr(gm.datasets, "complete_journey", lambda: part)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block.replace("gm.fit(split)", "gm.fit(split, 'sr_gnn', epochs=1, width=16)"), names)
    assert "hit@20" in capsys.readouterr().out
    assert gm.load("shop").notes["system"] == "sr_gnn"
    history = list(gm.train(names["mine"], names["split"].train, epochs=1, batch_size=64))
    assert history[0].loss > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)  # longer beside other work
@pytest.mark.filterwarnings("ignore:personal_reranker ignores item columns")
def test_the_printed_output_is_that_of_the_first_block(monkeypatch, capsys, tmp_path):
    """On the whole bundled dataset, with the default system: about four minutes of one core."""
    monkeypatch.chdir(tmp_path)
    exec(BLOCKS[0], {})
    (printed,) = re.findall(r"```text\n(.*?)```", README, re.S)
    found = capsys.readouterr().out
    number = r"(?<=[ :])\d+\.\d"  # metrics and scores, not ids or sizes such as "12 oz"
    assert re.sub(number, "", found) == re.sub(number, "", printed)
    ours, theirs = ([float(one) for one in re.findall(number, text)] for text in (found, printed))
    assert ours == pytest.approx(theirs, abs=0.25)  # the order of additions depends on machine and threads


def test_it_is_short_and_has_one_import_line():
    assert len(README.splitlines()) <= 180
    assert len(re.findall(r"^(?:import|from) ", "\n".join(BLOCKS), re.M)) == 1


def test_it_counts_the_systems_of_the_catalogue():
    assert f"{len(gm.systems())} systems and baselines in all" in README


def test_results_are_short():
    assert len((ROOT / "RESULTS.md").read_text().splitlines()) <= 120


def test_a_table_replaces_the_one_between_the_marks():
    text = "a\n<!-- results -->\nold\n<!-- end of results -->\nb"
    assert with_table(text, ["new", "row"]) == text.replace("old", "new\nrow")
    assert with_table(README, readme_table(results())).count("<!-- results -->") == 1


@pytest.mark.slow
def test_results_are_those_of_the_rows():
    """Otherwise run ``python -m benchmarks.report``."""
    rows = results()
    assert (ROOT / "RESULTS.md").read_text() == summary(rows)
    assert with_table(README, readme_table(rows)) == README


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.title)
def test_a_finding_is_true_of_the_rows(finding):
    assert finding.claim(results())
