"""Figures of a session's neighbourhood in the graph."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphmeta.data.graph import to_networkx

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.axes import Axes
    from torch_geometric.data import HeteroData
from graphmeta.plots.figures import BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, VERMILION, figure, save

Node = tuple[str, int]


def neighbourhood(
    graph: HeteroData, around: Node, path: Path, *, names: Callable[[str, int], str], most: int = 10
) -> None:
    """One session and its neighbours, in columns: user, session, items, attributes.

    Items are ordered by their first click. An arrow between two items shows how often sessions of the graph went
    directly from one to the other.

    Args:
        around: the session, ``("session", number)``.
        names: ``(node type, number) -> text`` of a node's label.
        most: maximum number of items drawn, the first ones.
    """
    near = to_networkx(graph, around=around, hops=2)
    clicked = _clicked(graph, around[1])
    columns = _columns(near, around, clicked[:most])
    places, width, height = _places(columns)
    rest = f" (the first {most} of its {len(clicked)} items)" if len(clicked) > most else ""
    title = f"Session {names(*around)} in the graph{rest}"
    about = "Orange arrows: how often sessions of this graph went directly from one item to the other."
    width = max(width, 0.3 + 0.125 * len(title), 0.3 + 0.075 * len(about))  # inches, at the sizes of the two texts
    picture = figure(width, height + 1.0)
    axes = picture.add_subplot(xlim=(0, width), ylim=(-height, 1.0))
    axes.axis("off")
    colours = _colours(columns)
    for source, target, kind in near.edges(data="kind"):
        if source in places and target in places and kind != "follows":
            end = source if colours[source[0]] != ORANGE else target
            _line(axes, places[source], places[target], colours[end[0]])
    _follows(axes, graph, places)
    for node, place in places.items():
        _box(axes, place, names(*node), colours[node[0]])
    _headings(axes, columns, places, colours)
    axes.text(0.1, 0.75, title, color=INK, fontweight="bold", fontsize=13, va="center", parse_math=False)
    axes.text(0.1, 0.45, about, color=GREY, fontsize=9, va="center")
    save(picture, path)


@dataclass(frozen=True)
class _Place:
    """A box, in inches: its left and right edges and its vertical centre."""

    left: float
    right: float
    y: float


_WIDTH = {"session": 1.5, "item": 2.8, "user": 1.2}
_ROW, _GAP, _HIGH = 0.5, 1.0, 0.36


def _clicked(graph: HeteroData, session: int) -> list[Node]:
    """The session's items, in the order of their first click."""
    edges = graph["session", "contains", "item"].edge_index
    return [("item", n) for n in dict.fromkeys(edges[1][edges[0] == session].tolist())]


def _columns(near: nx.MultiDiGraph, around: Node, items: list[Node]) -> list[list[Node]]:
    """The nodes to draw, from left to right; attributes by type, then in the order of their items."""
    users = [source for source, _, kind in near.in_edges(around, data="kind") if kind == "owns"]
    columns = [_attributes(near, users), users, [around], items, _attributes(near, items)]
    return [column for column in columns if column]


def _attributes(near: nx.MultiDiGraph, owners: list[Node]) -> list[Node]:
    found = [target for owner in owners for _, target, kind in near.out_edges(owner, data="kind") if kind == "has"]
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    return [node for kind in kinds for node in dict.fromkeys(found) if node[0] == kind]


def _places(columns: list[list[Node]]) -> tuple[dict[Node, _Place], float, float]:
    """The box of each node, and the figure's width and height.

    Attributes are stacked closely, with space for a heading above each type; items spread over the available height.
    """
    tall = max(_height(column) for column in columns)
    places, left = {}, 0.1
    for column in columns:
        right = left + _WIDTH.get(column[0][0], 2.0)
        stretch = min(1.7, tall / _height(column)) if column[0][0] == "item" else 1.0
        y = -(tall - stretch * _height(column)) / 2 - stretch * _ROW / 2
        for before, node in zip([column[0], *column], column, strict=False):
            y -= 0.6 * _ROW * (before[0] != node[0])
            places[node] = _Place(left, right, y)
            y -= stretch * _ROW
        left = right + _GAP
    return places, left - _GAP + 0.1, tall + 0.1


def _height(column: list[Node]) -> float:
    return _ROW * (len(column) + 0.6 * (len({kind for kind, _ in column}) - 1))


def _colours(columns: list[list[Node]]) -> dict[str, str]:
    kinds = dict.fromkeys(kind for column in columns for kind, _ in column)
    fixed = {"session": BLUE, "item": ORANGE, "user": GREEN}
    free = itertools.cycle((PINK, SKY, VERMILION, "#6A51A3", GREY))
    return {kind: fixed.get(kind) or next(free) for kind in kinds}


def _box(axes: Axes, place: _Place, text: str, colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    width = place.right - place.left
    lines = _two_lines(text, int(width * 12))
    corner = (place.left + 0.06, place.y - _HIGH / 2 + 0.06)
    style = "round,pad=0.06,rounding_size=0.08"
    box = FancyBboxPatch(corner, width - 0.12, _HIGH - 0.12, boxstyle=style, fc="white", ec=colour, lw=1.4, zorder=3)
    axes.add_patch(box)
    middle = (place.left + place.right) / 2
    axes.text(
        middle, place.y, "\n".join(lines), ha="center", va="center", fontsize=8, color=INK, zorder=4, parse_math=False
    )


def _two_lines(text: str, width: int) -> list[str]:
    """At most two lines; longer texts are shortened to their beginning and the last word, the id.

    >>> _two_lines("one two three four five [6]", 9)
    ['one two …', '[6]']
    """
    lines = textwrap.wrap(text, width)
    if len(lines) <= 2:
        return lines
    *start, last = text.split()
    return [*textwrap.wrap(" ".join(start), width, max_lines=1, placeholder=" …"), last[:width]]


def _line(axes: Axes, source: _Place, target: _Place, colour: str) -> None:
    """A line between two columns, in either direction."""
    first, second = sorted((source, target), key=lambda place: place.left)
    axes.plot([first.right, second.left], [first.y, second.y], color=colour, alpha=0.55, lw=1.1, zorder=1)


def _follows(axes: Axes, graph: HeteroData, places: dict[Node, _Place]) -> None:
    """Arrows between items: straight and labelled to the next item below, else an arc on the left."""
    from matplotlib.patches import FancyArrowPatch

    store, order = graph["item", "follows", "item"], [number for kind, number in places if kind == "item"]
    pairs = zip(*store.edge_index.tolist(), store.weight.tolist(), strict=True)
    for source, target, weight in pairs:
        if source == target or ("item", source) not in places or ("item", target) not in places:
            continue
        here, there = places["item", source], places["item", target]
        below = order.index(target) == order.index(source) + 1
        x = here.left + 0.35 if below else here.left
        down = _HIGH / 2 if below else 0.0
        far = here.y - there.y
        style = "arc3,rad=0" if below else f"arc3,rad={math.copysign(min(0.45, 1.4 / abs(far)), far)}"
        arrow = FancyArrowPatch(
            (x, here.y - down),
            (x, there.y + down),
            arrowstyle="-|>",
            mutation_scale=9,
            connectionstyle=style,
            color=ORANGE,
            alpha=1.0 if below else 0.45,
            lw=min(0.8 + 0.35 * weight**0.5, 3.0),
            shrinkA=0,
            shrinkB=0,
            zorder=2,
        )
        axes.add_patch(arrow)
        if below:
            axes.text(x + 0.1, (here.y + there.y) / 2, f"{weight:.0f}×", fontsize=7, color=INK, va="center")


def _headings(axes: Axes, columns: list[list[Node]], places: dict[Node, _Place], colours: dict[str, str]) -> None:
    """The node type above its first node."""
    for column in columns:
        for kind in dict.fromkeys(kind for kind, _ in column):
            first = next(places[node] for node in column if node[0] == kind)
            label = {"item": "items, in order of click"}.get(kind, kind)
            y = first.y + _HIGH / 2 + 0.13
            axes.text(first.left + 0.05, y, label, color=colours[kind], fontsize=9, fontweight="bold", va="center")
