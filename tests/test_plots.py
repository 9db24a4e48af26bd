"""Pictures are written whole, show what they are told, and say what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.graph import build_graph
from graphmeta.data.graph_files import node_names
from graphmeta.errors import InputError
from graphmeta.evaluation.adaptation_curves import Curve
from graphmeta.evaluation.ranking import Result
from graphmeta.plots import figures as plots
from graphmeta.plots import session_graph
from graphmeta.plots.session_graph import neighbourhood
from graphmeta.testing import fake_log
from graphmeta.training.run import Report

PNG = b"\x89PNG"


def reports(values: list[float]) -> list[Report]:
    """A training with these values of MRR@20 on the validation sessions."""
    best = [value > max(values[:at], default=0) for at, value in enumerate(values)]
    return [Report(at, 7.0 - at, 1.0, {"mrr@20": value}, best[at]) for at, value in enumerate(values)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures that are saved."""
    figures, save = [], plots.save
    for module in (plots, session_graph):
        monkeypatch.setattr(module, "save", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


def test_curves_draw_each_training_and_each_baseline(tmp_path: Path, drawn: list):
    histories = {"cbml": reports([0.1, 0.3, 0.2]), "if_san": reports([0.2])}
    plots.curves(histories, tmp_path / "new" / "curves.png", baselines={"popularity": {"mrr@20": 0.05}})
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(PNG)
    left, right = drawn[0].axes
    assert len(left.lines) == 2
    names = ["cbml (30.00, epoch 2)", "if_san (20.00, epoch 1)", "popularity (5.00)"]  # the epochs that were kept
    assert right.get_legend_handles_labels()[1] == names == legend_of(drawn[0])


@pytest.mark.parametrize(("metric", "first"), [("mrr@20", "high"), ("mae", "low")])
def test_curves_name_the_best_model_and_errors_are_better_if_lower(tmp_path: Path, drawn: list, metric, first):
    histories = {
        name: [Report(0, 7.0, 1.0, {metric: value}, True, metric)] for name, value in (("high", 0.8), ("low", 0.2))
    }
    plots.curves(histories, tmp_path / "curves.png", metric=metric)
    assert drawn[0].axes[1].get_title(loc="left").endswith(f": {first} is first")


def legend_of(picture) -> list[str]:
    """The names of the legend, which no axes overlap and which is in the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture.draw(FigureCanvasAgg(picture).get_renderer())
    (legend,) = picture.legends
    box = legend.get_window_extent()
    assert all(not box.overlaps(axes.get_window_extent()) for axes in picture.axes)
    assert picture.bbox.x1 >= box.x1 and box.y0 >= picture.bbox.y0
    return [text.get_text() for text in legend.get_texts()]


def test_labels_beside_do_not_overlap_and_keep_their_order() -> None:
    picture = plots.figure(6, 4)
    axes = picture.subplots()
    points = [(1.0, 0.5), (2.0, 0.5), (3.0, 0.505), (4.0, 0.9), (0.5, 0.1)]
    axes.plot(*zip(*points, strict=True), "o")
    axes.set_ylim(0, 1)
    plots.labels_beside(axes, points, [f"system {at}" for at in range(5)])
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    picture.draw(FigureCanvasAgg(picture).get_renderer())
    boxes = sorted((Text.get_window_extent(text) for text in axes.texts), key=lambda box: box.y0)
    assert all(one.y1 <= other.y0 for one, other in zip(boxes, boxes[1:], strict=False))
    assert min(box.x0 for box in boxes) >= axes.get_window_extent().x1
    assert [text.xyann[1] for text in axes.texts] == sorted(text.xyann[1] for text in axes.texts[:4]) + [0.1]


def test_curves_of_a_training_without_validation(tmp_path: Path, drawn: list):
    plots.curves({"sr_gnn": [Report(0, 7.0, 1.0, {}, True)]}, tmp_path / "curves.png")
    assert drawn[0].axes[1].texts[0].get_text() == "no validation sessions"


def curve(values: dict[int, float], own: int) -> Curve:
    """A curve of these values of MRR@20."""
    return Curve({at: Result({"mrr@20": v}, {}, 9, 40, 0.0, torch.ones(9)) for at, v in values.items()}, own)


def test_adaptation_curves_by_steps_and_by_support(tmp_path: Path, drawn: list):
    steps = {"maml": curve({2: 0.3, 0: 0.1, 1: 0.2}, 1), "anil": curve({0: 0.15, 1: 0.25}, 5)}
    support = {"maml": curve({0: 0.1, 10: 0.2}, 10)}
    plots.adaptation_curves(steps, support, tmp_path / "adapting.png", baselines={"none": {"mrr@20": 0.05}})
    assert (tmp_path / "adapting.png").read_bytes().startswith(PNG)
    left, right = drawn[0].axes
    maml, ring, anil, none = left.lines  # 5 steps of anil were not measured: no ring
    assert maml.get_xydata() == pytest.approx(np.array([[0, 10], [1, 20], [2, 30]]))
    assert ring.get_xydata().tolist() == [[1, 20]] and anil.get_label() == "anil"
    assert set(none.get_ydata()) == {5.0}
    assert left.get_legend_handles_labels()[1] == ["maml", "anil", "none"]
    assert [axes.get_xlabel() for axes in (left, right)] == ["inner steps", "support samples"]
    assert right.lines[1].get_xydata().tolist() == [[10, 20]]


def test_a_neighbourhood_shows_the_session_its_user_items_and_attributes(tmp_path: Path, drawn: list):
    log = fake_log(sessions=20)
    graph = build_graph(log)
    names = node_names(log)
    neighbourhood(graph, ("session", 3), tmp_path / "session.png", names=lambda kind, row: str(names[kind][row]))
    assert (tmp_path / "session.png").read_bytes().startswith(PNG)
    told = {text.get_text() for text in drawn[0].axes[0].texts}
    items = log.item[log.session == 3]
    kinds = {log.items.attributes["category"].values[log.items.attributes["category"].codes[item]] for item in items}
    assert {"session", "user", "category", "brand", "3", "u3", *names["item"][items], *kinds} <= told


@pytest.mark.parametrize("attributes", [True, False])
def test_no_text_of_a_neighbourhood_is_cut_off(attributes: bool, tmp_path: Path, drawn: list):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    log = fake_log(sessions=20)
    if not attributes:
        frame = log.to_frame()[["session", "item", "time"]]
        log = EventLog.read(frame, session="session", item="item", time="time")
    names = node_names(log)
    graph = build_graph(log)
    neighbourhood(graph, ("session", 3), tmp_path / "one.png", names=lambda kind, row: str(names[kind][row]))
    long = "a session with quite a long name, as shops have them"
    neighbourhood(graph, ("session", 3), tmp_path / "two.png", names=lambda kind, row: long)
    for picture in drawn:
        FigureCanvasAgg(picture).draw()
        boxes = [text.get_window_extent() for text in picture.axes[0].texts]
        assert all(box.x0 >= 0 and box.x1 <= picture.bbox.x1 for box in boxes)


def test_a_long_session_is_shown_in_part(tmp_path: Path, drawn: list):
    graph = build_graph(fake_log(sessions=3, length=15))
    path = tmp_path / "session.png"
    neighbourhood(graph, ("session", 0), path, names=lambda kind, row: f"{kind} {row}", most=4)
    told = [text.get_text() for text in drawn[0].axes[0].texts]
    assert sum(text.startswith("item ") for text in told) == 4
    assert "Session session 0 in the graph (the first 4 of its 15 items)" in told


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'graphmeta\[plots\]'"):
        plots.figure(1, 1)
