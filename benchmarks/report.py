"""Write RESULTS.md and the README's table of results from the files in ``benchmarks/results``.

    python -m benchmarks.report

The sections of each data set are pages of the site (:mod:`benchmarks.pages`). Every figure comes from a result file,
and every result file from a command (:mod:`benchmarks.command`). Rows that differ in the seed only are merged into one,
with mean and standard deviation.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean

from benchmarks.basket_report import basket_section
from benchmarks.cold_report import cold_section, tuning_section
from benchmarks.growth_report import growth_section
from benchmarks.labels import named, spanned
from benchmarks.paired import table_of
from benchmarks.race import only_raced, race_section, raced
from benchmarks.recipes import recipes_section
from benchmarks.rows import (
    CONTEXT,
    CUTS,
    Row,
    after,
    by_variant,
    commands,
    heading,
    in_order,
    linked,
    percent,
    picture,
    published_figures,
    results,
    spread,
)
from benchmarks.stream_report import stream_section
from benchmarks.summary import readme_table, summary
from benchmarks.texts import MELU, RATINGS, TEXTS, TITLES
from benchmarks.users_report import users_section
from graphmeta.published.catalogue import CATALOGUE

HERE = Path(__file__).parent
SLICES = {CONTEXT: CONTEXT, "item events": "training clicks of the target"}
SECTIONS = {  # protocols with a table of their own
    "stream": lambda title, rows, text: stream_section(title, rows),
    "cold-items": cold_section,
    "tuning": tuning_section,
    "race": race_section,
    "recipes": recipes_section,
    "next-basket": basket_section,
    "next-7-days": basket_section,
    "users-time": users_section,
    "users-user": users_section,
    "growth": growth_section,
}
DRAWN = {  # pictures, and what they show
    "comparison": "MRR of the best run of each system against its training minutes, and by context length",
    "adaptation": "Gain in MRR@5 of each meta-learner over its base, by context length",
    "clusters": "Sizes of ClusterSeq's clusters, and the user vectors by their principal components",
}
COLLAPSED = 1.1  # effective number of clusters
SECOND = {"metacf": "ndcg"}  # the metric beside Hit, where it is not MRR


def main() -> None:
    """Write the files."""
    rows, readme = results(), HERE.parent / "README.md"
    (HERE.parent / "RESULTS.md").write_text(summary(rows))
    readme.write_text(with_table(readme.read_text(), readme_table(rows)))


def with_table(text: str, lines: list[str]) -> str:
    """A text with these lines between its marks ``<!-- results -->`` and ``<!-- end of results -->``.

    >>> with_table("a\\n<!-- results -->\\nold\\n<!-- end of results -->\\nb", ["new"])
    'a\\n<!-- results -->\\nnew\\n<!-- end of results -->\\nb'
    """
    first, end = "<!-- results -->\n", "<!-- end of results -->"
    before, _, rest = text.partition(first)
    _, _, after_table = rest.partition(end)
    return before + first + "\n".join([*lines, ""]) + end + after_table


def report(rows: list[Row]) -> str:
    """All sections of all data sets in one text."""
    return "\n".join(book(rows).values())


def book(rows: list[Row]) -> dict[tuple[str, str], str]:
    """The section of each data set and protocol, in the order of ``TITLES``.

    Raises:
        SystemExit: rows of a data set and protocol without a title.
    """
    published = published_figures()
    if unknown := {(row["dataset"], row["protocol"]) for row in rows} - TITLES.keys():
        raise SystemExit(f"no title for {sorted(unknown)}; add it to TITLES")
    found = {}
    for key, title in TITLES.items():
        chosen = [row for row in rows if (row["dataset"], row["protocol"]) == key and not only_raced(row)]
        if key[1] == "race":
            chosen = raced([row for row in rows if row["dataset"] == key[0]])
        if chosen and "mse" in chosen[0].get("metrics", {}):
            found[key] = cross_domain_section(title, chosen)
        elif chosen and "scenarios" in chosen[0]:
            found[key] = ratings_section(title, chosen, published.get(key[0], {}).get(key[1], {}))
        elif chosen and key[1] in SECTIONS:
            found[key] = SECTIONS[key[1]](title, chosen, TEXTS.get(key, ""))
        elif chosen:
            found[key] = section(title, chosen, published.get(key[0], {}).get(key[1], {}))
    return found


def section(title: str, rows: list[Row], published: dict[str, dict[str, float]]) -> str:
    """One data set under one protocol: the systems, best first, and their results by slice."""
    cut = CUTS[rows[0]["protocol"]]
    second = SECOND.get(rows[0]["protocol"], "mrr")
    hit, mrr = f"hit@{cut}", f"{second}@{cut}"
    ordered = named(in_order(rows))
    first = rows[0]
    lines = [
        f"## {title}\n",
        *([text] if (text := TEXTS.get((first["dataset"], first["protocol"]))) else []),
        f"{first['samples']:,} samples, {first['candidates']:,} candidates.\n",
        f"| system | Hit@{cut} | {second.upper()}@{cut} | published | difference "
        "| epochs | seeds | train min | peak MB | date |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name, runs in ordered.items():
        theirs = published.get(runs[0]["system"]) if as_published(runs[0]) else None
        ours = [mean(run["metrics"][measure] for run in runs) for measure in (hit, mrr)]
        printed = "– | –" if theirs is None else against(ours, [theirs[hit], theirs[mrr]])
        epochs = spanned([run["epochs"] if run["history"] else 0 for run in runs])
        minutes, peak = mean(r["wall_s"] for r in runs) / 60, max(r["peak_mb"] for r in runs)
        cells = [name, percent(runs, hit), percent(runs, mrr), printed, epochs, len(runs), f"{minutes:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {peak:,} | {max(r['date'] for r in runs)} |")
    slices = [*sliced(ordered, mrr, CONTEXT), *sliced(ordered, mrr, "item events")]
    return "\n".join(
        [
            *lines,
            "",
            *table_of(ordered),
            *clusters(ordered),
            *pictures(first),
            *stepped(ordered),
            *slices,
            *commands(chain(*ordered.values())),
        ]
    )


def as_published(row: Row) -> bool:
    """Whether the row is the published system: trained on all sessions, its own base, no additional score terms.

    Learning rates, epochs and batch sizes may differ.
    """
    given, entry = row["arguments"], CATALOGUE.get(row["system"])
    base = entry.encoder if entry else None
    whole = float(after(shlex.split(row["command"]), "--share") or 1) == 1
    return whole and given.get("base", base) == base and not given.get("options") and not given.get("score_terms")


def pictures(first: Row) -> list[str]:
    """The pictures that `benchmarks.pictures` drew for the section."""
    files = {picture(first["dataset"], first["protocol"], name): shown for name, shown in DRAWN.items()}
    return [f"![{shown}]({linked(file)})\n" for file, shown in files.items() if file.exists()]


def clusters(ordered: Mapping[str, Sequence[Row]]) -> list[str]:
    """A sentence on the clusters of each system that has some, of its first seed."""
    lines = []
    for name, (row, *_) in ordered.items():
        if found := row.get("clusters"):
            number, sizes = len(found["sizes"]), ", ".join(f"{size:,}" for size in found["sizes"])
            lines.append(
                f"Clusters of `{name}`: {sizes} test users by largest membership, which is "
                f"{found['largest_membership']:.2f} on average; the effective number of clusters (the exponential of "
                f"the mutual information of users and clusters) is {found['distinct']:.2f} of {number}"
                f"{', so they have collapsed' if found['distinct'] < COLLAPSED else ''}.\n"
            )
    return lines


def against(ours: list[float], theirs: list[float]) -> str:
    """The published figures and our difference from them."""
    printed = " / ".join(f"{100 * value:.2f}" for value in theirs)
    return f"{printed} | {' / '.join(f'{100 * (a - b):+.2f}' for a, b in zip(ours, theirs, strict=True))}"


def ratings_section(title: str, rows: list[Row], published: dict[str, dict[str, dict[str, float]]]) -> str:
    """Ratings in each scenario: the systems, lowest error first."""
    lines, groups = [f"## {title}\n", RATINGS, *([MELU] if published else [])], named(by_variant(rows))
    for name, first in rows[0]["scenarios"].items():
        lines += [
            f"**{name}**: {first['tasks']:,} users, {first['known']:,} support ratings, "
            f"{first['samples']:,} query ratings.\n",
            "| system | MAE | RMSE | nDCG@1 | nDCG@3 | linear nDCG@1 | linear nDCG@3 | epochs | seeds | train min |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        scored = {label: [run["scenarios"][name] for run in runs] for label, runs in groups.items()}
        for label, found in sorted(scored.items(), key=lambda pair: mean(run["metrics"]["mae"] for run in pair[1])):
            runs = groups[label]
            values = [points(found, measure) for measure in MEASURES]
            epochs = spanned([len(run["history"]) for run in runs])
            minutes = f"{mean(run['wall_s'] for run in runs) / 60:.1f}"
            lines.append(f"| {' | '.join(map(str, [label, *values, epochs, len(runs), minutes]))} |")
        for system, theirs in published.get(name, {}).items():
            printed = [f"{theirs[m]:.4f}" if m in theirs else "–" for m in MEASURES]
            lines.append(f"| *{system}, published* | {' | '.join(printed)} | | | |")
        lines.append("")
    return "\n".join([*lines, *commands(chain(*groups.values()))])


def cross_domain_section(title: str, rows: list[Row]) -> str:
    """Rating errors for cold-start users in the target domain: the systems, lowest error first."""
    first, groups = rows[0], by_variant(rows)
    ordered = named(sorted(groups, key=lambda runs: mean(run["metrics"]["mse"] for run in runs)))
    lines = [
        f"## {title}\n",
        TEXTS[first["dataset"], first["protocol"]],
        f"Seed {first['seed']}: {first['linking']:,} linking users, {first['cold']:,} cold-start users with "
        f"{first['samples']:,} test ratings; training reviews: {first['known'][0]:,} of {first['items'][0]:,} source "
        f"items, {first['known'][1]:,} of {first['items'][1]:,} target items.\n",
        "| system | MSE | RMSE | MAE | epochs | seeds | train min |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, runs in ordered.items():
        values = [points(runs, measure) for measure in ("mse", "rmse", "mae")]
        epochs = spanned([len(run["history"]) for run in runs])
        minutes = f"{mean(run['wall_s'] for run in runs) / 60:.1f}"
        lines.append(f"| {' | '.join(map(str, [name, *values, epochs, len(runs), minutes]))} |")
    return "\n".join([*lines, "", *commands(chain(*groups))])


MEASURES = ("mae", "rmse", "ndcg@1", "ndcg@3", "ndcg_linear@1", "ndcg_linear@3")


def points(runs: list[Row], name: str) -> str:
    """A metric as it is, with its standard deviation over seeds."""
    return spread([run["metrics"][name] for run in runs], 4, unit=1)


def stepped(ordered: dict[str, list[Row]]) -> list[str]:
    """Hit@10 by the number of adaptation steps, for rows that report it."""
    reported = {name: runs for name, runs in ordered.items() if all(run.get("by_steps") for run in runs)}
    if not reported:
        return []
    first = next(iter(reported.values()))[0]
    steps = [n for n in first["by_steps"] if all(n in runs[0]["by_steps"] for runs in reported.values())]
    lines = [
        "Hit@10 by adaptation steps:\n",
        *heading(steps),
    ]
    for name, runs in reported.items():
        values = [f"{100 * mean(run['by_steps'][n]['hit@10'] for run in runs):.2f}" for n in steps]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return [*lines, "", *oracles(list(reported.values()))]


def oracles(reported: list[list[Row]]) -> list[str]:
    """Where the number of steps was chosen on held-out items: the result of the best number for the test."""
    lines = []
    for runs in reported:
        if "steps" in runs[0]["arguments"] and runs[0]["system"].endswith("best"):
            best = mean(max(m["hit@10"] for m in run["by_steps"].values()) for run in runs)
            chosen = ", ".join(str(run["arguments"]["steps"]) for run in runs)
            lines += [
                f"{runs[0]['system']} chose {chosen} steps; the best number for the test gives {100 * best:.2f}.",
                "",
            ]
    return lines


def sliced(ordered: dict[str, list[Row]], mrr: str, kind: str) -> list[str]:
    """MRR by context length (clicks observed), or by the number of training clicks of the target."""
    first = next(iter(ordered.values()))[0]["slices"].get(kind, {})
    names = [n for n, s in first.items() if s["samples"]]
    if len(names) < 2:
        return []
    head = [f"{n} ({first[n]['samples']:,})" for n in names]
    lines = [
        f"{mrr.upper()} by {SLICES[kind]} (samples):\n",
        *heading(head),
    ]
    for name, runs in ordered.items():
        if all(kind in run["slices"] for run in runs):
            values = [f"{100 * mean(r['slices'][kind][n][mrr] for r in runs):.2f}" for n in names]
            lines.append(f"| {name} | {' | '.join(values)} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
