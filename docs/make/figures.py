"""Draw the pictures of the README and of the concepts: ``python docs/make/figures.py [NAME …]``.

Diagrams are made of boxes and arrows; the session graph is a real session of the bundled log. Colours are those of
``graphmeta.plots`` (Okabe and Ito, safe for colour-blind readers).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]
PICTURES = ROOT / "docs" / "pictures"

from graphmeta.plots.figures import BLUE, GREEN, GREY, INK, ORANGE, PINK, figure, save  # noqa: E402


def main() -> None:
    """Draw all."""
    wanted = sys.argv[1:]
    for draw in (overview, tasks, adaptation, periods, session_graph, household):
        if wanted and draw.__name__ not in wanted:
            continue
        draw(PICTURES)
        print(draw.__name__)


def canvas(width: float, height: float) -> tuple:
    """A figure whose axes are in inches, without frame."""
    picture = figure(width, height)
    axes = picture.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    picture.set_layout_engine("none")
    return picture, axes


def box(axes: Axes, at: tuple[float, float], size: tuple[float, float], text: str, colour: str, **style) -> None:
    """A rounded box around a text; ``at`` is its centre."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = at, size
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.08",
            fc=style.get("fill", "white"), ec=colour, lw=1.6, zorder=2,
        )
    )  # fmt: skip
    axes.text(
        x, y, text, ha="center", va="center", fontsize=style.get("font", 9), color=INK, zorder=3, linespacing=1.35
    )


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    colour: str = GREY,
    gap: float = 0.0,
    head: float = 12,
) -> None:
    """An arrow between two points."""
    from matplotlib.patches import FancyArrowPatch

    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=head, lw=1.5, color=colour, shrinkA=gap,
                        shrinkB=gap, zorder=1)
    )  # fmt: skip


def title(axes: Axes, at: tuple[float, float], text: str, colour: str = INK, size: float = 10) -> None:
    """A heading, centred."""
    axes.text(*at, text, ha="center", va="center", fontsize=size, fontweight="bold", color=colour)


def note(axes: Axes, at: tuple[float, float], text: str) -> None:
    """A line of small print, centred."""
    axes.text(*at, text, ha="center", va="center", fontsize=8, color="#5A6068", linespacing=1.35)


def dots(axes: Axes, places: list[tuple[float, float]], colours: list[str], edges: list[tuple[int, int]]) -> None:
    """A small graph."""
    for source, target in edges:
        arrow(axes, places[source], places[target], gap=10, head=8)
    for (x, y), colour in zip(places, colours, strict=True):
        axes.plot(x, y, "o", ms=11, mfc=colour, mec="white", mew=1.5, zorder=3)


def overview(folder: Path) -> None:
    """Log, graph, tasks, adaptation, recommendations, from left to right."""
    picture, axes = canvas(11, 3.1)
    centres = (1.15, 3.3, 5.5, 7.7, 9.85)
    names = ("event log", "graph", "tasks", "adapt", "recommend")
    notes = (
        "one row per event,\nchecked when read",
        "PyG HeteroData over\nthe same memory",
        "support: what is known\nquery: what comes next",
        "scope × start × step,\nall tasks at once",
        "your ids, filters,\nexplanations, HTTP",
    )
    for x, name, text in zip(centres, names, notes, strict=True):
        title(axes, (x, 2.8), name, size=11.5)
        note(axes, (x, 0.42), text)
    for left, right in zip(centres[:-1], centres[1:], strict=True):
        arrow(axes, (left + 0.92, 1.65), (right - 0.92, 1.65), colour=INK)
    for row, (cells, colour) in enumerate(
        (("visit   item   time", INK), ("v1   tea   9:00", BLUE), ("v1   milk  9:01", BLUE), ("v2   tea   9:07", GREEN))
    ):
        box(
            axes,
            (centres[0], 2.34 - 0.44 * row),
            (1.6, 0.36),
            cells,
            colour,
            font=8,
            fill="#F4F5F7" if not row else "white",
        )
    x = centres[1]
    places = [(x - 0.7, 1.65), (x, 2.25), (x, 1.65), (x, 1.05), (x + 0.7, 1.95), (x + 0.7, 1.3)]
    dots(
        axes,
        places,
        [BLUE, ORANGE, ORANGE, ORANGE, PINK, GREEN],
        [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (1, 2), (2, 3)],
    )
    for y in (2.03, 1.27):
        for at in range(4):
            query = at == 3
            box(axes, (centres[2] - 0.66 + 0.44 * at, y), (0.36, 0.4), "?" if query else "", ORANGE if query else BLUE,
                fill="white" if query else "#CFE3F1")  # fmt: skip
    box(axes, (centres[3], 2.2), (1.3, 0.42), "shared weights", GREY, font=8.5)
    for at, colour in ((-0.45, BLUE), (0.45, GREEN)):
        arrow(axes, (centres[3] + at * 0.5, 1.98), (centres[3] + at, 1.42), colour=colour)
        box(axes, (centres[3] + at, 1.2), (0.78, 0.42), "weights\nof a task", colour, font=7)
    for row, (text, width) in enumerate((("1  bread", 1.5), ("2  honey", 1.1), ("3  lemon", 0.8))):
        y = 2.15 - 0.5 * row
        box(axes, (centres[4] - 0.75 + width / 2, y), (width, 0.36), text, GREEN, font=8, fill="#D5EEE5")
    save(picture, folder / "overview.png")


def tasks(folder: Path) -> None:
    """A session as a task, and a user as a task."""
    picture, axes = canvas(8.5, 3.4)
    axes.set_ylim(0.45, 3.4)
    picture.set_size_inches(8.5, 2.95)
    axes.text(0.2, 3.15, "A session as the task", fontsize=11, fontweight="bold", color=INK, va="center")
    for at, text in enumerate(("tea", "milk", "honey", "?")):
        query = at == 3
        box(
            axes,
            (0.95 + 1.3 * at, 2.55),
            (0.95, 0.46),
            text,
            ORANGE if query else BLUE,
            fill="white" if query else "#DCEAF5",
        )
        if at:
            arrow(axes, (0.95 + 1.3 * (at - 1) + 0.48, 2.55), (0.95 + 1.3 * at - 0.48, 2.55))
    axes.text(6.0, 2.68, "support: each click from those before it", fontsize=8.5, color=BLUE, va="center")
    axes.text(6.0, 2.42, "query: the next click", fontsize=8.5, color="#A66A00", va="center")
    axes.text(0.2, 1.75, "A user as the task", fontsize=11, fontweight="bold", color=INK, va="center")
    for at, (text, days) in enumerate(
        (("tea, milk", "9 days ago"), ("bread, tea", "4 days ago"), ("milk, eggs", "yesterday"))
    ):
        box(axes, (0.95 + 1.45 * at, 1.1), (1.25, 0.46), text, BLUE, fill="#DCEAF5")
        note(axes, (0.95 + 1.45 * at, 0.68), days)
    box(axes, (5.15, 1.1), (0.95, 0.46), "tea, ?", ORANGE)
    note(axes, (5.15, 0.68), "now")
    arrow(axes, (4.48, 1.1), (4.67, 1.1))
    axes.text(6.0, 1.23, "support: the earlier sessions, by age", fontsize=8.5, color=BLUE, va="center")
    axes.text(6.0, 0.97, "query: the present session", fontsize=8.5, color="#A66A00", va="center")
    save(picture, folder / "tasks.png")


def adaptation(folder: Path) -> None:
    """Scope, start and step of an adaptation, and what comes out."""
    picture, axes = canvas(9.2, 3.0)
    axes.set_ylim(0.3, 3.0)
    picture.set_size_inches(9.2, 2.7)
    columns = (
        ("scope", "which weights change", ("item bias", "head", "encoder + head", "all"), BLUE),
        ("start", "from which values", ("shared weights", "gate, cluster", "memory", "set encoder"), ORANGE),
        ("step", "by which update", ("fixed rate", "learned rates", "your own", "none"), GREEN),
    )
    for at, (name, question, values, colour) in enumerate(columns):
        x = 1.35 + 2.35 * at
        title(axes, (x, 2.75), name, colour, size=12)
        note(axes, (x, 2.48), question)
        for row, value in enumerate(values):
            box(axes, (x, 2.08 - 0.48 * row), (1.75, 0.38), value, colour, font=8.5)
        if at < 2:
            title(axes, (x + 1.175, 1.36), "×", size=15)
    arrow(axes, (7.0, 1.36), (7.4, 1.36), colour=INK)
    box(axes, (8.25, 1.36), (1.55, 0.9), "weights of\nthe task", INK, fill="#F4F5F7")
    save(picture, folder / "adaptation.png")


def periods(folder: Path) -> None:
    """Test on a period, retrain on it, test on the next."""
    picture, axes = canvas(8.5, 2.6)
    for at in range(4):
        x = 1.2 + 2.0 * at
        box(axes, (x, 1.9), (1.7, 0.5), f"period {at + 1}", INK, fill="white" if at else "#DCEAF5")
    for at in range(3):
        x = 1.2 + 2.0 * at
        box(axes, (x + 1.0, 0.75), (1.05, 0.5), f"weights {at + 1}", ORANGE)
        arrow(axes, (x, 1.65), (x + 0.7, 1.02), colour=BLUE)
        arrow(axes, (x + 1.3, 1.02), (x + 1.9, 1.65), colour=GREEN)
        if at:
            arrow(axes, (x - 0.47, 0.75), (x + 0.47, 0.75), colour=ORANGE)
    axes.text(0.35, 2.42, "blue: retrain on the period", fontsize=8.5, color=BLUE, va="center")
    axes.text(3.0, 2.42, "green: test on the next period first", fontsize=8.5, color="#00795A", va="center")
    axes.text(6.2, 2.42, "orange: weights pass on", fontsize=8.5, color="#A66A00", va="center")
    note(axes, (4.25, 0.2), "Period 1 is for pretraining; each later period is tested on before it is trained on.")
    save(picture, folder / "periods.png")


def household(folder: Path) -> None:
    """A household's items in the graph, before and after one step on its earlier baskets."""
    import numpy as np
    import torch

    import graphmeta as gm

    log = gm.datasets.complete_journey()
    log = log.before(log.starts[4000])
    split = gm.split_by_time(log)
    torch.manual_seed(0)
    base = gm.build("niser", split.train.items, width=32)
    list(gm.train(base, split, epochs=2, optimizer=gm.Adam(lr=5e-3), batch_size=256, seed=0))
    system = gm.build(
        "maml", split.train.items, base="niser", width=32, anchor="user", scope="item_bias", bias_rate=200.0
    )
    system.load_matching(base)
    train = split.train
    user = int(np.bincount(train.session_user[train.session_user >= 0]).argmax())
    known = [train.item[train.session == session] for session in np.flatnonzero(train.session_user == user)[-4:]]
    basket, history = list(train.items.ids[known[-1][:1]]), [list(train.items.ids[items]) for items in known[:-1]]
    ranks = {}
    for steps in (0, 1):
        offers = system.recommend(basket, k=system.num_items, history=history, steps=steps)
        ranks[steps] = {offer.item: rank for rank, offer in enumerate(offers, 1)}
    draw_household(train.items, known[:-1], ranks, folder / "household.png")


def draw_household(items, known: list, ranks: dict, path: Path) -> None:  # noqa: ANN001
    """Two panels of the same graph; the size of an item is its rank among all items, larger for a better one."""
    import numpy as np

    own = list(dict.fromkeys(int(row) for session in known for row in session))[:9]
    picture, axes = canvas(12.5, 4.6)
    best = [sum(ranks[steps][items.ids[row]] for row in own) / len(own) for steps in (0, 1)]
    axes.text(0.2, 4.35, f"One step on its earlier baskets moves a household's items from rank {best[0]:,.0f} to "
              f"{best[1]:,.3g} on average", fontsize=12, fontweight="bold", color=INK, va="center")  # fmt: skip
    for steps, left, name in ((0, 0.2, "before adapting"), (1, 6.5, "after one step")):
        title(axes, (left + 0.75, 3.95), name, ORANGE if steps else GREY)
        user = (left + 0.5, 1.95)
        rows = np.linspace(3.3, 0.6, len(known))
        heights = np.linspace(3.55, 0.35, len(own))
        for session, y in zip(known, rows, strict=True):
            arrow(axes, user, (left + 1.9, y), gap=8)
            for row in session:
                if int(row) in own:
                    arrow(axes, (left + 1.9, y), (left + 3.3, heights[own.index(int(row))]), gap=6)
            axes.plot(left + 1.9, y, "o", ms=11, mfc=BLUE, mec="white", zorder=3)
        axes.plot(*user, "o", ms=15, mfc=GREEN, mec="white", zorder=3)
        for row, y in zip(own, heights, strict=True):
            rank = ranks[steps][items.ids[row]]
            axes.plot(left + 3.3, y, "o", ms=18 / (1 + np.log10(rank)) + 2, mfc=ORANGE, mec="white", zorder=3)
            label = items.describe(row).split(" [")[0]
            label = label if len(label) <= 24 else label[:23] + "…"
            axes.text(left + 3.55, y, f"{label}   rank {rank:,}", fontsize=8, va="center", color=INK)
        note(axes, (left + 1.9, 0.15), "household, earlier baskets, their items")
    save(picture, path)


def session_graph(folder: Path) -> None:
    """A real session with its household, items and attributes."""
    import numpy as np

    import graphmeta as gm
    from graphmeta.data.graph_files import node_names
    from graphmeta.plots.session_graph import neighbourhood

    log = gm.datasets.complete_journey()
    number = int(np.flatnonzero((log.lengths == 4) & (log.session_user >= 0))[40])
    names = node_names(log)
    label = lambda kind, at: str(names[kind][at])  # noqa: E731
    neighbourhood(gm.build_graph(log), ("session", number), folder / "session-graph.png", names=label)


if __name__ == "__main__":
    main()
