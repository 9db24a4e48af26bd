"""A system whose encoder reads the graph: newer sessions than its training log's, later ones, saving and loading."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import graphmeta as gm
from graphmeta.adapt.support import UserSupport
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.queries import queries_of
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Mean
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log

GraphEncoder = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "graph_encoder.py"))["GraphEncoder"]
LOG = fake_log(sessions=90, items=12)
PARTS = LOG.before(LOG.starts[50]), LOG.after(LOG.starts[50]).before(LOG.starts[70]), LOG.after(LOG.starts[70])
TRAIN, NEWER, TEST = (part.aligned_to(PARTS[0].items, PARTS[0].users) for part in PARTS)


def user_of(log: EventLog) -> np.ndarray:
    assert log.session_user is not None
    return log.session_user


def made(items: EntityTable, *, adaptation: gm.Adaptation | None = None) -> gm.System:
    torch.manual_seed(0)
    recommender = gm.Recommender(
        gm.nn.ItemFeatures(len(items), 8), GraphEncoder(8, TRAIN.graph), Dot(Mean(), nn.Linear(8, 8))
    )
    for weight in recommender.parameters():
        weight.data.normal_(0, 0.3)
    return gm.System(recommender, items, users=TRAIN.users, adaptation=adaptation).eval()


def fitted(**options) -> gm.System:
    system = made(TRAIN.items, **options)
    system.fit_statistics(TRAIN)
    return system


def by_user() -> gm.Adaptation:
    return gm.Adaptation(gm.Scope("head"), step=gm.Gradient(0.1), steps=1, support=UserSupport(decay=None))


def perturbed(log: EventLog, late: np.ndarray) -> EventLog:
    """Other items at these events."""
    return replace(log, item=np.where(late, (log.item + 1) % log.num_items, log.item))


@pytest.mark.parametrize("adaptation", [None, by_user], ids=["plain", "user tasks"])
def test_the_users_newer_sessions_are_read_and_nothing_later(adaptation) -> None:
    """Scores of each test query, with the sessions between training and test and those of the test log."""
    system = fitted(**({} if adaptation is None else {"adaptation": adaptation()}))
    assert system.reads_history
    wanted = system.scores(queries_of(system, TEST, NEWER))
    at = 15
    begin, user = TEST.starts[at], user_of(TEST)[at]
    known = [s for s in range(NEWER.num_sessions) if user_of(NEWER)[s] == user]
    assert known, "the user of the query has a newer session"

    def scores(newer: EventLog, test: EventLog) -> torch.Tensor:
        queries = queries_of(system, test, newer)
        return system.scores(queries)[np.flatnonzero(queries.session == at)[0]]

    own = user_of(TEST)[TEST.session] == user
    rest = np.arange(TEST.num_events) == TEST.ptr[at + 1] - 1  # the query's target
    later = TEST.starts[TEST.session] > begin
    row = np.flatnonzero(last_clicks(TEST).session == at)[0]
    for name, test in {
        "later sessions of the user": perturbed(TEST, later & own),
        "later sessions of others": perturbed(TEST, later & ~own),
        "the query's own rest": perturbed(TEST, rest),
        "other users' sessions, earlier too": perturbed(TEST, ~own),
    }.items():
        assert torch.equal(scores(NEWER, test), wanted[row]), name
    of_others = perturbed(NEWER, user_of(NEWER)[NEWER.session] != user)
    assert torch.equal(scores(of_others, TEST), wanted[row])
    assert not torch.equal(scores(perturbed(NEWER, NEWER.session == known[-1]), TEST), wanted[row])
    before = next(s for s in range(at, -1, -1) if s < at and user_of(TEST)[s] == user) if own[:at].any() else None
    assert before is None or not torch.equal(scores(NEWER, perturbed(TEST, TEST.session == before)), wanted[row])
    with pytest.warns(UserWarning, match="no earlier sessions of their users"):
        alone = queries_of(system, last_clicks(TEST))
    assert not torch.equal(system.scores(alone), wanted), "samples alone have the sessions of the training log"


def test_training_and_validation_read_them_too() -> None:
    system = made(TRAIN.items)
    seen = []
    make = system.__class__.scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            system.__class__, "scores", lambda self, samples, **o: seen.append(samples) or make(self, samples, **o)
        )
        list(gm.train(system, TRAIN, epochs=1, valid=LOG.after(LOG.starts[50]).aligned_to(TRAIN.items, TRAIN.users)))
    earlier = seen[0].earlier
    newest = earlier.histories.starts[earlier.until - 1][earlier.sessions > 0]
    assert newest.max() >= NEWER.starts[0] and (earlier.histories.ends[earlier.until - 1] < earlier.query_time).all()


def test_recommendations_with_a_log_with_lists_and_of_a_new_user() -> None:
    """A log that has newer sessions = its last sessions as lists; a user whom no log has, with and without them."""
    system = fitted()
    user = "u3"
    whole = EventLog.read(
        gm_frame := LOG.before(LOG.starts[70]).to_frame(), session="session", item="item", time="time", user="user"
    )
    mine = gm_frame[gm_frame.user == user].groupby("session", sort=False).item.apply(list).tolist()
    assert len(mine) > 3
    session = [TRAIN.items.ids[2], TRAIN.items.ids[5]]
    by_log = system.recommend(session, 5, user=user, history=whole)
    assert by_log == system.recommend(session, 5, user=user, history=mine)
    assert by_log == system.recommend(session, 5, user=user, history=mine[-3:]), "the encoder reads three sessions"
    assert by_log != system.recommend(session, 5, user=user, history=mine[-2:])
    assert by_log != system.recommend(session, 5, user=user), "those of the training log"
    nobody = system.recommend(session, 5)
    assert system.recommend(session, 5, user="nobody") == nobody
    assert system.recommend(session, 5, user="nobody", history=mine) not in (nobody, by_log)


def test_a_loaded_system_needs_the_graph_and_names_the_remedy(tmp_path) -> None:
    system, session = fitted(), [TRAIN.items.ids[2]]
    wanted, by_user = system.scores(queries_of(system, TEST, NEWER)), system.recommend(session, 5, user="u3")
    system.save(tmp_path)
    loaded = gm.load(tmp_path, build=made)
    with pytest.raises(InputError, match=r"models are saved without it.*load\(folder, graph=log\)") as error:
        loaded.recommend(session, 5, user="u3")
    assert "\n" not in str(error.value)
    for graph in (TRAIN, TRAIN.graph, LOG.before(LOG.starts[50])):
        loaded = gm.load(tmp_path, build=made, graph=graph)
        assert torch.equal(loaded.scores(queries_of(loaded, TEST, NEWER)), wanted)
        assert loaded.recommend(session, 5, user="u3") == by_user
    system.save(tmp_path, keep_histories=True)
    stored = gm.load(tmp_path, build=made, graph=TRAIN.before(TRAIN.starts[3]))
    with pytest.raises(InputError, match="reads no graph and no history"):
        plain = gm.build("sr_gnn", TRAIN.items, width=4)
        plain.attach_graph(TRAIN)
    assert stored.histories is not None and len(stored.histories.sessions) == TRAIN.num_sessions


def other_codes(items: EntityTable) -> EntityTable:
    """The same categories under other codes."""
    column = items.attributes["category"]
    values = np.concatenate([[""], column.values[:0:-1]]).astype(object)
    codes = np.where(column.codes > 0, len(column.values) - column.codes, 0)
    return replace(items, columns={**items.columns, "category": replace(column, codes=codes, values=values)})


def test_a_graph_with_other_codes_is_refused() -> None:
    for system in (made(TRAIN.items), gm.build("hetero_gnn", TRAIN.items, width=4)):
        with pytest.raises(InputError, match=r"item column 'category' are not those of the system.*aligned_to"):
            system.fit_statistics(replace(TRAIN, items=other_codes(TRAIN.items)))
        again = replace(TRAIN, items=other_codes(TRAIN.items)).aligned_to(TRAIN.items, TRAIN.users)
        system.fit_statistics(again)


def test_hetero_gnn_reads_the_graph_and_not_its_table() -> None:
    """Equal weights: other edges ``has``, other scores; a value of an item that no query touches changes nothing."""
    system = gm.build("hetero_gnn", TRAIN.items, width=4)
    samples = last_clicks(TEST).take(slice(0, 1))
    alone = system.scores(samples)
    system.fit_statistics(TRAIN)
    assert torch.equal(system.scores(samples), alone), "the graph of the item table alone is the log's"
    column = TRAIN.items.attributes["category"]

    def of(codes: np.ndarray) -> torch.Tensor:
        columns = {**TRAIN.items.columns, "category": replace(column, codes=codes)}
        system.fit_statistics(replace(TRAIN, items=replace(TRAIN.items, columns=columns)))
        return system.scores(samples)

    touched = np.zeros(TRAIN.num_items, dtype=bool)
    touched[samples.flat()[0]] = True
    moved = np.where(column.codes > 1, 1, 2)
    assert not touched.all() and torch.equal(of(np.where(touched, column.codes, moved)), alone)
    assert not torch.equal(of(np.where(touched, moved, column.codes)), alone)


def test_users_of_the_graph_must_be_the_systems() -> None:
    system = gm.System(made(TRAIN.items).recommender, TRAIN.items)
    with pytest.raises(InputError, match="build it with users=log.users"):
        system.fit_statistics(TRAIN)


def test_attributes_are_named_apart_from_the_stores_of_a_batch() -> None:
    """Columns called event, sample and history are node types of their own."""
    names = ["event", "sample", "history"]
    columns = {name: TRAIN.items.attributes["brand"] for name in names}
    log = replace(TRAIN, items=replace(TRAIN.items, columns=columns))
    batch = gm.SubgraphSampler(log, attributes=True)(last_clicks(log))
    assert {"item_event", "item_sample", "item_history"} <= set(batch.node_types)
    assert batch["event"].num_nodes == last_clicks(log).lengths.sum()
    system = gm.build("hetero_gnn", log.items, width=4)
    assert system.scores(last_clicks(log)).isfinite().all()
    with pytest.raises(
        InputError, match="no attribute 'colour', which the encoder reads; it has event, sample, history"
    ):
        gm.SubgraphSampler(log, attributes=("colour",))


def test_unknown_values_have_nodes_of_their_own() -> None:
    """One node of value 0 for each item row without a value, by a loop over the rows."""
    column = TRAIN.items.attributes["brand"]
    codes = np.where(np.arange(12) % 3 == 0, 0, column.codes)
    log = replace(TRAIN, items=replace(TRAIN.items, columns={"brand": replace(column, codes=codes)}))
    samples = last_clicks(log)
    sampler = gm.SubgraphSampler(log, history=2, attributes=("brand",), unknown=True)
    batch = sampler(samples)
    row, node = batch["item", "has", "brand"].edge_index.tolist()
    assert row == list(range(batch["item"].num_nodes)), "each item row has one value"
    found = {}
    for a, b in zip(row, node, strict=True):
        code, sample = int(codes[batch["item"].n_id[a]]), int(batch["item"].batch[a])
        assert (int(batch["brand"].n_id[b]), int(batch["brand"].batch[b])) == (code, sample)
        assert found.setdefault((sample, code) if code else (sample, "row", a), b) == b
    assert len(set(found.values())) == len(found) == batch["brand"].num_nodes
