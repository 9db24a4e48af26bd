"""The results pages of the site: one for each data set, and the rows of one system across all of them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cache
from itertools import chain
from statistics import mean
from typing import Any

from benchmarks import frozen
from benchmarks.labels import label, special
from benchmarks.report import HERE, book
from benchmarks.rows import CUTS, Row, by_variant, read, results, spread
from benchmarks.texts import HEAD

DATA = {
    "diginetica": "Diginetica",
    "yoochoose1_64": "Yoochoose 1/64",
    "complete_journey": "The Complete Journey (bundled)",
    "tafeng": "Ta-Feng",
    "movielens1m": "MovieLens-1M",
    "melu_ml1m": "MovieLens-1M ratings (MeLU's split)",
    "metahin_ml1m": "MovieLens-1M ratings (MetaHIN's split)",
    "metahin_dbook": "Douban books",
    "amazon_beauty": "Amazon Beauty",
    "amazon_cell": "Amazon Cell Phones",
    "musical_instruments": "Amazon Musical Instruments",
    "planted": "Synthetic reviews",
    "eshop_clothing": "A clothing shop",
    "synthetic": "Synthetic logs",
    "yoochoose_times": "Yoochoose with times",
}
METRICS = {  # what a row shows, by protocol; of the others, Hit and MRR at the protocol's cut
    "next-basket": {"Recall@10": "recall@10", "NDCG@10": "ndcg@10"},
    "stream": {"sampled Recall@20": "hit@20", "NDCG@20": "ndcg@20"},
    "metacf": {"Hit@10": "hit@10", "NDCG@10": "ndcg@10"},
}
FROM_ROWS = re.compile(r"\{\{([^\s:}]+)(?:: ([^}]+))?\}\}")  # {{file without its seed}}, {{file: metric | metric}}


@cache
def titles() -> dict[str, str]:
    """The titles of the pages, by data set; data sets without rows are left out."""
    known = {row["dataset"] for row in results()}
    return {name: DATA.get(name, name) for name in [*DATA, *sorted(known - DATA.keys())] if name in known}


@cache
def pages() -> dict[str, str]:
    """The Markdown of each page, by data set; and of the findings in detail."""
    parts: dict[str, list[str]] = defaultdict(list)
    for (dataset, _), text in book(results()).items():
        parts[dataset].append(text)
    rules = "Rules, and what the columns are: [findings in detail](findings.md).\n"
    findings = FROM_ROWS.sub(from_rows, (HERE / "findings.md").read_text())
    return {"findings": "\n".join([HEAD, findings, *frozen.section(), *judged()])} | {
        name: "\n".join([f"# {title}\n", rules, *parts[name]]) for name, title in titles().items()
    }


def judged() -> list[str]:
    """The largest differences to other packages, from ``benchmarks/judges.json``."""
    stored = json.loads((HERE / "judges.json").read_text())
    packages: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in stored["rows"]:
        packages[row["package"], row["version"]].append(row)
    lines = [
        "## Metrics against other packages\n",
        f"`make judges`, {stored['date']}: the largest absolute difference to what each package computes on the same "
        "random lists, with ties as the mean over all orders; of relbench also its loader, its labels and MAP@12 of "
        "the exported log, of implicit the cosines of item kNN.\n",
        "| package | version | comparisons | compared | largest difference |",
        "|---|---|--:|---|--:|",
    ]
    for (package, version), rows in packages.items():
        names = ", ".join(dict.fromkeys(re.split(r"@| with ties|:", row["what"])[0] for row in rows))
        worst = max(row["difference"] for row in rows)
        lines.append(f"| {package} | {version} | {len(rows)} | {names} | {worst:.1e} |")
    return [*lines, ""]


def from_rows(found: re.Match[str]) -> str:
    """The figures that ``findings.md`` names: those of a file of ``results``, or of all its seeds.

    Raises:
        FileNotFoundError: no such row.
        KeyError: its rows do not have the metric.
    """
    folder, name = HERE / "results", found[1]
    files = chain.from_iterable(folder.glob(f"{name}{end}.json") for end in ("", "-seed*", "/seed*"))
    runs = [read(path) for path in sorted(files)]
    if not runs:
        raise FileNotFoundError(f"findings.md: no row {name}")
    names = found[2] or " / ".join(columns(runs[0]).values())
    return re.sub(r"[^\s|/]+", lambda metric: spread([metric_of(run, metric[0]) for run in runs]), names)


def metric_of(row: Row, name: str) -> float:
    """A metric of a row, or a value of the row itself; a name with dots is a path, as ``known_sessions.5.hit@20``."""
    found: Any = row if "." in name or name in row else row["metrics"]
    for key in name.split("."):
        found = found[key]
    return found


def columns(row: Row) -> dict[str, str]:
    """The metrics that are shown of a row, by title."""
    cut = CUTS.get(row["protocol"], 20)
    return METRICS.get(row["protocol"], {f"Hit@{cut}": f"hit@{cut}", f"MRR@{cut}": f"mrr@{cut}"})


@cache
def figures_of(system: str) -> list[tuple[str, str, str, str, int]]:
    """A system's rows: data set, protocol, label, figures and number of seeds."""
    found = []
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in results(system=system):
        groups[row["dataset"], row["protocol"]].append(row)
    for runs in chain.from_iterable(map(by_variant, groups.values())):
        first = runs[0]
        if shown := figures(runs):
            run = label(first, special(runs)).removeprefix(system).strip(" ()") or "–"
            found.append((first["dataset"], first["protocol"], run.replace("|", "/"), shown, len(runs)))
    order = list(titles())
    return sorted(found, key=lambda row: (order.index(row[0]), row[1]))


def figures(runs: list[Row]) -> str:
    """The main figures of a variant, with their deviation over seeds."""
    first = runs[0]
    if "scenarios" in first:
        errors = {name: mean(run["scenarios"][name]["metrics"]["mae"] for run in runs) for name in first["scenarios"]}
        return "MAE " + ", ".join(f"{name} {value:.4f}" for name, value in errors.items())
    known = first.get("metrics", {})
    if "mse" in known:
        return f"MSE {spread([run['metrics']['mse'] for run in runs], 4, unit=1)}"
    return ", ".join(
        f"{title} {spread([run['metrics'][name] for run in runs])}"
        for title, name in columns(first).items()
        if name in known
    )
