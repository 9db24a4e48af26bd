"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

import graphmeta as gm

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_python_blocks_run(monkeypatch, capsys):
    # A small part of the bundled dataset is enough to run every line.
    weeks = gm.datasets.complete_journey()
    weeks = weeks.before(float(weeks.starts[2500]))
    part = weeks.of_sessions(weeks.session_user % 3 == 0)
    monkeypatch.setattr(gm.datasets, "complete_journey", lambda: part)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, names)
    assert "hit@20" in capsys.readouterr().out
    system = names["system"]
    history = list(gm.train(system, names["split"].train, epochs=1, batch_size=64))
    assert history[0].loss > 0


def test_the_first_example_has_one_import():
    first = re.findall(r"```python\n(.*?)```", README, re.S)[0]
    assert re.findall(r"^(?:import|from) .*", first, re.M) == ["import graphmeta as gm"]


def test_the_table_of_systems_is_the_catalogue():
    from graphmeta.published.catalogue import CATALOGUE

    rows = re.findall(r"^\| `([a-z0-9_, ]+)` \|", README, re.M)
    listed = {name.strip() for row in rows for name in row.split(",")}
    assert set(CATALOGUE) <= listed
