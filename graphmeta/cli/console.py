"""Console output of the commands: log lines and progress on the standard error, tables on the standard output."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from graphmeta.cli.wording import for_command_line
from graphmeta.errors import counted, printable

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from graphmeta.data.events import EventLog
    from graphmeta.data.scan.log import ScannedLog
    from graphmeta.data.splits import Split
    from graphmeta.evaluation.compare import Comparison
    from graphmeta.evaluation.examples import Example
    from graphmeta.evaluation.protocol import Rules
    from graphmeta.evaluation.ranking import Result
    from graphmeta.retrain.stream import PeriodReport
    from graphmeta.system import Recommendation


@dataclass
class _Shown:
    """What is printed: progress on the standard error, tables on the standard output. Notes and errors always are."""

    progress: bool = True
    tables: bool = True


_SHOWN = _Shown()


def show(*, quiet: bool = False, as_json: bool = False) -> None:
    """Choose what the command prints: no progress if quiet, no tables if it prints JSON; by default all."""
    _SHOWN.progress, _SHOWN.tables = not quiet, not as_json


def say(line: str) -> None:
    """Print a line on the standard error; if quiet, notes alone."""
    if _SHOWN.progress or line.startswith("note: "):
        typer.echo(printable(line), err=True)


def fail(message: str, code: int = 2) -> int:
    """Print an error as one line; returns the exit code."""
    show()
    say("error: " + for_command_line(" ".join(message.split())))
    return code


@contextmanager
def notes() -> Iterator[None]:
    """Within it, UserWarnings are printed as one line on the standard error; other warnings are hidden."""

    def show(message: Warning | str, *_: Any) -> None:
        say("note: " + for_command_line(" ".join(str(message).split())))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def bar(batches: Iterable[Any], name: str) -> Iterable[Any]:
    """A progress bar on the standard error, if it is a terminal."""
    from tqdm import tqdm

    return tqdm(batches, desc=name, leave=False, disable=None if _SHOWN.progress else True, mininterval=0.2)


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], *, left: int = 1) -> None:
    """Print a table, unless JSON is printed; the first ``left`` columns are left-aligned text, the others numbers."""
    if not _SHOWN.tables:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    for at, name in enumerate(header):
        grid.add_column(name, justify="left" if at < left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*("\n".join(map(printable, str(cell).split("\n"))) for cell in row))
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
    console.print("\n" + printable(title), style="bold")
    console.print(grid)


def sizes(log: EventLog | ScannedLog, split: Split, rules: Rules) -> str:
    """Sizes of a log's splits, in one line."""
    from graphmeta.evaluation.protocol import test_queries

    parts = ((split.train, "train"), (split.valid, "choose the epoch"), (split.test, "test"))
    sessions = ", ".join(f"{part.num_sessions:,} to {name}" for part, name in parts)
    scored = len(test_queries(split.test, rules))
    if scored < split.test.num_sessions:
        least = max(rules.min_session_length, 2)
        sessions += f" ({scored:,} of them with {least} or more clicks on items known from training, which are scored)"
    lost = f"; later clicks on items without training events, which are ignored: {split.unknown:,}"
    items = counted(split.train.num_items, "candidate item")
    return f"{counted(log.num_events, 'event')}; sessions: {sessions}; {items}{lost if split.unknown else ''}"


def on_disk(log: EventLog | ScannedLog) -> str | None:
    """A line for a log that does not fit the memory; None for others."""
    from graphmeta.data.scan.log import ScannedLog

    if not isinstance(log, ScannedLog):
        return None
    return (
        f"{counted(log.num_events, 'event')} do not fit the memory (--memory) and stay on disk: training reads "
        f"{counted(log.num_shards, 'part')}, one after the other, and popularity is the only baseline"
    )


def left_out(log: EventLog | ScannedLog, kept: EventLog | ScannedLog, rules: Rules) -> str:
    """The number of sessions, events and items that the filters left out of a log, in one line."""
    support = counted(rules.min_item_support, "event")
    limits = f"items of at least {support}, sessions of at least {rules.min_session_length}"
    names = {"num_sessions": "sessions", "num_events": "events", "num_items": "items"}
    both = {name: (getattr(log, field), getattr(kept, field)) for field, name in names.items()}
    parts = [f"{whole - left:,} of {counted(whole, name[:-1])}" for name, (whole, left) in both.items()]
    return f"filters ({limits}; --min-item-support, --min-session-length) leave out {', '.join(parts)}"


def numbers(graph: HeteroData) -> dict[str, dict[str, int]]:
    """The number of nodes and edges of each type."""
    # The first value of a category is "unknown"; no row has an edge to it.
    attributes = {kind for _, relation, kind in graph.edge_types if relation == "has"}
    return {
        "nodes": {kind: int(graph[kind].num_nodes) - (kind in attributes) for kind in graph.node_types},
        "edges": {" ".join(kind): int(graph[kind].num_edges) for kind in graph.edge_types},
    }


def statistics(graph: HeteroData, title: str) -> None:
    """Print the number of nodes and edges of each type."""
    rows = [(kind, what, f"{number:,}") for what, found in numbers(graph).items() for kind, number in found.items()]
    table(title, ("type", "", "number"), rows, left=2)


def results(found: Mapping[str, Result], system: str) -> None:
    """Print metrics of the system and the baselines, overall and by context length."""
    from graphmeta.cli.model_card import titles
    from graphmeta.evaluation.lists import hit_and_mrr
    from graphmeta.evaluation.lists import lengths as list_lengths

    own, names = found["system"], titles(system, found)
    ks = list_lengths(own.metrics)
    shown = hit_and_mrr(own.metrics)
    rows = [(names[key], *(f"{100 * result.metrics[name]:.2f}" for name in shown)) for key, result in found.items()]
    title = f"The last item of {counted(own.samples, 'test session')} among {own.candidates:,}, in %"
    table(title, ("", *shown.values()), rows)
    lengths = own.slices["context length"]
    by_clicks = [
        (names[key], *(_both(result.slices["context length"][clicks], ks[-1]) for clicks in lengths))
        for key, result in found.items()
    ]
    header = ("clicks observed (sessions)", *(f"{clicks} ({part['samples']:,})" for clicks, part in lengths.items()))
    table(f"Hit@{ks[-1]} / MRR@{ks[-1]} in %, by context length", header, by_clicks)


def verdict(found: Comparison, system: str) -> None:
    """Print what is ahead of the system, if anything is."""
    from graphmeta.cli.model_card import titles

    line = found.verdict(titles(system, found))
    if line is not None:
        say_out(line)


def _both(found: Mapping[str, float], k: int) -> str:
    return f"{100 * found[f'hit@{k}']:.1f} / {100 * found[f'mrr@{k}']:.1f}" if found.get("samples", 1) else "-"


def periods(found: Mapping[str, Sequence[PeriodReport]]) -> None:
    """Print the metrics of systems over all periods, weighted by clicks, and the cost of retraining."""
    from graphmeta.evaluation.lists import lengths as list_lengths
    from graphmeta.retrain.stream import overall

    ks = list_lengths(name for reports in found.values() for report in reports for name in report.sampled)
    shown = [f"{name}@{k}" for k in sorted({ks[0], ks[-1]}) for name in ("hit", "ndcg")]
    header = ("", *(name.replace("hit", "Recall").replace("ndcg", "NDCG") for name in shown), "train s/period")
    for kind, among in (("sampled", "among sampled candidates"), ("full", "among all")):
        rows = []
        for name, reports in found.items():
            mean = overall(reports)[kind]
            cost = sum(report.train_seconds for report in reports) / len(reports)
            rows.append((name, *(f"{100 * mean[measure]:.2f}" for measure in shown), f"{cost:.1f}"))
        clicks = sum(report.rows for report in next(iter(found.values())))
        table(f"{counted(clicks, 'click')} of {counted(len(reports), 'period')}, ranked {among}, in %", header, rows)


def known_sessions(
    found: Mapping[str, Result], last: Mapping[str, Mapping[int | None, Result]], names: Mapping[str, str]
) -> None:
    """Print Hit and MRR of the longest lists by the number of a user's earlier sessions: as they are, and with only the
    last n known.

    Args:
        found: results of the whole test, by name.
        last: of :func:`graphmeta.evaluation.compare.by_known_sessions`, by name.
    """
    from graphmeta.evaluation.lists import lengths as list_lengths

    k = max(list_lengths(next(iter(found.values())).metrics))
    parts = {name: result.slices["known sessions"] for name, result in found.items()}
    ranges = next(iter(parts.values()))
    rows = [
        (
            marks,
            f"{one['samples']:,}",
            *(_both(part[marks], k) if one["samples"] else "no session" for part in parts.values()),
        )
        for marks, one in ranges.items()
    ]
    header = ("earlier sessions", "test sessions", *(names[name] for name in found))
    table(f"Hit@{k} / MRR@{k} in %, by the number of a user's earlier sessions", header, rows)
    numbers = next(iter(last.values()))
    shown = [
        (_last(n, marks), *(_both({"samples": 1, **result[n].metrics}, k) for result in last.values()))
        for n, marks in zip(numbers, ranges, strict=True)
    ]
    tests = counted(next(iter(numbers.values())).samples, "test session")
    title = f"Hit@{k} / MRR@{k} in %, the same {tests}, when only the last n earlier sessions of a user are known"
    table(title, ("n (range)", *(names[name] for name in last)), shown)


def _last(number: int | None, marks: str) -> str:
    """How many earlier sessions are known, and the range of which this is the most."""
    shown = "all" if number is None else str(number)
    return shown if shown == marks else f"{shown} ({marks})"


def examples(found: Sequence[Example], candidates: int) -> None:
    """Print recommendations next to the item that was bought, and without the user's history, if it is read."""
    for number, example in enumerate(found, 1):
        known = "\n".join(f"  {name}" for name in example.known)
        if example.without is None:
            rows = [
                (str(at + 1), offered.name, "<- bought" if offered.item == example.next_item else "")
                for at, offered in enumerate(example.offered)
            ]
            if not any(row[2] for row in rows):
                rows.append(("", example.next_name, f"<- bought; rank {example.rank:,} of {candidates:,}"))
            table(f"Example {number}. In the basket:\n{known}", ("", "recommended next", ""), rows, left=3)
            continue
        rows = [
            (str(at + 1), *(_marked(offers[at], example) for offers in (example.without, example.offered)))
            for at in range(len(example.offered))
        ]
        title = (
            f"Example {number}, a household with {counted(example.sessions, 'known basket')}. In the basket:\n{known}"
        )
        table(title, ("", "without the history", "with the history"), rows, left=3)
        ranks = f"rank {example.rank_without:,} without, {example.rank:,} with the history"
        say_out(f"bought next: {example.next_name}; {ranks}")


def _marked(offered: Recommendation, example: Example) -> str:
    """A recommendation, with what the history contains of it."""
    past = example.past.get(offered.item)
    bought = "  <- bought" if offered.item == example.next_item else ""
    return offered.name + (f"\n   had {past}" if past is not None else "") + bought


def say_json(document: Any) -> None:
    """Print a document as JSON; control characters of ids and names are escaped, other letters are not."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    typer.echo("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text))


def say_out(line: str) -> None:
    """Print a line on the standard output, unless JSON is printed."""
    if _SHOWN.tables:
        typer.echo(printable(line))
