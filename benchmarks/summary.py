"""RESULTS.md, and the table of results in the README: what was found, with one table each, from the rows.

Sentences have no figures of their own; each finding has a claim, which a test compares with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean

from benchmarks.labels import flags_of
from benchmarks.race import only_raced
from benchmarks.rows import CUTS, Row, by_variant, published_figures, spread

Place = tuple[str, str]  # data set and protocol
SEVERAL = ("sr-gnn", "next-basket", "next-7-days", "stream", "metacf")  # a session or user has several targets
HEAD = """# Results

Written by `python -m benchmarks.report` from [`benchmarks/results`](benchmarks/results). All rows are on the site; the
command of a row is printed by `python -m benchmarks.command FILE`. Figures are in percent, over the full catalogue;
epochs are chosen on held-out training sessions. Best run: the best row, or one with more seeds within its interval.
± is half the 95 % interval over test sessions, where known, or with "seeds" the standard deviation.
"""


@dataclass(frozen=True)
class Finding:
    """A finding: its sentences, its table, and what has to be true of the rows."""

    title: str
    text: str
    table: Callable[[list[Row]], list[str]]
    claim: Callable[[list[Row]], bool]


def summary(rows: list[Row]) -> str:
    """RESULTS.md."""
    parts = [HEAD]
    for finding in FINDINGS:
        parts += [f"## {finding.title}\n", finding.text.strip() + "\n", *finding.table(rows), ""]
    return "\n".join([*parts, LIMITS])


def best(rows: list[Row], place: Place, system: str, where: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    """The seeds of the best run of a system on a data set under a protocol; empty without any.

    A run is not the best if another has more seeds and is within its interval: that may be chance.
    """
    fits = [
        row
        for row in rows
        if (row["dataset"], row["protocol"]) == place and row["system"] == system and not only_raced(row) and where(row)
    ]
    runs = by_variant(fits)
    if not runs or "mse" in runs[0][0]["metrics"]:
        return max(runs, key=lambda one: value(one, place), default=[])
    top = max(runs, key=lambda one: value(one, place))
    least = value(top, place) - (half_interval(top[0], place) or of_share(top[0], place))
    near = [one for one in runs if value(one, place) >= least and len(one) >= len(top)]
    return max(near, key=lambda one: (len(one), value(one, place)))


def value(runs: Sequence[Row], place: Place, measure: str | None = None) -> float:
    """The main metric of a run, larger is better; the mean over seeds."""
    found = [run["metrics"] for run in runs]
    if measure is None and "mse" in found[0]:
        return -mean(one["mse"] for one in found)
    return mean(one[measure or main_metric(place)] for one in found)


def main_metric(place: Place) -> str:
    """Hit at the cut of the protocol, Recall@10 for next baskets."""
    return "recall@10" if place[1] == "next-basket" else f"hit@{CUTS.get(place[1], 20)}"


def second_metric(place: Place) -> str:
    """What is shown beside it."""
    if place[1] in ("next-basket", "metacf"):
        return "ndcg@10"
    return "ndcg@20" if place[1] == "stream" else f"mrr@{CUTS.get(place[1], 20)}"


def cell(runs: Sequence[Row], place: Place) -> str:
    """``54.82 ± .40 / 18.92`` in percent; a dash without runs."""
    if not runs:
        return "–"
    first, second = value(runs, place), value(runs, place, second_metric(place))
    if len(runs) > 1:
        shown = f"{spread([run['metrics'][main_metric(place)] for run in runs])} ({len(runs)} seeds)"
    elif (half := half_interval(runs[0], place)) is not None:
        shown = f"{100 * first:.2f} ± {100 * half:.2f}"
    else:
        shown = f"{100 * first:.2f}"
    return f"{shown} / {100 * second:.2f}"


def half_interval(row: Row, place: Place) -> float | None:
    """Half the 95 % interval of the main metric: the row's bootstrap over sessions, or that of a share of independent
    queries, one per session; None where sessions have several and the row has no interval.
    """
    name = main_metric(place)
    if bounds := row.get("intervals", {}).get(name):
        return (bounds["high"] - bounds["low"]) / 2
    if place[1] in SEVERAL:
        return None
    return of_share(row, place)


def of_share(row: Row, place: Place) -> float:
    """Half the 95 % interval of the main metric as a share of independent queries."""
    share = row["metrics"][main_metric(place)]
    return 1.96 * sqrt(share * (1 - share) / row["samples"])


def table(columns: Mapping[str, Place], systems: Sequence[str], *, published: Sequence[str] = ()) -> Callable:
    """A table of the best run of each system, one column for each data set, ordered by the first."""

    def lines(rows: list[Row]) -> list[str]:
        found = {name: {place: best(rows, place, name) for place in columns.values()} for name in systems}
        first = next(iter(columns.values()))
        order = sorted(systems, key=lambda name: -value(runs, first) if (runs := found[name][first]) else 1.0)
        out = [f"| best run of | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]
        for name in order:
            out.append(f"| `{name}` | {' | '.join(cell(found[name][place], place) for place in columns.values())} |")
        for name in published:
            cells = [printed(place, name) for place in columns.values()]
            out.append(f"| *published {name}* | {' | '.join(cells)} |")
        return out

    return lines


def printed(place: Place, system: str) -> str:
    """The published figures."""
    theirs = published_figures().get(place[0], {}).get(place[1], {}).get(system)
    if theirs is None:
        return "–"
    return " / ".join(f"{100 * theirs[name]:.2f}" for name in (main_metric(place), second_metric(place)))


def errors(columns: Mapping[str, str], systems: Sequence[str], scenarios: Sequence[str]) -> Callable:
    """Mean absolute errors of ratings: the lowest of each system's runs in each scenario."""

    def lines(rows: list[Row]) -> list[str]:
        out = [f"| MAE in {' / '.join(scenarios)} | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]
        for name in systems:
            cells = [" / ".join(lowest(rows, data, name, part) for part in scenarios) for data in columns.values()]
            out.append(f"| `{name}` | {' | '.join(cells)} |")
        return out

    return lines


def lowest(rows: list[Row], data: str, system: str, scenario: str) -> str:
    """The lowest mean absolute error of a system in a scenario."""
    found = [
        mae(runs, scenario) for runs in by_variant([r for r in rows if r["dataset"] == data and r["system"] == system])
    ]
    found = [one for one in found if one is not None]
    return f"{min(found):.3f}" if found else "–"


def mae(runs: Sequence[Row], scenario: str) -> float | None:
    """The mean absolute error of a run in a scenario."""
    if not all(scenario in run.get("scenarios", {}) for run in runs):
        return None
    return mean(run["scenarios"][scenario]["metrics"]["mae"] for run in runs)


def ahead(place: Place, first: str, *others: str) -> Callable[[list[Row]], bool]:
    """Whether the best run of a system is ahead of those of all others."""

    def holds(rows: list[Row]) -> bool:
        known = value(best(rows, place, first), place)
        return all(known >= value(runs, place) for name in others if (runs := best(rows, place, name)))

    return holds


def all_of(*claims: Callable[[list[Row]], bool]) -> Callable[[list[Row]], bool]:
    """Whether all hold."""
    return lambda rows: all(claim(rows) for claim in claims)


DIGI, YOO = ("diginetica", "sr-gnn"), ("yoochoose1_64", "sr-gnn")
DIGI_LAST, YOO_LAST = ("diginetica", "cbml"), ("yoochoose1_64", "cbml")
TIME, USER = ("complete_journey", "users-time"), ("complete_journey", "users-user")
TAFENG, JOURNEY_BASKET = ("tafeng", "next-basket"), ("complete_journey", "next-basket")
STREAMS = {
    "The Complete Journey": ("complete_journey", "stream"),
    "MovieLens-1M": ("movielens1m", "stream"),
    "Amazon Beauty": ("amazon_beauty", "stream"),
}
COUNTS = ("personal_frequency", "tifu_knn", "up_cf")


def smaller_step(rows: list[Row]) -> bool:
    """Whether a step on a session's own clicks adds less to a re-ranker than the interval of its base."""
    stepped = best(rows, DIGI_LAST, "cbml", lambda row: row["arguments"].get("base") == "reranker")
    plain = best(
        rows,
        DIGI_LAST,
        "cbml",
        lambda row: row["arguments"].get("base") == "reranker" and flags_of(row) and row["arguments"].get("steps") == 0,
    )
    gain = value(stepped, DIGI_LAST) - value(plain, DIGI_LAST)
    share = value(plain, DIGI_LAST)
    return gain < 1.96 * sqrt(share * (1 - share) / plain[0]["samples"])


def means_are_ahead(rows: list[Row]) -> bool:
    """Whether means have the lowest error for warm items, and a meta-learner has it for new ones."""
    learned = ("melu_rating", "mamo_rating", "meta_hin_rating")
    pairs = [
        (part, float(lowest(rows, data, "item_user_mean", part)), [lowest(rows, data, name, part) for name in learned])
        for data in ("melu_ml1m", "metahin_ml1m", "metahin_dbook")
        for part in ("warm", "user cold", "item cold", "both cold")
    ]
    errors_of = {(part, means): min(float(one) for one in found if one != "–") for part, means, found in pairs}
    return all((means < other) == (part in ("warm", "user cold")) for (part, means), other in errors_of.items())


FINDINGS = (
    Finding(
        "The next click of a session",
        """
Re-ranking NISER with co-occurrence, recency and popularity features (`reranker`) is best on both logs. Plain encoders
trained by the default recipe reach or pass their published Hit@20; item kNN, which only counts, is level with several
of them on Diginetica. Hit@20 / MRR@20, every test prefix.
""",
        table(
            {"Diginetica": DIGI, "Yoochoose 1/64": YOO},
            ("reranker", "niser", "global_gnn", "tagnn", "sr_gnn", "item_knn", "gru4rec", "if_san"),
            published=("sr_gnn", "tagnn"),
        ),
        all_of(ahead(DIGI, "reranker", "niser", "item_knn", "global_gnn"), ahead(YOO, "reranker", "niser", "item_knn")),
    ),
    Finding(
        "A user's earlier sessions are worth more than anything else",
        """
With the household's earlier baskets, the last item of a basket is found far more often. The same history helps most as
features (`personal_reranker`), less as one gradient step on an item bias (`maml`), least as an amortised adapter;
for users held out, counts alone (`personal_frequency`) are ahead of both. Hit@20 / MRR@20 on The Complete Journey.
""",
        table(
            {"split by time": TIME, "users held out": USER},
            ("personal_reranker", "maml", "personal_frequency", "tifu_knn", "amortised", "reranker", "niser"),
        ),
        all_of(
            ahead(TIME, "personal_reranker", "maml", *COUNTS, "amortised", "reranker", "niser"),
            ahead(USER, "personal_reranker", "maml", *COUNTS, "amortised"),
            ahead(TIME, "maml", "amortised"),
            ahead(USER, "personal_frequency", "maml", "amortised"),
        ),
    ),
    Finding(
        "The next basket, before its first click",
        "Counts of a user's own items are strong, and the re-ranker is ahead of them. Recall@10 / NDCG@10.",
        table(
            {"Ta-Feng": TAFENG, "The Complete Journey": JOURNEY_BASKET}, ("personal_reranker", *COUNTS, "popularity")
        ),
        ahead(TAFENG, "personal_reranker", *COUNTS, "popularity"),
    ),
    Finding(
        "Adapting to a session's own clicks adds little",
        """
A step on the clicks of the session adds to a weak encoder (`if_san`), where it mostly learns that users return to
items. To an encoder with a repeat bias and co-occurrence features, and to the re-ranker, it adds less than the
interval. The base's training explains the published gap between plain and adapted encoders. Hit@5 / MRR@5, last clicks.
""",
        table(
            {"Diginetica": DIGI_LAST, "Yoochoose 1/64": YOO_LAST},
            ("cbml", "reranker", "niser", "item_knn", "mamo", "melu", "sr_gnn", "if_san"),
            published=("cbml",),
        ),
        smaller_step,
    ),
    Finding(
        "New users with a few observed items",
        """
Item kNN is level with the meta-learned user vectors on MovieLens; on Amazon it is far, and popularity a little, ahead.
Hit@10 / NDCG@10, one to five observed items (MetaCF's protocol).
""",
        table(
            {"MovieLens-1M": ("movielens1m", "metacf"), "Amazon Cell Phones": ("amazon_cell", "metacf")},
            ("meta_cf_neural", "item_knn", "meta_cf_linear", "meta_cf_g", "popularity"),
        ),
        all_of(
            ahead(("amazon_cell", "metacf"), "item_knn", "bpr_fold_in", "popularity"),
            ahead(("amazon_cell", "metacf"), "popularity", "meta_cf_g", "meta_cf_linear", "meta_cf_neural"),
        ),
    ),
    Finding(
        "Ratings by cold-start users",
        """
Plain means of items and users have a lower error than every published model for items seen in training; for new items
the best meta-learner is a little better. Mean absolute error, lower is better.
""",
        errors(
            {"MovieLens-1M (MeLU)": "melu_ml1m", "MovieLens-1M (MetaHIN)": "metahin_ml1m", "Douban": "metahin_dbook"},
            ("item_user_mean", "melu_rating", "mamo_rating", "meta_hin_rating"),
            ("warm", "user cold", "item cold", "both cold"),
        ),
        means_are_ahead,
    ),
    Finding(
        "Retraining every period",
        """
Learned transfer (SML) is ahead of fine-tuning on MovieLens and Amazon, mostly for users who are new in the period, and
nearly level with the last period's popularity there; on the bundled log it is behind. Where users have long histories,
a sequence encoder is first: Caser or GRU4Rec. Recall@20 among 999 sampled items / NDCG@20.
""",
        table(STREAMS, ("caser", "full_retrain", "fine_tune", "sml", "sml_warm", "gru4rec", "popular")),
        all_of(
            ahead(STREAMS["MovieLens-1M"], "sml", "fine_tune"),
            ahead(STREAMS["Amazon Beauty"], "sml", "fine_tune"),
            lambda rows: not ahead(STREAMS["The Complete Journey"], "sml", "fine_tune")(rows),
            ahead(STREAMS["The Complete Journey"], "caser", "full_retrain", "fine_tune", "gru4rec"),
            ahead(STREAMS["MovieLens-1M"], "gru4rec", "sml", "sml_warm", "popular", "fine_tune"),
        ),
    ),
)
LIMITS = """## What is not shown

Under CBML's protocol the best runs of `cbml`, `melu` and `mamo`, and on Diginetica of `if_san`, were trained by the
full softmax at batch 100, before the default recipe.
One machine with two shared cores, mostly one seed: differences of a few tenths of a point are noise. Settings were
chosen on validation data except where a note on the site states otherwise. CBML's own splits, ASARS's MovieLens, SML's
Yelp and Adressa and CATN's Amazon pairs were not available; substitutes are named. ClusterSeq is a reconstruction.
"""


def readme_table(rows: list[Row]) -> list[str]:
    """The table of the README."""
    parts = {
        "Diginetica, Hit@20 / MRR@20": (DIGI, ("reranker", "niser", "sr_gnn", "item_knn")),
        "The Complete Journey, users known, Hit@20 / MRR@20": (
            TIME, ("personal_reranker", "maml", "personal_frequency", "niser")
        ),
        "Ta-Feng, next basket, Recall@10 / NDCG@10": (TAFENG, ("personal_reranker", "personal_frequency", "tifu_knn")),
    }  # fmt: skip
    lines = ["| data, metrics | best run of | first metric ± / second metric |", "|---|---|--:|"]
    for title, (place, systems) in parts.items():
        for number, name in enumerate(systems):
            lines.append(f"| {'' if number else title} | `{name}` | {cell(best(rows, place, name), place)} |")
    return lines
