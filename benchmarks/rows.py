"""Rows of results: how a row was run, what was measured and what it cost; its file; how it is shown.

A row is one JSON file, ``results/<data>/<protocol>/<system>/[<variant>-]seed<n>.json``. :func:`results` reads them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.old_results import renamed
from benchmarks.sessions import Sessions
from benchmarks.timing import peak_mb
from graphmeta.evaluation.ranking import Result
from graphmeta.storage import write_json
from graphmeta.training.run import Report

Row = dict[str, Any]
RESULTS = Path(os.environ.get("GRAPHMETA_RESULTS", Path(__file__).parent / "results"))
MEASURE, RATE = "mrr@20", "--lr"  # what searches maximise; the outer learning rate among a system's settings
CONTEXT = "context length"  # the slices by the number of observed clicks
CUTS = {"sr-gnn": 20, "cbml": 5, "asars": 20, "metacf": 10, "metatl": 10, "metatl-all": 10}  # the k of each protocol


def provenance(module: str) -> dict[str, str]:
    """The command, its commit and the date."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    return {"command": command, "commit": commit.stdout.strip(), "date": date.today().isoformat()}


def measured(result: Result, sessions: Sessions | None = None) -> Row:
    """Metrics, also by slice, with their intervals and the numbers of samples, candidates and ties."""
    return {
        "metrics": result.metrics,
        **({} if sessions is None else {"intervals": sessions.intervals()}),
        "slices": renamed(result.slices),
        "samples": result.samples,
        "candidates": result.candidates,
        "ties": result.ties,
    }


def cost(seconds: float, *, cpu: float | None = None) -> Row:
    """Wall time (and CPU time of all threads) in seconds, and the peak memory of this process in MB."""
    spent = {} if cpu is None else {"cpu_s": round(cpu, 1), "threads": torch.get_num_threads()}
    return {"wall_s": round(seconds, 1), **spent, "peak_mb": round(peak_mb())}


def epoch_row(report: Report) -> Row:
    """Loss, seconds and validation metrics of an epoch."""
    return {"epoch": report.epoch, "loss": report.loss, "seconds": report.seconds, **report.valid}


def path_of(row: Row, variant: str = "") -> Path:
    """The file of a row: ``<data>/<protocol>/<system>/[<variant>-]seed<n>.json``."""
    name = "-".join(filter(None, (variant, f"seed{row['seed']}")))
    return RESULTS / row["dataset"] / row["protocol"] / row["system"] / f"{name}.json"


def picture(dataset: str, protocol: str, name: str) -> Path:
    """The file of a picture of a data set under a protocol, beside the folders of its systems."""
    return RESULTS / dataset / protocol / f"{name}.png"


def linked(file: Path) -> str:
    """A file of results as RESULTS.md links to it."""
    return f"benchmarks/results/{file.relative_to(RESULTS).as_posix()}"


def write(row: Row, *, variant: str = "", sessions: Sessions | None = None) -> None:
    """Write the row's file, beside it the metrics per session, and print its metrics."""
    write_json(path_of(row, variant), row)
    if sessions is not None:
        sessions.write(path_of(row, variant))
    if "metrics" in row:
        print(json.dumps({"protocol": row["protocol"], "system": row["system"], **row["metrics"]}), flush=True)


def read(path: Path) -> Row:
    """One result file; names of an earlier version are translated, with a warning."""
    row = json.loads(path.read_text())
    if (translated := renamed(row)) != row:
        warnings.warn(f"{path} has names of an earlier version; they are read as today's", stacklevel=2)
    return translated


def results(
    dataset: str | None = None, protocol: str | None = None, system: str | None = None, *, folder: Path | None = None
) -> list[Row]:
    """The rows of all result files, ordered by path, or those of a data set, a protocol and a system.

    Rows are selected by their fields, not by their path, so files of the earlier flat layout are found too.

    Args:
        folder: searched with its sub-folders; default ``benchmarks/results``.
    """
    wanted = {"dataset": dataset, "protocol": protocol, "system": system}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    rows = map(read, sorted((folder or RESULTS).rglob("*.json")))
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def published_figures() -> dict[str, dict[str, Any]]:
    """Published metrics by data set, protocol and system (or scenario)."""
    return json.loads((Path(__file__).parent / "published.json").read_text())


def some_of(names: Iterable[str]) -> Callable[[str], list[str]]:
    """The type of a command-line option: comma-separated names out of these."""
    known = list(names)

    def read(words: str) -> list[str]:
        found = words.split(",")
        if unknown := sorted(set(found) - set(known)):
            raise argparse.ArgumentTypeError(f"unknown system {unknown[0]!r}; choose from {', '.join(known)}")
        return found

    return read


def heading(names: Sequence[str]) -> list[str]:
    """The header of a table of systems, with a column of figures for each name."""
    return [f"| system | {' | '.join(names)} |", "|---" + "|--:" * len(names) + "|"]


def after(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag in a command; None without the flag."""
    return words[words.index(flag) + 1] if flag in words else None


def percent(runs: Sequence[Row], metric: str) -> str:
    """A metric in %, with its deviation over seeds, and the 95 % interval over test sessions where the rows have it.

    The bounds of several seeds are averaged.
    """
    shown = spread([run["metrics"][metric] for run in runs])
    bounds = [run["intervals"][metric] for run in runs if metric in run.get("intervals", {})]
    if len(bounds) < len(runs):
        return shown
    low, high = (100 * mean(each[name] for each in bounds) for name in ("low", "high"))
    return f"{shown} [{low:.1f}, {high:.1f}]"


def spread(values: Sequence[float], digits: int = 2, *, unit: float = 100) -> str:
    """Mean ± standard deviation over seeds, in percent by default (``unit=100``)."""
    parts = [mean(values), *([stdev(values)] if len(values) > 1 else [])]
    return " ± ".join(f"{unit * part:.{digits}f}" for part in parts)


def commands(rows: Iterable[Row]) -> list[str]:
    """A line with the command that prints the commands of these rows (:mod:`benchmarks.command`)."""
    places = dict.fromkeys(f"{row['dataset']}/{row['protocol']}" for row in rows)
    return [*(f"Commands of the rows: `python -m benchmarks.command {place}`" for place in places), ""]


def by_variant(rows: list[Row]) -> list[list[Row]]:
    """Groups of rows that differ in the seed only."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[variant(row)].append(row)
    return list(groups.values())


def variant(row: Row) -> str:
    """The command without its seed, in flags and in names of saved folders: equal for the seeds of one variant.

    >>> variant({"command": "python -m benchmarks.streams eshop --systems sml --seeds 2"})
    'python -m benchmarks.streams eshop --systems sml'
    """
    return re.sub(r" --seeds? \d+| --save \S+|(?<= )(saved/\S+)-\d+(?= |$)", r"\1", row["command"])


def measures_of(row: Row) -> tuple[str, ...]:
    """The metrics that a row is compared by, the first of which orders a table; none for errors of ratings."""
    known, k = row.get("metrics", {}), CUTS.get(row["protocol"], 20)
    if "recall@10" in known:
        return tuple(name for name in ("map@12", "recall@10", "ndcg@10") if name in known)
    names = [f"hit@{k}", f"mrr@{k}"]
    names = reversed(names) if row["protocol"].startswith("users-") else names
    return tuple(name for name in names if name in known)


def in_order(rows: list[Row]) -> list[list[Row]]:
    """The seeds of each variant, best first, as in a table."""
    return sorted(by_variant(rows), key=lambda runs: -mean(run["metrics"][measures_of(run)[0]] for run in runs))


KNOWN = "known sessions"  # the slices by the number of a user's known sessions


def metrics_table(ordered: Mapping[str, Sequence[Row]], columns: Mapping[str, str]) -> list[str]:
    """A table of metrics in %, a row for each variant with its number of seeds, minutes and date.

    Args:
        ordered: the seeds of each variant, by label; columns: titles by metric.
    """
    lines = heading([*columns.values(), "seeds", "min", "date"])
    for name, runs in ordered.items():
        values = [percent(runs, column) for column in columns]
        minutes, date = f"{mean(run['wall_s'] for run in runs) / 60:.1f}", max(run["date"] for run in runs)
        lines.append(f"| {' | '.join([name, *values, str(len(runs)), minutes, date])} |")
    return lines


def known_slices(row: Row) -> dict[str, str]:
    """The titles of the slices by known sessions that have samples, with their number."""
    return {name: f"{name} ({part['samples']:,})" for name, part in row["slices"][KNOWN].items() if part["samples"]}
