"""The graph of a small log, edge by edge."""

import networkx as nx
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmeta.data.events import EventLog
from graphmeta.data.graph import build_graph, to_networkx
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError

EVENTS = pd.DataFrame(
    {
        "s": ["x", "x", "x", "x", "y", "y", "y", "z"],
        "i": ["a", "b", "a", "b", "b", "b", "c", "a"],
        "t": [1.0, 2.0, 3.0, 4.0, 10.0, 11.0, 12.0, 20.0],
        "u": ["ann", "ann", "ann", "ann", "bob", "bob", "bob", "ann"],
    }
)
ITEMS = pd.DataFrame(
    {"i": ["a", "b", "c"], "brand": ["X", None, "X"], "item": ["p", "q", "r"], "city": ["k", "k", "l"]}
)
USERS = pd.DataFrame({"u": ["bob", "ann"], "city": ["Rome", None], "user": ["m", "m"], "age__band": ["1", "2"]})


def log() -> EventLog:
    return EventLog.read(
        EVENTS, session="s", item="i", time="t", user="u",
        items=EntityTable.read(ITEMS, key="i"), users=EntityTable.read(USERS, key="u"),
    )  # fmt: skip


def edges(graph, *kind: str) -> list[tuple[int, int]]:
    return [tuple(pair) for pair in graph[kind].edge_index.t().tolist()]


def test_every_edge_of_a_small_log() -> None:
    """Items a b c are 0 1 2, sessions x y z are 0 1 2, ann is 0 and bob is 1."""
    graph = build_graph(log())
    assert graph.validate()
    assert {kind: graph[kind].num_nodes for kind in graph.node_types} == {
        "session": 3, "item": 3, "user": 2,
        "brand": 2, "item_item": 4, "city": 3, "user_city": 2, "user_user": 2, "age_band": 3,
    }  # fmt: skip
    assert edges(graph, "session", "contains", "item") == [
        (0, 0), (0, 1), (0, 0), (0, 1), (1, 1), (1, 1), (1, 2), (2, 0)
    ]  # fmt: skip
    contains = graph["session", "contains", "item"]
    assert contains.position.tolist() == [0, 1, 2, 3, 0, 1, 2, 0]
    assert contains.time.tolist() == EVENTS["t"].tolist() and contains.time.dtype == torch.float64
    follows = dict(
        zip(edges(graph, "item", "follows", "item"), graph["item", "follows", "item"].weight.tolist(), strict=True)
    )
    assert follows == {(0, 1): 2, (1, 0): 1, (1, 1): 1, (1, 2): 1}
    assert edges(graph, "user", "owns", "session") == [(0, 0), (1, 1), (0, 2)]


def test_every_attribute_column_is_a_node_type_of_its_own() -> None:
    """Codes begin with 0, unknown, which has no edge; names that are taken get their owner's in front."""
    graph = build_graph(log())
    assert edges(graph, "item", "has", "brand") == [(0, 1), (2, 1)]
    assert edges(graph, "item", "has", "item_item") == [(0, 1), (1, 2), (2, 3)]
    assert edges(graph, "item", "has", "city") == [(0, 1), (1, 1), (2, 2)]
    assert edges(graph, "user", "has", "user_city") == [(1, 1)]
    assert edges(graph, "user", "has", "user_user") == [(0, 1), (1, 1)]
    assert edges(graph, "user", "has", "age_band") == [(0, 2), (1, 1)]


def test_names_never_meet() -> None:
    """Not even where the longer name is a column too."""
    table = pd.DataFrame({"i": ["a", "b", "c"], "item_item": "1", "item": "2", "user_x": "3", "x": "4", "session": "5"})
    people = pd.DataFrame({"u": ["ann", "bob"], "x": "6", "user_x": "7", "item": "8", "a  b.c": "9"})
    tables = {"items": EntityTable.read(table, key="i"), "users": EntityTable.read(people, key="u")}
    graph = build_graph(EventLog.read(EVENTS, session="s", item="i", time="t", user="u", **tables), reverse=True)
    assert graph.validate()
    assert len(graph.node_types) == 3 + 5 + 4
    assert all(graph[target].num_nodes == 2 for _, kind, target in graph.edge_types if kind == "has")


def test_a_log_without_users_has_no_user_nodes() -> None:
    graph = build_graph(EventLog.read(EVENTS, session="s", item="i"))
    assert graph.node_types == ["session", "item"]
    assert graph.validate()


@pytest.mark.parametrize("events", [EVENTS[:1], EVENTS[4:6]])
def test_the_smallest_logs_have_a_graph(events: pd.DataFrame) -> None:
    graph = build_graph(EventLog.read(events, session="s", item="i", time="t"), reverse=True)
    assert graph.validate()
    assert graph["item", "follows", "item"].num_edges == len(events) - 1


def test_reverse_adds_a_twin_of_every_edge() -> None:
    graph = build_graph(log(), reverse=True)
    assert graph.validate()
    forward = [kind for kind in graph.edge_types if not kind[1].startswith("rev_")]
    assert forward == build_graph(log()).edge_types and len(graph.edge_types) == 2 * len(forward)
    for source, kind, target in forward:
        there, back = graph[source, kind, target], graph[target, f"rev_{kind}", source]
        assert torch.equal(there.edge_index, back.edge_index.flip(0))
        for name in ("position", "time", "weight"):
            assert (name in there) == (name in back)
            assert name not in there or torch.equal(there[name], back[name])


def test_networkx_has_every_node_and_edge() -> None:
    graph = build_graph(log())
    picture = to_networkx(graph)
    assert picture.number_of_nodes() == graph.num_nodes and picture.number_of_edges() == graph.num_edges
    for kind in graph.edge_types:
        drawn = [(s[1], t[1]) for s, t, k in picture.edges(data="kind") if (s[0], k, t[0]) == kind]
        assert sorted(drawn) == sorted(edges(graph, *kind))
    assert picture.number_of_edges(("session", 0), ("item", 0)) == 2
    assert picture.nodes["brand", 1] == {"kind": "brand"}


@settings(max_examples=40)
@given(
    st.sampled_from([("session", 0), ("session", 2), ("item", 1), ("brand", 1), ("brand", 0), ("user", 1)]),
    st.integers(0, 4),
    st.booleans(),
)
def test_a_neighbourhood_is_the_ego_graph(around: tuple[str, int], hops: int, reverse: bool) -> None:
    graph = build_graph(log(), reverse=reverse)
    whole = to_networkx(graph)
    expected = whole.subgraph(nx.ego_graph(whole, around, radius=hops, undirected=True))
    found = to_networkx(graph, around=around, hops=hops)
    assert set(found.nodes) == set(expected.nodes)
    assert sorted(found.edges(data="kind")) == sorted(expected.edges(data="kind"))


@pytest.mark.parametrize("around", [("session", 3), ("session", -1), ("shop", 0)])
def test_a_node_that_is_not_there_is_refused(around: tuple[str, int]) -> None:
    with pytest.raises(InputError, match=rf"no node {around[0]} {around[1]} in the graph; it has session \(3\)"):
        to_networkx(build_graph(log()), around=around)


def test_an_item_with_several_values_has_an_edge_to_each() -> None:
    movies = pd.DataFrame({"i": ["b", "a", "c"], "genre": ["p|q", "q", None]})
    items = EntityTable.read(movies, key="i", several={"genre": "|"})
    graph = build_graph(EventLog.read(EVENTS, session="s", item="i", time="t", items=items))
    assert edges(graph, "item", "has", "genre") == [(0, 2), (1, 1), (1, 2)] and graph["genre"].num_nodes == 3
