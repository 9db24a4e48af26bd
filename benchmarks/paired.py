"""Intervals of rows over test sessions, and paired tests between neighbouring rows of a table.

    python -m benchmarks.paired                          # all tables whose rows have their metrics per session
    python -m benchmarks.paired diginetica/sr-gnn        # one
    python -m benchmarks.paired --add ROW.json saved/x   # the metrics per session of a row whose system was saved

A benchmark writes the metrics of each test session beside its row (``.npz``; not in git, as they derive from the data),
and their bootstrap interval into the row. This module compares each row with the next one of its table that has them
too and writes ``benchmarks/paired.json``, from which the tables are made.

The queries of one session are not independent: sessions are resampled and tested as a whole, and where the log has
users, users. The values of several seeds are averaged per session first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from statistics import mean

import numpy as np
from tqdm import tqdm

from benchmarks import users
from benchmarks.accuracy import DATASETS
from benchmarks.rows import RESULTS, Row, in_order, measures_of, read, variant
from benchmarks.sessions import SAME, Sessions
from graphmeta.errors import counted
from graphmeta.evaluation.intervals import bootstrap_interval, paired
from graphmeta.evaluation.lists import shown
from graphmeta.evaluation.queries import with_history
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.load import load
from graphmeta.sampling.samples import Samples
from graphmeta.storage import write_json
from graphmeta.system import System

PAIRED = Path(__file__).parent / "paired.json"


def main() -> None:
    """Write ``paired.json``, or add the metrics per session of a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", help="tables, as DATA/PROTOCOL; default: all")
    parser.add_argument("--add", nargs=2, type=Path, metavar=("ROW", "SAVED"), help="a row and its saved system")
    options = parser.parse_args()
    if options.add:
        add(*options.add)
        return
    paths, had = {}, json.loads(PAIRED.read_text()) if PAIRED.exists() else {}
    for path in sorted(RESULTS.rglob("*.json")):
        row = read(path)
        paths[key_of(row)] = path, row
    tables = sorted({f"{row['dataset']}/{row['protocol']}" for _, row in paths.values()})
    if unknown := sorted(set(options.places) - set(tables)):
        raise SystemExit(f"no rows of {unknown[0]!r}; choose from {', '.join(tables)}")
    for place in options.places or tables:
        own = [row for _, row in paths.values() if f"{row['dataset']}/{row['protocol']}" == place]
        found = neighbours(own, {key: path for key, (path, _) in paths.items()})
        compared_again = [pair["rows"] for pair in found]
        kept = [pair for pair in had.get(place, []) if pair["rows"] not in compared_again and current(pair, own)]
        had[place] = [*found, *kept]
        if found:
            print(f"{place}: {counted(len(found), 'pair')}", flush=True)
    write_json(PAIRED, {place: pairs for place, pairs in sorted(had.items()) if pairs})


def key_of(row: Row) -> tuple[str, ...]:
    """What identifies a row: a command may write one under several protocols."""
    return row["dataset"], row["protocol"], row["system"], row["command"]


def neighbours(rows: list[Row], paths: Mapping[tuple[str, ...], Path]) -> list[Row]:
    """Each row of a table against the next one that has its metrics per session too, of the same queries.

    Args:
        paths: the files, see :func:`key_of`.
    """
    if not rows or not measures_of(rows[0]):
        return []
    found = ((runs, averaged({paths[key_of(run)]: run for run in runs})) for runs in in_order(rows))
    known = [(runs, one) for runs, one in found if one is not None]
    return [compared(first, second) for first, second in pairwise(known) if first[1].key == second[1].key]


def averaged(runs: Mapping[Path, Row]) -> Sessions | None:
    """The means over the seeds of a variant, by file; None unless all have their metrics per session."""
    found = [one for path, run in runs.items() if (one := Sessions.beside(path, run["metrics"])) is not None]
    if len(found) < len(runs) or len({one.key for one in found}) > 1:
        return None
    values = {name: np.mean([one.values[name] for one in found], 0) for name in found[0].values}
    return Sessions(found[0].unit, found[0].queries, found[0].key, values)


def compared(first: tuple[Sequence[Row], Sessions], second: tuple[Sequence[Row], Sessions]) -> Row:
    """How much a row is ahead of another, with interval and p-value, by metric."""
    (runs, one), (others, other) = first, second
    found: Row = {
        "rows": [variant(runs[0]), variant(others[0])],
        "seeds": [len(runs), len(others)],
        "over": one.unit,
        "number": len(one.queries),
    }
    for name in measures_of(runs[0]):
        test = paired(one.values[name], other.values[name], weights=one.queries)
        bounds = bootstrap_interval(one.values[name] - other.values[name], weights=one.queries)
        found[name] = {"difference": test.difference, "low": bounds.low, "high": bounds.high, "p": test.p}
    return found


def current(pair: Row, rows: list[Row]) -> bool:
    """Whether the rows of a pair are still those that were compared."""
    seeds = [[row for row in rows if variant(row) == name] for name in pair["rows"]]
    return all(seeds) and all(
        abs(mean(r["metrics"][name] for r in seeds[0]) - mean(r["metrics"][name] for r in seeds[1]) - of["difference"])
        < SAME
        for name, of in pair.items()
        if "@" in name
    )


def add(path: Path, saved: Path) -> None:
    """Write the metrics per session and the intervals of a row from its saved system.

    The row is of :mod:`benchmarks.accuracy` or :mod:`benchmarks.users`.

    Raises:
        SystemExit: the system has other metrics than the row.
    """
    row, model = read(path), load(saved)
    samples = queries_of(row, model)
    ks = tuple(sorted({int(name.partition("@")[2]) for name in row["metrics"]}))
    result = evaluate(model, samples, ks=ks, progress=tqdm)
    sessions = Sessions.of(result, samples)
    if not sessions.matches(row["metrics"]):
        raise SystemExit(f"{saved} has {result.metrics}, {path} {row['metrics']}; pass the system that the row saved")
    write_json(path, {**row, "intervals": sessions.intervals()})
    sessions.write(path)


def queries_of(row: Row, model: System) -> Samples:
    """The test queries of a row."""
    if row["protocol"].startswith("users-"):
        return users.queries_of(users.SPLITS[row["protocol"].removeprefix("users-")](users.LOGS[row["dataset"]]()))
    dataset = DATASETS[row["dataset"]]
    train_log, valid_log, test_log = dataset.parts()
    return with_history(model, dataset.protocols[row["protocol"]](test_log), test_log, train_log, valid_log)


def table_of(ordered: Mapping[str, Sequence[Row]]) -> list[str]:
    """The paired tests between neighbouring rows of a table, in its order; nothing without any.

    Args:
        ordered: the seeds of each variant, by label.
    """
    rows = list(chain(*ordered.values()))
    place = f"{rows[0]['dataset']}/{rows[0]['protocol']}"
    pairs = [pair for pair in pairs_of_tables().get(place, []) if current(pair, rows)]
    labels = {variant(runs[0]): label for label, runs in ordered.items()}
    order = list(labels)
    pairs = sorted(pairs, key=lambda pair: [order.index(name) for name in pair["rows"]])
    if not pairs:
        return []
    names = [name for name in pairs[0] if "@" in name]
    lines = [
        f"Neighbouring rows, paired over {pairs[0]['number']:,} {pairs[0]['over']}s: difference in points, its 95 % "
        f"bootstrap interval and the p-value of a paired t-test.\n",
        f"| row | against | {' | '.join(map(shown, names))} |",
        "|---|---|" + "--:|" * len(names),
    ]
    for pair in pairs:
        first, second = (labels[name] for name in pair["rows"])
        lines.append(f"| {first} | {second} | {' | '.join(difference(pair[name]) for name in names)} |")
    return ["", *lines, ""]


def difference(of: Row) -> str:
    """``+0.52 [+0.31, +0.73], p < 0.001`` in points."""
    p = "p < 0.001" if of["p"] < 0.001 else f"p = {of['p']:.3f}"
    return f"{100 * of['difference']:+.2f} [{100 * of['low']:+.2f}, {100 * of['high']:+.2f}], {p}"


@cache
def pairs_of_tables() -> dict[str, list[Row]]:
    """The stored pairs, by table."""
    return json.loads(PAIRED.read_text()) if PAIRED.exists() else {}


if __name__ == "__main__":
    main()
