"""Settings are frozen before the test data is evaluated, and rows have frozen settings."""

import json
import re
import sys

import pytest

from benchmarks import frozen
from benchmarks.frozen import FROZEN, NOT_RECORDED, frozen_now, missing, section, setting
from benchmarks.tables import HERE, completed

TABLES, KNOWN = json.loads((HERE / "tables.json").read_text()), json.loads(FROZEN.read_text())


@pytest.mark.parametrize("table", TABLES)
def test_the_commands_of_a_table_are_its_frozen_settings(table):
    """Otherwise run ``python -m benchmarks.frozen TABLE --chosen …`` before the first run."""
    commands = [one for batch in KNOWN[table] for one in batch["commands"]]
    assert sorted(map(setting, commands)) == sorted(map(setting, TABLES[table]))


def test_every_row_has_frozen_settings():
    settings = {setting(one)[:-1] for batches in KNOWN.values() for batch in batches for one in batch["commands"]}
    assert {key[:-1] for key in completed(HERE / "results")} <= settings


def test_each_batch_has_a_commit_a_date_and_where_it_was_chosen():
    for batch in (batch for batches in KNOWN.values() for batch in batches):
        assert re.fullmatch("[0-9a-f]{7,}", batch["commit"]) and re.fullmatch(r"\d{4}-\d\d-\d\d", batch["date"])
        assert batch["before_run"] in (True, False, NOT_RECORDED) and batch["chosen"] and batch["commands"]


def test_settings_with_a_result_are_not_frozen_before_the_test(monkeypatch):
    had, new = "accuracy d a --lr 1", "accuracy d a --lr 2"
    monkeypatch.setattr(frozen, "completed", lambda folder: {setting(had)})
    assert missing([had, new], [{"commands": ["accuracy d a --lr 1 --save saved/x"]}]) == [new]
    with pytest.raises(SystemExit, match="has a result already.*--lr 1"):
        frozen_now([had, new], {}, "validation", late=False)
    found = frozen_now([had, new], {}, "validation", late=True)
    assert [(batch["before_run"], batch["commands"]) for batch in found] == [(True, [new]), (False, [had])]
    assert frozen_now([new], {}, "validation", late=False)[0]["before_run"] is True


def test_the_command_adds_what_is_missing_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(frozen, "HERE", tmp_path)
    monkeypatch.setattr(frozen, "FROZEN", tmp_path / "frozen.json")
    (tmp_path / "tables.json").write_text(json.dumps({"t": ["accuracy d a", "accuracy d b"]}))
    (tmp_path / "frozen.json").write_text("{}")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["frozen", *words])
        frozen.main()
        return capsys.readouterr().out

    assert "2 not frozen" in run()
    with pytest.raises(SystemExit):
        run("t")
    assert "2 commands frozen" in run("t", "--chosen", "held-out sessions")
    assert "0 commands frozen" in run("t", "--chosen", "held-out sessions")
    (batch,) = json.loads((tmp_path / "frozen.json").read_text())["t"]
    assert batch["chosen"] == "held-out sessions" and batch["before_run"] is True
    assert "| `t` | held-out sessions | 2 | 2 |" in section()
