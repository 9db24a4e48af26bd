"""Run the rows of a published table that have no result yet.

    python -m benchmarks.tables                         # the tables, and how many of their rows have results
    python -m benchmarks.tables cbml-diginetica --systems sr_gnn,cbml --seeds 3
    python -m benchmarks.tables metacf-movielens --quick     # one epoch each, to see that it runs; keeps nothing

A row is a command of ``benchmarks/tables.json`` and a seed. It is done when a result file names that command, so a
stopped table goes on where it stopped. A row that begins with what another one saved has that one run first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from benchmarks.rows import RESULTS, after, results

HERE = Path(__file__).parent
QUICK = {
    "accuracy": "--epochs 1 --share 0.02",
    "cold_items": "--epochs 1 --asked 100",
    "cold_users": "--epochs 1 --pretrain-epochs 1",
    "streams": "--periods 3",
    "tune": "--epochs 1 --share 0.02 --trials 2",
}
SEED = {"streams": "--seeds"}


@dataclass(frozen=True)
class Job:
    """A command of ``benchmarks`` and its seed: ``accuracy diginetica sr_gnn --epochs 3``."""

    words: tuple[str, ...]
    seed: int

    @property
    def module(self) -> str:
        """Which of the benchmarks."""
        return self.words[0]

    @property
    def system(self) -> str:
        """Whom it is about: the word after ``--systems``, or after the data set."""
        return after(self.words, "--systems") or self.words[2]

    @property
    def command(self) -> tuple[str, ...]:
        """All words, with the seed; what another seed saves lies in a folder of its own."""
        own = [w if self.seed == 0 else re.sub(r"^saved/(.+)$", rf"saved/\1-{self.seed}", w) for w in self.words]
        return (*own, SEED.get(self.module, "--seed"), str(self.seed))

    def after(self, flag: str) -> str | None:
        """The word that follows a flag."""
        return after(self.command, flag)

    @property
    def key(self) -> tuple[str, ...]:
        """What tells a result of this job: the command without what does not change it."""
        return plain(("python", "-m", f"benchmarks.{self.module}", *self.command[1:]))


def main() -> None:
    """Run a table from the command line."""
    tables: dict[str, list[str]] = json.loads((HERE / "tables.json").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=tables)
    parser.add_argument("--systems", help="some of its systems, with commas between")
    parser.add_argument("--seeds", type=int, default=1, help="how many: 0, 1, …")
    parser.add_argument("--quick", action="store_true", help="one epoch on little, and keep nothing")
    options = parser.parse_args()
    if options.table is None:
        return overview(tables)
    known = jobs(tables[options.table], options.seeds)
    systems = sorted({job.system for job in known})
    wanted = systems if options.systems is None else options.systems.split(",")
    if unknown := set(wanted) - set(systems):
        parser.error(f"{options.table} has no system {sorted(unknown)[0]!r}; it has {', '.join(systems)}")
    found = [job for job in known if job.system in wanted]
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(found, known, Path(folder), quick=True)
    else:
        run(found, known, HERE.parent, quick=False)


def overview(tables: dict[str, list[str]]) -> None:
    """Say what there is, and what has been run."""
    had = completed(RESULTS)
    for name, commands in tables.items():
        done = [job.key in had for job in jobs(commands, 1)]
        print(f"{name:24} {sum(done):3} of {len(done)} rows have results of seed 0")


def jobs(commands: Sequence[str], seeds: int) -> list[Job]:
    """Each command with each seed."""
    return [Job(tuple(shlex.split(command)), seed) for seed in range(seeds) for command in commands]


def run(wanted: Sequence[Job], known: Sequence[Job], folder: Path, *, quick: bool) -> None:
    """Run what has no result, one after the other, in ``folder``, where ``saved/`` lies."""
    where = folder / "results" if quick else RESULTS
    had = completed(where)
    missing = [job for job in wanted if job.key not in had]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} rows have results", flush=True)
    for job in tqdm(missing, unit="row", desc="table"):
        if job.key in had:  # by now: another row began with it
            continue
        for one in chain(begun_by(job, known, folder), [job]):  # each is found when the one before it has ended
            print(f"\n> python -m benchmarks.{shlex.join(one.command)}", flush=True)
            start(one, folder, where, quick=quick)
            had.add(one.key)


def begun_by(job: Job, known: Sequence[Job], folder: Path) -> Iterator[Job]:
    """The jobs whose saved weights this one begins or ends with, where they are not there, the first one first."""
    for needed in filter(None, (job.after("--start-from"), job.after("--then"))):
        if (folder / needed).exists():
            continue
        maker = next((one for one in known if one.after("--save") == needed), None)
        if maker is None:
            raise SystemExit(f"no row of the table saves {needed}, which {shlex.join(job.words)} needs")
        yield from begun_by(maker, known, folder)
        yield maker


def start(job: Job, folder: Path, where: Path, *, quick: bool) -> None:
    """Run one, in a process of its own, whose peak memory is its own."""
    less = QUICK.get(job.module, "--epochs 1").split() if quick else []
    place = {"PYTHONPATH": str(HERE.parent), "GRAPHMETA_RESULTS": str(where)}
    command = [sys.executable, "-m", f"benchmarks.{job.module}", *job.command[1:], *less]
    if subprocess.run(command, cwd=folder, env={**os.environ, **place}, check=False).returncode:
        raise SystemExit(f"stopped; the rows before it are kept: {shlex.join(command)}")


def completed(folder: Path) -> set[tuple[str, ...]]:
    """The commands that have a result."""
    return {plain(shlex.split(row["command"])) for row in results(folder=folder)}


def plain(words: Sequence[str]) -> tuple[str, ...]:
    """A command without the flags that do not change what it finds, and with its seed said."""
    rest, seed, at = [], "0", 0
    while at < len(words):
        if words[at] in ("--seed", "--seeds"):
            seed = words[at + 1]
        elif words[at] not in ("--save", "--checkpoint", "--state"):
            rest.append(words[at])
            at += 1
            continue
        at += 2
    return (*rest, "--seed", seed)


if __name__ == "__main__":
    main()
