"""The commands that check and compare: ``audit`` and ``bench``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphmeta.cli import console
from graphmeta.cli.options import FileOptions, LogOptions, Printed, SplitOptions, TaskOrLogOptions, versioned_folder

if TYPE_CHECKING:
    from graphmeta.evaluation.intervals import Interval
    from graphmeta.evaluation.protocol import Rules
    from graphmeta.published.bench import Bench, Row
    from graphmeta.published.bench_task import TaskBench

Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same results.")]
_MODEL = "Folder of a model written by `fit`, whose scores are checked on the test sessions."


def audit(
    reading: LogOptions,
    files: FileOptions,
    cut: SplitOptions,
    printed: Printed,
    model: Annotated[Path | None, typer.Option("--model", metavar="DIR", help=_MODEL)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for audit.html, a page with figures, and audit.json.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Check a log, its split by time, and a model for leaks.

    The exit code is 1 if there is a fault.
    """
    from graphmeta.cli.fit_job import check_folder
    from graphmeta.data.splits import split_by_time
    from graphmeta.evaluation.audit import audit as check
    from graphmeta.plots.audit_page import audit_page
    from graphmeta.published.load import load
    from graphmeta.storage import write_json

    printed.show()
    if out is not None:
        check_folder(out)
    split = split_by_time(reading.log(files), test=cut.test, valid=cut.valid)
    report = check(split, None if model is None else load(versioned_folder(model)), seed=seed, say=console.say)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        audit_page(report, out / "audit.html", title=f"Audit of {reading.events.name}")
        write_json(out / "audit.json", report.document())
        console.say(f"written: {out}/audit.html, {out}/audit.json")
    typer.echo(json.dumps(report.document(), indent=1, allow_nan=False) if printed.as_json else str(report))
    if not report.ok:
        console.say("next: correct the faults; until then, figures of this log are not comparable")
        raise typer.Exit(1)
    console.say("next: graphmeta bench or graphmeta fit with the same columns")


def bench(
    reading: TaskOrLogOptions,
    files: FileOptions,
    cut: SplitOptions,
    printed: Printed,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[EVENTS]...", help="More logs with the same columns.")
    ] = None,
    seed: Seed = 0,
    most: Annotated[
        int, typer.Option("--most", min=1, help="Test sessions of each log, evenly spaced if there are more.")
    ] = 20_000,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file for the results.")] = None,
) -> None:
    """Compare baselines and the default system on your logs.

    The encoder niser is compared too. Each log is split by time; all have the shipped settings, nothing is tuned.
    Prints Hit and MRR with 95 % bootstrap intervals over test sessions and paired t-tests between neighbouring rows.
    For a task relbench:DATABASE/TASK it prints MAP, of baselines and context_gnn.
    """
    from graphmeta.evaluation.protocol import Rules
    from graphmeta.published.bench import BenchOptions
    from graphmeta.published.bench import bench as run
    from graphmeta.storage import write_json

    printed.show()
    rules = Rules(cut.test, cut.valid, cut.min_item_support, cut.min_session_length)
    _check(rules)
    options, found = BenchOptions(rules, seed, most), []
    for path in (reading.events, *(more or ())):
        if str(path).startswith("relbench:"):
            found.append(_of_task(str(path), seed))
            continue
        log = replace(reading, events=path).log(files)
        one = run(log, path.name, options=options, say=console.say, bar=console.bar)
        found.append(one)
        table(one)
    document = {"seed": seed, "logs": [one.document() for one in found]}
    if out is not None:
        write_json(out, document)
        console.say(f"written: {out}")
    if printed.as_json:
        typer.echo(json.dumps(document, indent=1, allow_nan=False))
    elif not str(reading.events).startswith("relbench:"):
        console.say("next: graphmeta fit with the same columns, --system NAME of the best row, and --out MODEL")


def _of_task(spec: str, seed: int) -> TaskBench:
    """The bench of a RelBench task, printed as a table."""
    from graphmeta.datasets.relbench import recommendation_task
    from graphmeta.published.bench_task import bench_task

    found = bench_task(recommendation_task(spec), spec, seed=seed, say=console.say, bar=console.bar)
    rows = [
        (
            row.name,
            _shown(row.map),
            "" if row.ahead is None else f"{row.ahead.p:.2g}",
            f"{row.fit_seconds:.1f}",
            f"{row.test_seconds:.1f}",
        )
        for row in found.rows
    ]
    console.table(found.summary(), ("", f"MAP@{found.k} in %", "p against the next row", "fit s", "test s"), rows)
    return found


def _check(rules: Rules) -> None:
    from graphmeta.errors import InputError

    if not rules.test or not rules.valid:
        raise InputError("a bench needs test and validation sessions; leave out --test 0 and --valid 0")


def table(found: Bench) -> None:
    """Print the rows of one log, and what the default system is behind."""
    from graphmeta.published.bench import summary

    rows = [(row.name, *_cells(row)) for row in found.rows]
    header = ("", f"Hit@{found.k} in %", f"MRR@{found.k} in %", "p against the next row", "fit s", "test s")
    console.table(summary(found), header, rows)
    if found.blend is not None:
        console.say_out(found.blend_line())
    console.say_out(found.verdict())


def _cells(row: Row) -> list[Any]:
    tests = "" if row.ahead is None else " / ".join(f"{one.p:.2g}" for one in row.ahead.values())
    return [_shown(row.hit), _shown(row.mrr), tests, f"{row.fit_seconds:.1f}", f"{row.test_seconds:.1f}"]


def _shown(one: Interval) -> str:
    return f"{100 * one.mean:.2f} [{100 * one.low:.2f}, {100 * one.high:.2f}]"
