"""Run the rows of a published table that have no result yet.

    python -m benchmarks.tables                         # lists the tables and how many of their rows have results
    python -m benchmarks.tables cbml-diginetica --systems sr_gnn,cbml --seeds 3
    python -m benchmarks.tables metacf-movielens --quick     # a trial: one epoch each, results are discarded

A row is a command of ``benchmarks/tables.json`` and a seed. It is complete when a result file names that command, so
an interrupted table resumes. Rows whose saved weights another row loads are run before it.
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
    "cold_items": "--epochs 1 --test-samples 100",
    "cold_users": "--epochs 1 --pretrain-epochs 1",
    "growth": "",
    "recipes": "",
    "own_clicks": "--rates 0.01 --queries 100",
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
        """The system: the value of ``--systems``, or the word after the data set."""
        return after(self.words, "--systems") or self.words[2]

    @property
    def command(self) -> tuple[str, ...]:
        """All words, with the seed; each seed saves in folders of its own."""
        own = [w if self.seed == 0 else re.sub(r"^saved/(.+)$", rf"saved/\1-{self.seed}", w) for w in self.words]
        return (*own, SEED.get(self.module, "--seed"), str(self.seed))

    def after(self, flag: str) -> str | None:
        """The value of a flag."""
        return after(self.command, flag)

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies a result of this job: the command without flags that do not affect results."""
        return plain(("python", "-m", f"benchmarks.{self.module}", *self.command[1:]))


def main() -> None:
    """Run a table from the command line."""
    tables: dict[str, list[str]] = json.loads((HERE / "tables.json").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=tables)
    parser.add_argument("--systems", help="some of its systems, comma-separated")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds: 0, 1, …")
    parser.add_argument("--quick", action="store_true", help="a trial on a little data; results are discarded")
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
    """Print the tables and how many of their rows have results."""
    had = completed(RESULTS)
    for name, commands in tables.items():
        done = [job.key in had for job in jobs(commands, 1)]
        print(f"{name:24} {sum(done):3} of {len(done)} rows have results of seed 0")


def jobs(commands: Sequence[str], seeds: int) -> list[Job]:
    """All combinations of commands and seeds."""
    return [Job(tuple(shlex.split(command)), seed) for seed in range(seeds) for command in commands]


def run(wanted: Sequence[Job], known: Sequence[Job], folder: Path, *, quick: bool) -> None:
    """Run the rows without results, one after the other, in ``folder``, which holds ``saved/``."""
    where = folder / "results" if quick else RESULTS
    done = completed(where)
    missing = [job for job in wanted if job.key not in done]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} rows have results", flush=True)
    for job in tqdm(missing, unit="row", desc="table"):
        if job.key in done:  # by now, because another row loads it
            continue
        for one in chain(required(job, known, folder), [job]):  # lazily: each after the one before has run
            print(f"\n> python -m benchmarks.{shlex.join(one.command)}", flush=True)
            start(one, folder, where, quick=quick)
            done.add(one.key)


def required(job: Job, known: Sequence[Job], folder: Path) -> Iterator[Job]:
    """The jobs whose saved weights this one loads, unless the weights exist, in order of execution."""
    for needed in filter(None, (job.after("--warm-start"), job.after("--refit-base"))):
        if (folder / needed).exists():
            continue
        maker = next((one for one in known if one.after("--save") == needed), None)
        if maker is None:
            raise SystemExit(f"no row of the table saves {needed}, which {shlex.join(job.words)} needs")
        yield from required(maker, known, folder)
        yield maker


def start(job: Job, folder: Path, where: Path, *, quick: bool) -> None:
    """Run a job in a process of its own, so that its peak memory is its own."""
    less = QUICK.get(job.module, "--epochs 1").split() if quick else []
    place = {"PYTHONPATH": str(HERE.parent), "GRAPHMETA_RESULTS": str(where)}
    command = [sys.executable, "-m", f"benchmarks.{job.module}", *job.command[1:], *less]
    if subprocess.run(command, cwd=folder, env={**os.environ, **place}, check=False).returncode:
        raise SystemExit(f"stopped; the results of the rows before are kept: {shlex.join(command)}")


def completed(folder: Path) -> set[tuple[str, ...]]:
    """The commands that have results."""
    return {plain(shlex.split(row["command"])) for row in results(folder=folder)}


def plain(words: Sequence[str]) -> tuple[str, ...]:
    """A command without the flags that do not affect its results, and with its seed last."""
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
