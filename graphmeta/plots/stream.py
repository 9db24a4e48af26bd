"""Figures of streams: metrics of each system by period, and the cost of retraining."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from graphmeta.evaluation.lists import lengths, shown
from graphmeta.plots.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    figure,
    label_axes,
    legend_beside,
    save,
)
from graphmeta.retrain.stream import PeriodReport

_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, GREY)
_LINES = [(colour, line) for line in ("-", "--", ":") for colour in _COLOURS]


def periods(histories: Mapping[str, Sequence[PeriodReport]], path: Path, *, metric: str | None = None) -> None:
    """A metric on each period before retraining on it, among sampled candidates and among all items.

    Args:
        histories: the reports of each system, by its name; metric: the metric to draw, Hit of the longest lists if
            not given.
    """
    if metric is None:
        known = (name for history in histories.values() for report in history for name in report.sampled)
        metric = f"hit@{max(lengths(known), default=20)}"
    picture = figure(12, 4)
    last = max(report.period for history in histories.values() for report in history) + 1
    first = min(report.period for history in histories.values() for report in history) + 1
    for axes, kind, among in zip(
        picture.subplots(1, 2), ("sampled", "full"), ("sampled candidates", "all items"), strict=True
    ):
        for (name, history), (colour, line) in zip(histories.items(), itertools.cycle(_LINES)):
            tested = [report for report in history if report.rows]
            values = [100 * getattr(report, kind)[metric] for report in tested]
            numbers = [report.period + 1 for report in tested]
            axes.plot(numbers, values, marker=".", ls=line, color=colour, label=name, lw=1.2)
        label_axes(axes, f"{shown(metric)} among {among}", ("period", "%"), (first, last))
        axes.set_ylim(0, 1.12 * max(0.1, axes.dataLim.y1))
    legend_beside(picture)
    save(picture, path)


def costs(histories: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """CPU seconds of retraining on one period, by the number of periods of history.

    Args:
        histories: of each system, by its name, the number of periods and the seconds.
    """
    picture = figure(7.5, 4)
    axes = picture.subplots()
    for (name, found), (colour, line) in zip(histories.items(), itertools.cycle(_LINES)):
        axes.plot(list(found), list(found.values()), marker="o", ls=line, color=colour, label=name)
    last = max(number for found in histories.values() for number in found)
    label_axes(axes, "Retraining on one period", ("periods of history", "CPU seconds"), (0, last))
    axes.set_ylim(0, 1.12 * axes.dataLim.y1)
    legend_beside(picture)
    save(picture, path)
