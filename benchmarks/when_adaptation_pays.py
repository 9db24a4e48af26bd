"""Write the tables and the figure of docs/concepts/when-adaptation-pays.md from the files in ``benchmarks/results``.

python -m benchmarks.when_adaptation_pays
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from textwrap import fill

from matplotlib.axes import Axes

from benchmarks.labels import flags_of, within
from benchmarks.pictures import adapts, flag, loaded, plains
from benchmarks.report import with_table
from benchmarks.rows import KNOWN, Row, by_variant, heading, percent, results, spread
from graphmeta.plots import figures as plots

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "concepts" / "when-adaptation-pays.md", DOCS / "pictures" / "when-adaptation-pays.png"
CURVE = 1000  # queries of a curve by known sessions, unless --curve
DATA = {"diginetica": "Diginetica", "yoochoose1_64": "Yoochoose 1/64"}


@dataclass(frozen=True)
class Way:
    """A way to use a user's earlier sessions: its name, the rows, and how it is drawn."""

    name: str
    holds: Callable[[Row], bool]
    colour: str
    mark: str


def plain(name: str) -> Callable[[Row], bool]:
    """Whether a row is of this system."""
    return lambda row: row["system"] == name


def stepped(base: str) -> Callable[[Row], bool]:
    """Whether a row is one step on an item bias with the given rate, without meta-training."""
    return lambda row: (
        row["system"] == "maml"
        and base_of(row) == base
        and row["arguments"].get("bias_rate") == 200.0
        and "decay" not in row["arguments"]
    )


def base_of(row: Row) -> str | None:
    """The base of a meta-learner."""
    return row.get("base") or row["arguments"].get("base")


WAYS = (
    Way("features (personal_reranker)", plain("personal_reranker"), plots.BLUE, "o-"),
    Way("one step (maml over reranker)", stepped("reranker"), plots.GREEN, "D-"),
    Way("counts (personal_frequency)", plain("personal_frequency"), plots.INK, "^-"),
    Way("one step (maml over niser)", stepped("niser"), plots.ORANGE, "s-"),
    Way("amortised (over niser)", plain("amortised"), plots.PINK, "v-"),
    Way("no history (reranker)", plain("reranker"), plots.SKY, "--"),
    Way("no history (niser)", plain("niser"), plots.VERMILION, ":"),
)


def main() -> None:
    """Write the page's tables and its figure."""
    rows = results()
    PAGE.write_text(with_table(PAGE.read_text(), tables(rows)))
    draw(rows, PICTURE)


def users(rows: Sequence[Row], protocol: str, dataset: str = "complete_journey") -> dict[Way, list[Row]]:
    """The seeds of each way on a data set with users; the best variant by the first metric, if there are several."""
    own = [row for row in rows if (row["dataset"], row["protocol"]) == (dataset, protocol)]
    measure = "recall@10" if protocol == "next-basket" else "hit@20"
    found = {}
    for way in WAYS:
        some = by_variant([row for row in own if way.holds(row)])
        if some:
            found[way] = max(some, key=lambda runs: mean(run["metrics"][measure] for run in runs))
    return found


@dataclass(frozen=True)
class Gain:
    """The best adapted row around a base, the base, and the same row without steps, if there is one."""

    base: Row
    adapted: Row
    tried: int
    without: Row | None = None

    def points(self, metric: str, *, over: Row | None = None) -> float:
        """The difference to the base, or to another row, in points."""
        return 100 * (self.adapted["metrics"][metric] - (over or self.base)["metrics"][metric])

    @property
    def bar(self) -> float:
        """Half the 95 % interval of the difference in Hit@5 in points, if the rows were on different sessions."""
        shares = [row["metrics"]["hit@5"] for row in (self.base, self.adapted)]
        return 196 * sqrt(sum(share * (1 - share) for share in shares) / self.base["samples"])

    @property
    def name(self) -> str:
        """The base in words."""
        folder = flag(self.adapted, "--warm-start")
        recipe = "by the recipe" if "recipe" in folder else "full softmax"
        again = ", refitted" if flag(self.adapted, "--refit-base") else ""
        held = ", all sessions" if folder.endswith("_recipe") else ""
        return f"{within(self.adapted['arguments']).removeprefix('base ')} ({recipe}{again}{held})"


def sessions(rows: Sequence[Row], dataset: str) -> list[Gain]:
    """What adapting to a session's own clicks adds to each base under CBML's protocol, weakest base first."""
    own = [row for row in rows if (row["dataset"], row["protocol"]) == (dataset, "cbml")]
    known, groups = plains(own), {}
    for row in own:
        if adapts(row) and loaded(row) in known:
            groups.setdefault(loaded(row), []).append(row)
    found = []
    for folders, some in groups.items():
        steps = [row for row in some if row["arguments"].get("steps") != 0]
        without = [row for row in some if row["arguments"].get("steps") == 0 and "gate" not in row["arguments"]]
        adapted = max(steps, key=lambda row: row["metrics"]["mrr@5"])
        same = [row for row in without if row["system"] == adapted["system"]]
        found.append(Gain(known[folders], adapted, len(steps), same[0] if same else None))
    return sorted(found, key=lambda gain: gain.base["metrics"]["hit@5"])


def tables(rows: Sequence[Row]) -> list[str]:
    """The tables of the page."""
    lines = []
    for title, protocol in (("Split by time", "users-time"), ("Users held out of training", "users-user")):
        found = users(rows, protocol)
        numbers = [n for n in next(runs for runs in found.values() if runs[0]["known_sessions"])[0]["known_sessions"]]
        columns = ["all queries", *(f"last {n}" if n != "all" else "all" for n in numbers), "CPU s", "peak MB"]
        lines += [f"**{title}**, Hit@20 in %, by the number of known earlier sessions:", "", *heading(columns)]
        for way, runs in found.items():
            curve = [spread([run["known_sessions"][n]["hit@20"] for run in runs], 1) for n in numbers
                     if all(run["known_sessions"] for run in runs)] or ["–"] * len(numbers)  # fmt: skip
            cells = [way.name, percent(runs, "hit@20"), *curve, cpu(runs, rows), f"{max(r['peak_mb'] for r in runs)}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    found = users(rows, "next-basket", "tafeng")
    parts = [n for n, part in next(iter(found.values()))[0]["slices"][KNOWN].items() if part["samples"]]
    lines += ["**Ta-Feng**, the next basket before its first click, Recall@10 in %, by the user's known baskets:", ""]
    lines += heading(["all users", *parts, "peak MB"])
    for way, runs in found.items():
        by = [spread([run["slices"][KNOWN][n]["recall@10"] for run in runs], 1) for n in parts]
        peak = f"{max(run['peak_mb'] for run in runs)}"
        lines.append(f"| {' | '.join([way.name, percent(runs, 'recall@10'), *by, peak])} |")
    for dataset, title in DATA.items():
        lines += ["", f"**{title}**, the session as the task, by base, Hit@5 / MRR@5 in %:", ""]
        lines += heading(["base alone", "best adapted", "gain", "over no step", "adapters tried", "train s", "peak MB"])
        for gain in sessions(rows, dataset):
            cells = [gain.name, both(gain.base), f"{both(gain.adapted)} (`{gain.adapted['system']}`)"]
            cells += [points(gain), points(gain, gain.without) if gain.without else "–", f"{gain.tried}"]
            cells += [f"{gain.adapted['wall_s']:.0f}", f"{gain.adapted['peak_mb']}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def cpu(runs: Sequence[Row], rows: Sequence[Row]) -> str:
    """CPU seconds of training, plus those of a base that another row trained."""
    own = mean(run["cpu_s"] for run in runs)
    if folder := flag(runs[0], "--warm-start"):
        place = [row for row in rows if row["protocol"] == runs[0]["protocol"] and flag(row, "--save") == folder]
        return f"{own:.1f} + {place[0]['cpu_s']:.0f}" if place else f"{own:.1f} + ?"
    return f"{own:.1f}"


def both(row: Row) -> str:
    """Hit@5 / MRR@5."""
    return " / ".join(f"{100 * row['metrics'][name]:.2f}" for name in ("hit@5", "mrr@5"))


def points(gain: Gain, over: Row | None = None) -> str:
    """The gain in both metrics."""
    return " / ".join(f"{gain.points(name, over=over):+.2f}" for name in ("hit@5", "mrr@5"))


def draw(rows: Sequence[Row], path: Path) -> None:
    """The user as the task by known sessions, and the session as the task by base."""
    picture = plots.figure(13, 6.2)
    left, right = picture.subplots(1, 2, width_ratios=(1.3, 1))
    by_sessions(left, users(rows, "users-time"))
    by_base(right, {title: sessions(rows, dataset) for dataset, title in DATA.items()})
    picture.suptitle(
        "A user's history pays most as features; one step or counts pass a re-ranker without history from twenty "
        "known sessions on;\na session's own clicks add little to a good base",
        x=0.01, ha="left", fontsize=12,
    )  # fmt: skip
    plots.save(picture, path)


def by_sessions(axes: Axes, found: Mapping[Way, Sequence[Row]]) -> None:
    """Hit@20 when only the last n earlier sessions are known."""
    drawn = {way: runs for way, runs in found.items() if all(run["known_sessions"] for run in runs)}
    numbers = list(next(iter(drawn.values()))[0]["known_sessions"])
    for at, (way, runs) in enumerate(drawn.items()):
        values = [[run["known_sessions"][n]["hit@20"] for run in runs] for n in numbers]
        queries = int(flags_of(runs[0]).get("--curve", CURVE))
        share = [mean(each) for each in values]
        bars = [
            100 * max(1.96 * sqrt(p * (1 - p) / queries), 2 * stdev(each) if len(each) > 1 else 0.0)
            for p, each in zip(share, values, strict=True)
        ]
        places = [number + 0.06 * (at - len(drawn) / 2) for number in range(len(numbers))]
        spans = bars if len(set(share)) > 1 else None  # no history: a line
        style = {"fmt": way.mark, "color": way.colour, "capsize": 2, "ms": 5, "label": way.name}
        axes.errorbar(places, [100 * p for p in share], spans, **style)
    axes.set_xticks(range(len(numbers)), numbers)
    labels = ("known earlier sessions, the last n", "Hit@20 in %, 95 % intervals")
    plots.label_axes(axes, "User as the task (The Complete Journey)", labels)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)


def by_base(axes: Axes, found: Mapping[str, Sequence[Gain]]) -> None:
    """The gain in Hit@5 over each base, weakest base first."""
    names, ticks = [], 0
    for (title, gains), colour, mark in zip(found.items(), (plots.BLUE, plots.ORANGE), "os", strict=True):
        places = range(ticks, ticks + len(gains))
        gained = [gain.points("hit@5") for gain in gains]
        bars = [gain.bar for gain in gains]
        axes.errorbar(gained, places, xerr=bars, fmt=mark, color=colour, capsize=2, ms=6, label=title)
        names += [fill(f"{gain.name}: {100 * gain.base['metrics']['hit@5']:.1f} alone", 38) for gain in gains]
        ticks += len(gains)
    axes.set_yticks(range(ticks), names, fontsize=7.5)
    axes.invert_yaxis()
    axes.axvline(0, color=plots.GREY, lw=1, zorder=0)
    plots.label_axes(axes, "Session as the task, by base (best adapter)", ("points of Hit@5 over the base", ""))
    axes.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)


if __name__ == "__main__":
    main()
