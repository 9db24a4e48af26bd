"""Every type of column is read, cut, saved, loaded, told apart and put into the graph; a new one is one class."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.column_types import TYPES, Numbers, column_type
from graphmeta.data.events import EventLog
from graphmeta.data.graph import build_graph
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.features.content import Content
from graphmeta.published.catalogue import build
from graphmeta.published.load import load

FRAME = pd.DataFrame(
    {
        "sku": ["a", "b", "c"],
        "brand": ["X", None, "Y"],
        "tags": ["p|q", "", "q"],
        "price": ["1.5", None, "20"],
        "image": ["1 2", "3 4", None],
        "title": ["red shoe", None, "007"],
    }
)
READ = {"key": "sku", "several": {"tags": "|"}, "types": {"price": "numeric", "image": "vector", "title": "text"}}


@pytest.fixture
def table() -> EntityTable:
    return EntityTable.read(FRAME, **READ)


def same(one: EntityTable, other: EntityTable) -> None:
    assert one.to_json() == other.to_json() and one.fingerprint() == other.fingerprint()


def test_each_type_is_read(table):
    kinds = {name: one.kind for name, one in table.columns.items()}
    assert kinds == {"brand": "categorical", "tags": "several", "price": "numeric", "image": "vector", "title": "text"}
    np.testing.assert_array_equal(table.columns["price"].values, [1.5, np.nan, 20])
    np.testing.assert_array_equal(table.columns["image"].values, [[1, 2], [3, 4], [0, 0]])
    assert table.columns["title"].values.tolist() == ["red shoe", "", "007"]
    assert list(table.attributes) == ["brand"] and list(table.several) == ["tags"]


def test_rows_are_taken_and_unknown_ones_are_unknown(table):
    taken = replace(table, complete=False).aligned(np.array(["c", "z", "a"], dtype=object))
    np.testing.assert_array_equal(taken.columns["price"].values, [20, np.nan, 1.5])
    np.testing.assert_array_equal(taken.columns["image"].values, [[0, 0], [0, 0], [1, 2]])
    assert taken.columns["title"].values.tolist() == ["007", "", "red shoe"]
    assert taken.attributes["brand"].codes.tolist() == [2, 0, 1]


def test_a_table_equals_its_json(table):
    same(EntityTable.from_json(table.to_json()), table)


def test_columns_without_a_known_value_are_kept():
    nothing = FRAME.assign(brand=None, tags="", price=None, image=None, title=None)
    table = EntityTable.read(nothing, **READ)
    assert table.columns["image"].values.shape == (3, 0)
    same(EntityTable.from_json(table.to_json()), table)
    graph = build_graph(log_of(table))
    assert graph.validate() and graph["item"].x_names == ["price", "price is known"]


@pytest.mark.parametrize(("name", "row", "value"), [("price", 0, "1.6"), ("image", 1, "3 5"), ("title", 2, "7")])
def test_another_value_is_another_table(table, name, row, value):
    frame = FRAME.copy()
    frame.loc[row, name] = value
    assert EntityTable.read(frame, **READ).fingerprint() != table.fingerprint()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("price", "cheap", "column 'price', row 2: 'cheap' is not a finite number"),
        ("price", "inf", "column 'price', row 2: 'inf' is not a finite number"),
        ("image", "1 2 3", "column 'image', row 2: a vector of 3 numbers, not of 2"),
        ("image", "1 x", "column 'image', row 2: '1 x' is not a vector of finite numbers"),
    ],
)
def test_what_cannot_be_read_is_one_line(name, value, says):
    frame = FRAME.copy()
    frame.loc[1, name] = value
    with pytest.raises(InputError, match=says):
        EntityTable.read(frame, **READ)


def test_a_type_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="no column type is called 'image'; there are categorical, numeric"):
        EntityTable.read(FRAME, key="sku", types={"image": "image"})


def log_of(table: EntityTable) -> EventLog:
    frame = pd.DataFrame({"s": [1, 1, 1, 2, 2, 2], "i": ["a", "b", "c", "c", "b", "a"]})
    return EventLog.read(frame, session="s", item="i", items=table)


def test_the_graph_has_nodes_edges_and_features(table):
    graph = build_graph(log_of(table))
    assert graph["item", "has", "brand"].edge_index.tolist() == [[0, 2], [1, 2]]
    assert graph["item", "has", "tags"].edge_index.tolist() == [[0, 0, 2], [1, 2, 2]]
    assert graph["item"].x_names == ["price", "price is known", "image[0]", "image[1]"]
    torch.testing.assert_close(graph["item"].x, torch.tensor([[1.5, 1, 1, 2], [0, 0, 3, 4], [20, 1, 0, 0]]))
    assert graph["item"].text_title == ["red shoe", "", "007"]


def test_a_model_keeps_them(table, tmp_path):
    build("sr_gnn", log_of(table).items, width=4).save(tmp_path)
    same(load(tmp_path).items, log_of(table).items)


def test_a_new_type_is_one_class(monkeypatch):
    monkeypatch.setattr("graphmeta.data.column_types.base.TYPES", TYPES)
    known = dict(TYPES)

    @column_type
    @dataclass(frozen=True, eq=False)
    class Length(TYPES["text"]):
        kind = "length"

        def add_to(self, graph, owner, name):
            graph[owner][name] = torch.tensor([len(value) for value in self.values])

        def features(self):
            return Numbers(np.array([[float(len(value))] for value in self.values]))

    try:
        table = EntityTable.read(FRAME[["sku", "title"]], key="sku", types={"title": "length"})
        graph = build_graph(log_of(table))
        assert graph["item"].title.tolist() == [8, 0, 3]
        assert EntityTable.from_json(table.to_json()).columns["title"].kind == "length"
        assert Content(table, 2).fields["field_title"].known.sum() == 3
    finally:
        TYPES.clear()
        TYPES.update(known)
