"""Learning curves and adaptation curves.

Requires matplotlib (the extra ``plots``). Figures are rendered off screen; nothing here opens a window or changes
matplotlib's settings.
"""

from __future__ import annotations

import io
import itertools
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphmeta.errors import InputError, counted
from graphmeta.evaluation.adaptation_curves import Curve
from graphmeta.evaluation.lists import lengths, shown
from graphmeta.evaluation.result import Result
from graphmeta.storage import write_bytes
from graphmeta.training.run import ERRORS, Report

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe and Ito's colour-blind safe palette.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, GREY, INK = "#56B4E9", "#D55E00", "#8A8F98", "#22262E"


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib; pip install 'graphmeta[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def save(picture: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # characters that the font lacks are drawn as boxes
        picture.savefig(content, format="png", dpi=144, metadata={"Software": None})
    write_bytes(path, content.getvalue())


def legend_beside(picture: Figure) -> None:
    """One legend right of all axes, each name once, so that it never covers a line."""
    found: dict[str, Artist] = {}
    for axes in picture.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if found:
        picture.legend(list(found.values()), list(found), loc="outside right upper", frameon=False, fontsize=9)


def log_x(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def labels_beside(axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """A label for each point, in a column right of the axes, each joined to its point by a line; none overlap."""
    low, high = axes.get_ylim()
    share = [(y - low) / (high - low) for _, y in points]
    for (x, y), height, text in zip(points, apart(share, 0.055), texts, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(1.05, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5, "shrinkA": 0, "shrinkB": 3},
            annotation_clip=False,
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights at least ``gap`` apart in the same order, as near to the given ones as possible; [n] -> [n].

    Neighbours that are too near form a block around the mean of its members.

    >>> [round(height, 2) for height in apart([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    """
    order = sorted(range(len(heights)), key=lambda at: heights[at])
    blocks: list[list[float]] = []  # the begin of each block were its members a gap apart: sum, number
    for place, at in enumerate(order):
        blocks.append([heights[at] - place * gap, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, number = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += number
    begins = [total / number for total, number in blocks for _ in range(int(number))]
    found = {at: begin + place * gap for place, (at, begin) in enumerate(zip(order, begins, strict=True))}
    return [found[at] for at in range(len(heights))]


def curves(
    histories: Mapping[str, Sequence[Report]],
    path: Path,
    *,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    metric: str | None = None,
) -> None:
    """Training loss and validation metric per epoch, side by side; baselines as horizontal lines.

    Args:
        histories: the reports of each training, by its name.
        baselines: metrics on the same validation sessions, by name.
        metric: the metric to draw, MRR of the longest lists if not given.
    """
    if metric is None:
        known = (name for history in histories.values() for report in history for name in report.valid)
        metric = f"mrr@{max(lengths(known), default=20)}"
    picture = figure(12, 4)
    left, right = picture.subplots(1, 2)
    for (name, history), colour in zip(histories.items(), (BLUE, ORANGE, GREEN, PINK), strict=False):
        epochs = [report.epoch + 1 for report in history]
        left.plot(epochs, [report.loss for report in history], "o-", color=colour)
        if any(metric in report.valid for report in history):
            _validation(right, name, history, metric, colour)
        else:
            left.lines[-1].set_label(name)
    for (name, found), style in zip((baselines or {}).items(), ("--", ":", "-."), strict=False):
        named = f"{name} ({100 * found[metric]:.2f})"
        right.axhline(100 * found[metric], color=GREY, linestyle=style, label=named, zorder=1)
    last = max(2, *(len(history) for history in histories.values()))
    label_axes(left, "Training loss", ("epoch", "mean loss per sample"), (1, last))
    measured = [(one.valid[metric], name) for name, own in histories.items() for one in own if metric in one.valid]
    measured += [(found[metric], name) for name, found in (baselines or {}).items()]
    best = min if metric in ERRORS else max
    first = f": {best(measured)[1]} is first" if len({name for _, name in measured}) > 1 else ""
    label_axes(right, f"Validation {shown(metric)}{first}", ("epoch", "%"), (1, last))
    if right.lines:
        right.set_ylim(0, 1.12 * max(right.dataLim.y1, 0.1))
    else:
        right.text(0.5, 0.5, "no validation sessions", ha="center", color=GREY, transform=right.transAxes)
    legend_beside(picture)
    save(picture, path)


def known_sessions(
    found: Mapping[str, Result],
    last: Mapping[str, Mapping[int | None, Result]],
    path: Path,
) -> None:
    """Hit and MRR of the longest lists by the number of a user's earlier sessions, a colour for each model.

    Bars are standard errors of Hit.

    Above, test sessions by how many their users have (an empty range has no point); below, the same test sessions with
    only the last n known, n the most of each range.

    Args:
        found: results by model, with slices of known sessions.
        last: results by model and number (None: all), see :func:`graphmeta.evaluation.compare.by_known_sessions`.
    """
    k = max(lengths(next(iter(found.values())).metrics))
    picture = figure(13, 7.5)
    above, below = picture.subplots(2, 2)
    ranges = next(iter(found.values())).slices["known sessions"]
    numbers = next(iter(last.values()))
    samples = next(iter(numbers.values())).samples
    owned = [f"{marks}\n({part['samples']:,})" for marks, part in ranges.items()]
    limited = [f"{'all' if n is None else n}\n({marks})" for n, marks in zip(numbers, ranges, strict=True)]
    for metric, top, bottom in zip((f"hit@{k}", f"mrr@{k}"), above, below, strict=True):
        for at, (name, colour) in enumerate(zip(found, itertools.cycle((BLUE, ORANGE, GREEN, PINK)))):
            parts = list(found[name].slices["known sessions"].values())
            values = [100 * part[metric] if part["samples"] else float("nan") for part in parts]
            places = np.arange(len(ranges)) + 0.1 * (at - (len(found) - 1) / 2)  # side by side
            top.errorbar(places, values, errors(parts, metric), fmt="o", color=colour, label=name, capsize=2, lw=1)
            values = [100 * one.metrics[metric] for one in last[name].values()]
            bottom.plot(range(len(numbers)), values, "o-", color=colour, label=name)
        best = [max((own[n].metrics[metric], name) for name, own in last.items())[1] for n in numbers]
        ((who, times),) = Counter(best).most_common(1)
        when = "" if times == len(numbers) else f" {times} of {len(numbers)} times"
        same = f"the same {counted(samples, 'test session')}:\n{who} is first{when}"
        labels = ("earlier sessions of the user (test sessions)", "only the last n earlier sessions known (range)")
        for axes, which, label in zip((top, bottom), ("all test sessions", same), labels, strict=True):
            label_axes(axes, f"{shown(metric)}, {which}", (label, "%"))
        for axes, ticks in ((top, owned), (bottom, limited)):
            axes.set_xlim(-0.5, len(ranges) - 0.5)
            axes.set_xticks(range(len(ranges)), ticks)
            axes.set_ylim(bottom=0)
    legend_beside(picture)
    save(picture, path)


def errors(parts: Sequence[Mapping[str, float]], metric: str) -> list[float]:
    """Standard errors of a hit rate in percent; 0 for other metrics, whose spread a slice does not have."""
    if not metric.startswith("hit@"):
        return [0.0] * len(parts)
    return [
        100 * (part[metric] * (1 - part[metric]) / part["samples"]) ** 0.5 if part["samples"] else 0.0 for part in parts
    ]


def adaptation_curves(
    by_steps: Mapping[str, Curve],
    by_support: Mapping[str, Curve],
    path: Path,
    *,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    metric: str = "mrr@20",
) -> None:
    """A metric by the number of inner steps and by the number of support samples, side by side.

    A ring marks a system's own number of steps, or of support samples.

    Args:
        by_steps, by_support: the curves of each system, by its name; see :mod:`graphmeta.evaluation.adaptation_curves`.
        baselines: metrics of non-adaptive systems on the same samples, by name; horizontal lines in both panels.
        metric: the metric to draw.
    """
    picture = figure(12, 4)
    sides = picture.subplots(1, 2, sharey=True)
    for axes, kind, named in zip(sides, ("inner steps", "support samples"), (by_steps, by_support), strict=True):
        for (name, curve), colour in zip(named.items(), itertools.cycle((BLUE, ORANGE, GREEN, PINK))):
            values = {number: 100 * value for number, value in sorted(curve.values(metric).items())}
            axes.plot(list(values), list(values.values()), "o-", color=colour, label=name)
            if curve.own in values:
                axes.plot(curve.own, values[curve.own], "o", ms=13, mfc="none", mec=colour, mew=1.5)
        for (name, found), style in zip((baselines or {}).items(), ("--", ":", "-."), strict=False):
            axes.axhline(100 * found[metric], color=GREY, linestyle=style, label=name, zorder=1)
        last = max((number for curve in named.values() for number in curve.results), default=1)
        label_axes(axes, f"{shown(metric)} by {kind}", (kind, "%"), (0, last))
    sides[0].set_ylim(0, 1.12 * max(0.1, *(axes.dataLim.y1 for axes in sides)))
    legend_beside(picture)
    save(picture, path)


def _validation(axes: Axes, name: str, history: Sequence[Report], metric: str, colour: str) -> None:
    """One curve, with a ring around the chosen epoch."""
    epochs, values = [r.epoch + 1 for r in history], [100 * r.valid[metric] for r in history]
    kept = max(at for at, report in enumerate(history) if report.best)
    axes.plot(epochs, values, "o-", color=colour, label=f"{name} ({values[kept]:.2f}, epoch {epochs[kept]})")
    axes.plot(epochs[kept], values[kept], "o", ms=13, mfc="none", mec=colour, mew=1.5)


def label_axes(axes: Axes, title: str, labels: tuple[str, str], ends: tuple[int, int] | None = None) -> None:
    """Set title, axis labels, and the range of x where x counts something."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", color=INK, fontweight="bold", fontsize=10)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if ends is not None:
        axes.set_xlim(ends[0] - 0.3, ends[1] + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E6E8EB")
    axes.set_axisbelow(True)
