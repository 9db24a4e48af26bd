"""What other packages compute of the same lists, logs and graphs. `make judges` has all of them; elsewhere the tests of
packages that are not installed are skipped."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch_geometric.nn import HGTConv, SAGEConv, to_hetero

import graphmeta as gm
from benchmarks import judges
from graphmeta.baselines import SessionKNN
from graphmeta.data.relbench import TASK, from_relbench, relbench_task
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.testing import fake_log
from tests.relbench_database import write_shop

pytestmark = [pytest.mark.judges, pytest.mark.filterwarnings("default")]  # their warnings are theirs
EXACT = 1e-12


def needs(package: str) -> None:
    """Skip the test if a package is not installed."""
    pytest.importorskip(package, reason=f"{package} is not installed here; `make judges` has it")


@pytest.mark.parametrize("package", judges.JUDGES)
def test_metrics_are_those_of_the_package(package):
    needs(package)
    found = list(judges.metrics_of(package, users=40, items=30))
    assert len(found) >= (7 if package == "relbench" else 30)
    assert {one.what: one.difference for one in found if not one.difference <= EXACT} == {}


@pytest.mark.parametrize("package", judges.JUDGES)
def test_a_metric_that_is_wrong_is_noticed(package, monkeypatch):
    needs(package)
    right = judges.average_precision
    monkeypatch.setattr(judges, "average_precision", lambda rank, task, k: right(rank, task, k + 1))
    worst = max(one.difference for one in judges.metrics_of(package, users=20, items=30) if "map" in one.what)
    assert worst > 1e-3


def test_every_order_of_ties_is_listed_once():
    orders = judges.every_order(np.array([1.0, 2.0, 1.0, 2.0, 0.0]))
    assert len(orders) == len({tuple(order) for order in orders}) == 4 and all(order[4] == 4 for order in orders)
    assert all(set(order[:2]) == {1, 3} for order in orders)


def test_item_knn_has_the_cosines_of_implicit():
    needs("implicit")
    assert judges.item_knn(fake_log(sessions=200, items=30)).difference <= EXACT


def test_an_exported_log_is_a_database_of_relbench_whose_loader_hides_the_test(tmp_path):
    needs("relbench")
    found = list(judges.relbench_export(judges.complete_journey(), tmp_path / "rel-journey"))
    assert len(found) == 5 and {one.what: one.difference for one in found if not one.difference <= EXACT} == {}


def test_a_database_of_another_maker_is_read_as_relbench_reads_it(tmp_path):
    needs("relbench")
    from relbench import load_dataset

    write_shop(tmp_path)
    data = load_dataset(str(tmp_path))
    for until, whole in (("test", False), (None, True)):
        rows = data.get_db(upto_test_timestamp=not whole).table_dict["transactions"].df
        own = from_relbench(tmp_path, until=until).to_frame()
        theirs = sorted(zip(rows["customer_id"], rows["article_id"], rows["t_dat"].astype("int64"), strict=True))
        assert len(own) == len(theirs)
        assert sorted(zip(own["user"], own["item"], strict=True)) == sorted((int(u), int(i)) for u, i, _ in theirs)
    task, own = data.load_task(TASK), relbench_task(tmp_path)
    for part, log in (("val", own.valid), ("test", own.test)):
        made = task.get_table(part, mask_input_cols=False).df
        theirs = {int(u): sorted(i) for u, i in zip(made["customer_id"], made["article_id"], strict=True)}
        assert {int(u): sorted(p["item"]) for u, p in log.to_frame().groupby("user")} == theirs


def test_the_graph_is_valid_for_pyg_and_its_layers():
    graph = gm.build_graph(fake_log(sessions=60), reverse=True)
    assert graph.validate(raise_on_error=True)
    torch.manual_seed(0)
    x = {kind: torch.randn(graph[kind].num_nodes, 8) for kind in graph.node_types}
    edges = graph.edge_index_dict
    out = HGTConv(8, 8, graph.metadata(), heads=2)(x, edges)
    assert {kind: tuple(rows.shape) for kind, rows in out.items()} == {k: tuple(rows.shape) for k, rows in x.items()}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = SAGEConv((-1, -1), 8), SAGEConv((-1, -1), 4)

        def forward(self, x, edge_index):
            return self.second(self.first(x, edge_index).relu(), edge_index)

    net = to_hetero(Net(), graph.metadata())
    loss = sum(rows.square().mean() for rows in net(x, edges).values())
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())


def test_session_knn_is_v_sknn_of_session_rec_on_a_worked_example():
    """Sessions 1 {a, b}, 2 {b, c}, 3 {c, d}, 4 {e}; the present one has the clicks a, c, b, so L = 3.

    V-SKNN of Ludewig & Jannach 2018 in session-rec: the click at place p weighs p / L (``weighting='div'``), the
    similarity of a session is the sum of the weights of shared items, divided by the number of distinct items of the
    present session, here 3:

        session 1: a, b: (1/3 + 3/3) / 3 = 4/9;   session 2: b, c: (2/3 + 3/3) / 3 = 5/9;   session 3: c: 2/3 / 3 = 2/9.

    A session's vote is its similarity over the step of its latest shared click (``weighting_score='div'``): b is the
    last click, step 1; c is the one before, step 2:

        session 1: 4/9;   session 2: 5/9;   session 3: (2/9) / 2 = 1/9.

    An item's score is the sum of the votes of the sessions that have it:

        a: 4/9,   b: 4/9 + 5/9 = 1,   c: 5/9 + 1/9 = 6/9,   d: 1/9,   e: 0.

    With k = 2 neighbours session 3 has no vote: c: 5/9, d: 0.
    """
    rows = [(1, "a"), (1, "b"), (2, "b"), (2, "c"), (3, "c"), (3, "d"), (4, "e")]
    log = gm.EventLog.read(pd.DataFrame(rows, columns=["s", "i"]), session="s", item="i")
    number = {item: n for n, item in enumerate(log.items.ids)}
    clicks = np.array([number[item] for item in "acb"])
    query = sessions_without_target([clicks])
    expected = {"a": 4 / 9, "b": 1.0, "c": 6 / 9, "d": 1 / 9, "e": 0.0}
    for neighbours, scores in ((100, expected), (2, expected | {"c": 5 / 9, "d": 0.0})):
        found = SessionKNN(log, neighbours=neighbours, idf=False).scores(query)[0]
        # ours leaves out the division by the distinct items, which is the same for all candidates
        assert [float(found[number[i]]) / 3 for i in scores] == pytest.approx(list(scores.values()), abs=1e-7)
    weighted = SessionKNN(log, idf=True).scores(query)[0]
    rare = {"a": math.log(4 / 1), "b": math.log(4 / 2), "c": math.log(4 / 2), "d": math.log(4 / 1)}  # idf_weighting
    for item, idf in rare.items():
        assert float(weighted[number[item]]) / 3 == pytest.approx(expected[item] * (1 + idf), rel=1e-6)


def test_the_file_of_the_figures_is_of_this_command():
    stored = json.loads(judges.FILE.read_text())
    assert stored["command"] == "python -m benchmarks.judges"
    assert {row["package"] for row in stored["rows"]} == {*judges.JUDGES, "implicit"}
    assert all(0 <= row["difference"] <= EXACT for row in stored["rows"])
