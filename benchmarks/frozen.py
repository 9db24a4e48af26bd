"""Freeze the settings of a table before its test data is evaluated.

    python -m benchmarks.frozen                                    # what is frozen, by table
    python -m benchmarks.frozen recipes-diginetica --chosen "the last 3,000 training sessions"

A setting is a command of ``benchmarks/tables.json``, without its seed. The second form adds the commands of a table
that are not frozen yet to ``benchmarks/frozen.json``, with the date, the commit and the data they were chosen on. It
refuses commands that have a result, unless ``--late`` records them as run before they were frozen.

The entries until 2026-11-28 were read from the history: their commit is the first whose tables list the commands in
today's words, and ``before_run`` is true if each of its rows ran at a commit whose tables list it. Of the others it is
not recorded which came first, and of none whether an earlier run was tested.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from benchmarks.rows import RESULTS
from benchmarks.tables import HERE, completed, jobs
from graphmeta.storage import write_json

FROZEN, NOT_RECORDED = HERE / "frozen.json", "not recorded"
Batch = dict[str, Any]  # commit, date, before_run (true, false or "not recorded"), chosen (on which data), commands


def main() -> None:
    """Print the frozen settings, or freeze those of a table."""
    tables: dict[str, list[str]] = json.loads((HERE / "tables.json").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=tables)
    parser.add_argument("--chosen", help="the data that the settings were chosen on")
    parser.add_argument("--late", action="store_true", help="commands with a result too; recorded as such")
    options = parser.parse_args()
    frozen: dict[str, list[Batch]] = json.loads(FROZEN.read_text())
    if options.table is None:
        print("\n".join(overview(tables, frozen)))
        return
    if not options.chosen:
        parser.error("say on which data the settings were chosen: --chosen")
    new = missing(tables[options.table], frozen.get(options.table, []))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    now = {"commit": commit.stdout.strip(), "date": date.today().isoformat()}
    batch = frozen_now(new, now, options.chosen, late=options.late)
    frozen.setdefault(options.table, []).extend(batch)
    write_json(FROZEN, frozen)
    print(f"{options.table}: {len(new)} commands frozen")


def frozen_now(commands: Sequence[str], now: Mapping[str, str], chosen: str, *, late: bool) -> list[Batch]:
    """The batches of commands that are frozen now: those without a result, and those with one.

    Raises:
        SystemExit: a command with a result, unless ``late``.
    """
    had = {key[:-1] for key in completed(RESULTS)}  # without the seed
    tested = [one for one in commands if setting(one)[:-1] in had]
    if tested and not late:
        raise SystemExit(f"has a result already, so it was not frozen before the test (--late): {tested[0]}")
    parts = ((True, [one for one in commands if one not in tested]), (False, tested))
    return [{**now, "before_run": when, "chosen": chosen, "commands": some} for when, some in parts if some]


def missing(commands: Sequence[str], batches: Sequence[Batch]) -> list[str]:
    """The commands that are in none of the batches."""
    known = {setting(one) for batch in batches for one in batch["commands"]}
    return [one for one in commands if setting(one) not in known]


def setting(command: str) -> tuple[str, ...]:
    """What a command sets: its words without the flags that do not affect results."""
    return jobs([command], 1)[0].key


def overview(tables: Mapping[str, Sequence[str]], frozen: Mapping[str, Sequence[Batch]]) -> list[str]:
    """A line for each table: its commands by when they were frozen."""
    lines = []
    for name, commands in tables.items():
        batches = frozen.get(name, [])
        counts = {
            title: sum(len(batch["commands"]) for batch in batches if batch["before_run"] == when)
            for title, when in (("on record before the run", True), ("run first", False), (NOT_RECORDED, NOT_RECORDED))
        }
        counts["not frozen"] = len(missing(commands, batches))
        lines.append(f"{name:29}" + ", ".join(f"{count} {title}" for title, count in counts.items() if count))
    return lines


def section() -> list[str]:
    """Part of a page of the site: where the settings of each table were chosen, and what is on record."""
    tables, frozen = json.loads((HERE / "tables.json").read_text()), json.loads(FROZEN.read_text())
    lines = [
        "## Where settings were chosen\n",
        "`benchmarks/frozen.json` has the settings of every row, as commands, with the commit and date since when they "
        "are on record and the data they were chosen on. New settings are frozen before their first run; those until "
        "2026-11-28 were read from the repository's history, where it is mostly not recorded whether a setting or its "
        "first test came first.\n",
        "| table | settings chosen on | commands | on record before the run |",
        "|---|---|--:|--:|",
    ]
    for name, commands in tables.items():
        batches = frozen.get(name, [])
        chosen = "; ".join(dict.fromkeys(batch["chosen"] for batch in batches))
        before = sum(len(batch["commands"]) for batch in batches if batch["before_run"] is True)
        lines.append(f"| `{name}` | {chosen} | {len(commands)} | {before} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
