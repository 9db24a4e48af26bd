"""The graph is the store: one memory with the log, back and forth, on disk and mapped."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import HeteroData

import graphmeta as gm
from graphmeta.data.events import EventLog
from graphmeta.data.graph import build_graph, from_hetero
from graphmeta.data.graph_files import load_graph, save_graph
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.sampling.samples import Samples
from graphmeta.testing import fake_log, fake_ratings
from tests.catalogue import sized

CONTAINS = ("session", "contains", "item")


def rich_log(*, time: bool = True) -> EventLog:
    """Columns of every type, values, an unknown user, labels, ids of both kinds."""
    events = pd.DataFrame(
        {
            "s": [3, 3, 3, 9, 9, 5], "i": ["a", "b", "a", "c", "c", "b"], "t": [1.0, 2, 3, 4, 5, 6],
            "u": ["ann", "ann", "ann", "bob", "bob", "ann"], "v": [1.5, 2, 3, 1, 2, 5],
        }
    )  # fmt: skip
    table = pd.DataFrame(
        {
            "i": ["b", "a", "c"], "kind/x": ["p", None, "q"], "tags": ["y|x", "x", None], "price": [0.1, None, 3.0],
            "image": [[1.0, 2.0], [0.5, 0.25], None], "title": ["B", "", "C"], "label": ["Bee", "Ay", "See"],
        }
    )  # fmt: skip
    types = {"price": "numeric", "image": "vector", "title": "text"}
    items = EntityTable.read(table, key="i", label="label", several={"tags": "|"}, types=types)
    users = EntityTable.read(pd.DataFrame({"u": ["ann", "bob"], "city": ["R", "R"], "age": [3.0, 4]}), key="u")
    columns = {"session": "s", "item": "i", "user": "u", "value": "v"}
    log = EventLog.read(events, **columns, time="t" if time else None, items=items, users=users)
    assert log.session_user is not None
    log.session_user[1] = -1
    return log


LOGS = {
    "rich": rich_log,
    "without times": lambda: rich_log(time=False),
    "clicks": fake_log,
    "ratings": fake_ratings,
    "a session without clicks": lambda: (log := fake_log(sessions=5, length=2)).without(log.session == 3),
    "a part": lambda: fake_log().before(1.7e9 + 3600 * 50),
}  # fmt: skip


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("made", LOGS.values(), ids=LOGS)
def test_the_graph_is_the_logs_memory(made) -> None:
    log = made()
    contains = log.graph[CONTAINS]
    assert contains.edge_index[0].data_ptr() == address(log.session)
    assert contains.edge_index[1].data_ptr() == address(log.item)
    assert contains.time.data_ptr() == address(log.time)
    assert log.graph["session"].user.data_ptr() == address(log.session_user)
    assert log.value is None or contains.value.data_ptr() == address(log.value)
    assert log.graph["session"].names is log.sessions and log.graph["item"].names is log.items.ids
    assert log.graph is log.graph and build_graph(log)[CONTAINS].edge_index.data_ptr() == address(log.session)


def test_a_copy_of_the_stores_does_not_change_the_log() -> None:
    log = fake_log()
    before = log.graph.edge_types
    graph = build_graph(log, reverse=True)
    graph["item"].extra = torch.zeros(40)
    assert log.graph.edge_types == before and "extra" not in log.graph["item"]


def test_numbers_and_vectors_share_memory_too() -> None:
    log = rich_log()
    assert log.graph["item"].number_price.data_ptr() == address(vars(log.items.columns["price"])["values"])
    only = EventLog.read(
        pd.DataFrame({"s": [1, 1], "i": ["a", "b"]}), session="s", item="i",
        items=EntityTable.read(pd.DataFrame({"i": ["a", "b"], "v": [[1.0], [2.0]]}), key="i", types={"v": "vector"}),
    )  # fmt: skip
    assert only.graph["item"].x.data_ptr() == address(vars(only.items.columns["v"])["values"])


def same(one: EventLog, other: EventLog) -> None:
    assert one.fingerprint() == other.fingerprint()
    assert one.sessions.tolist() == other.sessions.tolist() and one.has_time == other.has_time
    np.testing.assert_array_equal(one.items.labels, other.items.labels)
    assert one.items.complete == other.items.complete


@pytest.mark.parametrize("made", LOGS.values(), ids=LOGS)
def test_the_graph_gives_the_log_back_without_a_copy(made) -> None:
    log = made()
    again = from_hetero(log.graph)
    same(again, log)
    assert address(again.session) == address(log.session) and address(again.item) == address(log.item)
    assert address(again.time) == address(log.time)
    same(from_hetero(build_graph(log, reverse=True)), log)


@pytest.mark.parametrize("made", LOGS.values(), ids=LOGS)
def test_edges_in_any_order_give_the_same_log(made) -> None:
    """Sessions without a click are left out: they have no place in the order."""
    log = made()
    if (log.lengths == 0).any():
        log = log.of_sessions(log.lengths > 0)
    graph = build_graph(log)
    random = torch.Generator().manual_seed(0)
    order = torch.randperm(log.num_events, generator=random)
    store = graph[CONTAINS]
    store.edge_index = store.edge_index[:, order]
    for name in ("time", "position", "value"):
        if name in store:
            store[name] = store[name][order]
    for kind in graph.edge_types:
        if kind[1] == "has":
            graph[kind].edge_index = graph[kind].edge_index[:, torch.argsort(graph[kind].edge_index[0], stable=True)]
    same(from_hetero(graph), log)


def test_a_users_own_graph() -> None:
    """Sessions in another order, no names: written by hand, and the log that they mean."""
    data = HeteroData()
    data["session"].num_nodes, data["item"].num_nodes, data["user"].num_nodes, data["tag"].num_nodes = 4, 3, 2, 2
    data[CONTAINS].edge_index = torch.tensor([[3, 0, 3, 1], [2, 0, 1, 1]])
    data[CONTAINS].time = torch.tensor([50, 60, 40, 70])
    data["user", "owns", "session"].edge_index = torch.tensor([[1, 0], [3, 0]])
    data["item", "has", "tag"].edge_index = torch.tensor([[0, 2, 0], [1, 0, 0]])
    data["user"].names, data["item"].x = ["ann", "bob"], torch.eye(3)
    log = from_hetero(data)
    assert log.to_frame()["time"].tolist() == [40, 50, 60, 70] and log.sessions.tolist() == [3, 0, 1]
    assert log.item.tolist() == [1, 2, 0, 1] and log.session.tolist() == [0, 0, 1, 2]
    assert log.session_user is not None and log.session_user.tolist() == [1, 0, -1]
    tag = log.items.several["tag"]
    values = [tag.values[tag.codes[a:b]].tolist() for a, b in zip(tag.ptr, tag.ptr[1:], strict=False)]
    assert values == [["1", "0"], [""], ["0"]]
    assert vars(log.items.columns["x"])["values"].tolist() == torch.eye(3).tolist()


def broken(**changes) -> HeteroData:
    graph = build_graph(fake_log(sessions=3, items=4))
    for name, value in changes.items():
        graph[CONTAINS][name] = value
    return graph


def two_owners() -> HeteroData:
    graph = build_graph(fake_log(sessions=3))
    del graph["session"].user
    graph["user", "owns", "session"].edge_index = torch.tensor([[0, 1, 0], [0, 1, 1]])
    return graph


def same_names() -> HeteroData:
    graph = broken()
    graph["item"].names = ["a", "a", "b", "c"]
    return graph


def two_values() -> HeteroData:
    graph = broken()
    graph["item", "has", "brand"].edge_index = torch.tensor([[0, 0], [1, 2]])
    return graph


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (HeteroData, r"no edges \(session, contains, item\); its edge types are none"),
        (lambda: broken(time=torch.zeros(3)), "time of .* must be 18 finite numbers, one per edge"),
        (lambda: broken(value=torch.full((18,), torch.nan)), "value of .* not finite"),
        (lambda: broken(edge_index=torch.tensor([[0], [7]])), "has item 7, but the graph has 4"),
        (two_owners, "session 1 belongs to two users"),
        (same_names, "names of the 4 nodes of type 'item' must be 4 different ids"),
        (two_values, "item 0 has two values of 'brand'; list it as a column of kind 'several'"),
    ],
)  # fmt: skip
def test_a_graph_that_is_no_log_is_refused(made, says: str) -> None:
    with pytest.raises(InputError, match=says):
        from_hetero(made())


@pytest.mark.parametrize("made", LOGS.values(), ids=LOGS)
def test_saved_and_loaded(made, tmp_path) -> None:
    log = made()
    save_graph(tmp_path, log.graph)
    graph = load_graph(tmp_path)
    assert graph.validate() and graph.metadata() == log.graph.metadata()
    same(from_hetero(graph), log)
    assert torch.equal(graph["item", "follows", "item"].weight, log.graph["item", "follows", "item"].weight)


def test_a_loaded_graph_is_the_mapped_file(tmp_path) -> None:
    """The events of the log lie in the file's pages: no copy in memory that the process owns."""
    save_graph(tmp_path, fake_log(sessions=400).graph)
    log = from_hetero(load_graph(tmp_path))
    (file,) = tmp_path.glob("*.safetensors")
    with open("/proc/self/maps") as maps:
        spans = [line.split()[0].split("-") for line in maps if line.rstrip().endswith(str(file))]
    for array in (log.session, log.item, log.time, log.session_user):
        assert array is not None
        assert any(int(a, 16) <= address(array) < int(b, 16) for a, b in spans)


def test_a_changed_file_and_an_attribute_that_json_cannot_hold_are_refused(tmp_path) -> None:
    graph = build_graph(fake_log(sessions=3))
    save_graph(tmp_path, graph)
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="damaged or changed"):
        load_graph(tmp_path)
    graph["item"].shape_of = object()
    with pytest.raises(InputError, match="'shape_of' of item cannot be written as JSON"):
        save_graph(tmp_path / "other", graph)


# The systems that read the log beyond the clicks of a session and its user as a graph: neighbours of items, meta-paths,
# co-occurrence, attribute nodes, users and their items.
OF_THE_GRAPH = {
    "hetero_gnn",
    "global_gnn",
    "ensemble",
    "meta_hin",
    "meta_hin_rating",
    "cluster_seq",
    "context_gnn",
    "id_gnn",
    "reranker",
    "personal_reranker",
    "item_knn",
    "session_knn",
    "stan",
}
TERMS = ("repeat_bias", "same_category", "cooccurrence", "reranker", "personal")
TERMS_OF_THE_GRAPH = {"cooccurrence", "reranker", "personal"}


def without_graph(log: EventLog) -> HeteroData:
    raise AssertionError("the graph was read")


def reads_graph(system: gm.System, log: EventLog) -> bool:
    """Whether it raises for a log whose graph cannot be read."""
    try:
        system.fit_statistics(log)
        if not system.has_weights:
            return False
        samples = system.training_samples(log)
        system.losses(samples.take(slice(0, 2) if isinstance(samples, Samples) else np.arange(2)))
    except AssertionError as error:
        assert str(error) == "the graph was read"
        return True
    return False


def test_systems_of_the_graph_read_the_logs_graph_and_no_others(monkeypatch) -> None:
    """All over the catalogue: with ``log.graph`` made to raise, exactly these do not train; with it, the tests of the
    catalogue train them. Other systems read the session's own clicks, the item table, and ``UserHistories``, whose
    columns are the memory of the edges (:func:`test_histories_are_the_graphs_memory`)."""
    rated, clicks, found = fake_ratings(users=8), fake_log(sessions=30, items=12), set()
    monkeypatch.setattr("graphmeta.data.store.to_graph", without_graph)
    for name, entry in CATALOGUE.items():
        log = rated if entry.predicts_ratings else clicks
        system = build(name, log.items, users=log.users, **sized(name, 4))
        found |= {name} if reads_graph(system, log) else set()
    assert found == OF_THE_GRAPH
    items = clicks.items
    terms = {name for name in TERMS if reads_graph(build("niser", items, width=4, score_terms=[name]), clicks)}
    assert terms == TERMS_OF_THE_GRAPH
    with pytest.raises(AssertionError, match="the graph was read"):
        gm.SubgraphSampler(clicks, follows=1, attributes=True)


def test_histories_are_the_graphs_memory() -> None:
    """Equal to walking the edges user - owns - session - contains - item of the graph."""
    log = fake_log(sessions=40, items=12)
    known, graph = gm.UserHistories.of(log), log.graph
    owner, session = graph["user", "owns", "session"].edge_index.numpy()
    of, item = graph["session", "contains", "item"].edge_index.numpy()
    time = graph["session", "contains", "item"].time.numpy()
    for user in range(len(log.users or ())):
        mine = sorted(session[owner == user].tolist(), key=lambda s: time[of == s][0])
        rows = slice(known.begin[known.ptr[user]], known.begin[known.ptr[user + 1]])
        assert known.item[rows].tolist() == [i for s in mine for i in item[of == s].tolist()]
        assert known.time[rows].tolist() == [t for s in mine for t in time[of == s].tolist()]
