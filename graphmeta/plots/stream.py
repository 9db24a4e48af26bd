"""Figures of streams: metrics of each system by period, and the cost of retraining."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev

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


def periods(
    histories: Mapping[str, Sequence[PeriodReport]],
    path: Path,
    *,
    metric: str | None = None,
    seeds: Mapping[str, Sequence[Sequence[PeriodReport]]] | None = None,
) -> None:
    """A metric on each period before retraining on it, among sampled candidates and among all items.

    Args:
        histories: the reports of each system, by its name.
        metric: the metric to show, Hit of the longest lists if not given.
        seeds: the reports of every seed of a system, of the same periods; shown as a band of one standard deviation.
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
            values = _values(history, kind, metric)
            numbers = [report.period + 1 for report in history if report.rows]
            axes.plot(numbers, values, marker=".", ls=line, color=colour, label=name, lw=1.2)
            runs = [_values(run, kind, metric) for run in (seeds or {}).get(name, ())]
            if len(runs) > 1:
                spread = [stdev(at) for at in zip(*runs, strict=True)]
                low, high = ([y + sign * e for y, e in zip(values, spread, strict=True)] for sign in (-1, 1))
                axes.fill_between(numbers, low, high, color=colour, alpha=0.25, lw=0)
        best = max(histories, key=lambda name: _mean(histories[name], kind, metric))
        title = f"{best} has the highest {shown(metric)} among {among}"
        label_axes(axes, title, ("period", f"{shown(metric)} in %"), (first, last))
        axes.set_ylim(0, 1.12 * max(0.1, axes.dataLim.y1))
    legend_beside(picture)
    save(picture, path)


def _values(history: Sequence[PeriodReport], kind: str, metric: str) -> list[float]:
    """A metric on each period with test queries, in percent."""
    return [100 * getattr(report, kind)[metric] for report in history if report.rows]


def _mean(history: Sequence[PeriodReport], kind: str, metric: str) -> float:
    """The mean over periods, weighted by their test queries."""
    return sum(report.rows * getattr(report, kind)[metric] for report in history if report.rows) / max(
        sum(report.rows for report in history), 1
    )


def costs(
    histories: Mapping[str, Mapping[int, float]],
    path: Path,
    *,
    deviations: Mapping[str, Mapping[int, float]] | None = None,
) -> None:
    """CPU seconds of retraining on one period, by the number of periods of history.

    Args:
        histories: of each system, by its name, the number of periods and the seconds.
        deviations: their standard deviations over seeds, shown as bars.
    """
    picture = figure(7.5, 4)
    axes = picture.subplots()
    for (name, found), (colour, line) in zip(histories.items(), itertools.cycle(_LINES)):
        axes.plot(list(found), list(found.values()), marker="o", ls=line, color=colour, label=name)
        if bars := (deviations or {}).get(name):
            errors = [bars.get(number, 0.0) for number in found]
            axes.errorbar(list(found), list(found.values()), errors, fmt="none", ecolor=colour, capsize=2)
    last = max(number for found in histories.values() for number in found)
    slowest = max(histories, key=lambda name: max(histories[name].values(), default=0.0))
    title = f"{slowest} takes longest to retrain on one period"
    label_axes(axes, title, ("periods of history", "CPU seconds"), (0, last))
    axes.set_ylim(0, 1.12 * axes.dataLim.y1)
    legend_beside(picture)
    save(picture, path)
