"""New items and users: in tables, in the graph, and in a trained model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import graphmeta as gm
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.features.attribute_sum import AttributeComposed
from graphmeta.nn.score_terms.same_category import SameCategory
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.load import load
from graphmeta.published.parts import with_adaptation, with_score_terms
from graphmeta.sampling.samples import prefixes
from graphmeta.system import System
from graphmeta.testing import fake_log, fake_ratings
from tests.catalogue import sized

LOG = fake_log(sessions=60, items=16)
FRAME = pd.DataFrame({"item": ["n1", "n2", "n3"], "brand": ["b1", "new", None], "category": ["c0", "c0", "c2"]})
NEW = EntityTable.read(FRAME.assign(tags=["a|z", "z", None]), key="item", several={"tags": "|"})
TAGS = pd.DataFrame({"item": LOG.items.ids, "tags": [["a|b", "b", ""][n % 3] for n in range(16)]})


def tagged(log: EventLog) -> EventLog:
    tags = EntityTable.read(TAGS, key="item", several={"tags": "|"}).columns
    return EventLog(
        log.session, log.item, log.time, log.sessions, EntityTable(log.items.ids, {**log.items.columns, **tags}),
        log.users, log.session_user,
    )  # fmt: skip


def values(table: EntityTable, name: str, row: int) -> set[str]:
    column = table.categories[name].features()
    return {str(table.categories[name].values[code]) for code in column.codes[column.ptr[row] : column.ptr[row + 1]]}


def test_joined_tables_keep_indices_codes_and_values() -> None:
    own = tagged(LOG).items
    joined = own.joined(NEW)
    assert joined.ids.tolist() == [*own.ids, "n1", "n2", "n3"]
    for name in ("brand", "category", "tags"):
        assert (
            joined.categories[name].values[: own.categories[name].size].tolist() == own.categories[name].values.tolist()
        )
        for row in range(16):
            assert values(joined, name, row) == values(own, name, row)
        for row in range(3):
            assert values(joined, name, 16 + row) == values(NEW, name, row)
        assert joined.categories[name].is_consistent(19)
    assert joined.take(np.arange(16)).ids.tolist() == own.ids.tolist()
    lacking = own.joined(EntityTable(NEW.ids, {}))
    assert all(values(lacking, name, 17) == {""} for name in lacking.categories)


def test_columns_of_every_type_are_joined() -> None:
    def read(ids: list[str], start: int) -> EntityTable:
        n = np.arange(start, start + len(ids))
        frame = pd.DataFrame(
            {"i": ids, "price": n / 2, "image": [[float(x), 1.0] for x in n], "title": [f"t{x}" for x in n]}
        )
        return EntityTable.read(frame, key="i", types={"price": "numeric", "image": "vector", "title": "text"})

    joined, whole = read(["a", "b"], 0).joined(read(["c"], 2)), read(["a", "b", "c"], 0)
    assert joined.fingerprint() == whole.fingerprint()


def test_new_nodes_have_edges_to_their_values() -> None:
    log = tagged(LOG)
    users = EntityTable(np.array(["new"], dtype=object), {})
    graph = log.with_entities(items=NEW, users=users).graph
    assert graph["item"].num_nodes == 19 and graph["user"].num_nodes == 21 and graph["user"].names[-1] == "new"
    row, code = graph["item", "has", "tags"].edge_index
    assert {str(graph["tags"].names[c]) for c in code[row == 16]} == {"a", "z"} and (row != 18).all()
    old = log.graph["item", "has", "brand"].edge_index
    assert torch.equal(graph["item", "has", "brand"].edge_index[:, : old.shape[1]], old)
    assert torch.equal(
        graph["session", "contains", "item"].edge_index, log.graph["session", "contains", "item"].edge_index
    )


def composed(system: System) -> AttributeComposed:
    return next(part for part in system.modules() if isinstance(part, AttributeComposed))


def trained(terms: tuple[str, ...] = (), name: str = "dropout_net") -> System:
    torch.manual_seed(0)
    log = tagged(LOG)
    system = (
        gm.build(name, log.items, width=8, base="sr_gnn")
        if name == "dropout_net"
        else gm.build(name, log.items, width=8)
    )
    list(gm.train(system, log, epochs=1, seed=0))
    with_score_terms(system, list(terms)).fit_statistics(log)
    for part in system.modules():
        if isinstance(part, SameCategory):
            part.recency.weight.data.normal_()
    return system.eval()


@pytest.mark.parametrize("terms", [(), ("repeat_bias", "cooccurrence", "same_category")])
def test_old_items_keep_their_scores_and_new_ones_have_those_of_their_vector(terms: tuple[str, ...]) -> None:
    system = trained(terms)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    more = system.extended(NEW)
    assert len(system.items) == 16 and all(
        torch.equal(before[name], value) for name, value in system.state_dict().items()
    )
    samples = replace(prefixes(LOG).take(slice(0, 40)), items=None)
    old, new = system.scores(samples), more.scores(samples)
    assert new.shape == (40, 19)
    torch.testing.assert_close(new[:, :16], old, atol=1e-6, rtol=0)
    assert torch.equal(new[:, :16].argsort(1), old.argsort(1))
    table, weight = composed(more), composed(more).weight
    names, first = list(more.items.categories), {}
    begin = 19
    for name in names:
        first[name] = begin
        begin += more.items.categories[name].size
    head: Any = more.recommender.head
    query = head.query(more.recommender.encode(more._queries(samples))[0], more._queries(samples))
    for row in range(16, 19):
        vector = torch.zeros(weight.shape[1])
        for name in names:
            column = more.items.categories[name].features()
            codes = column.codes[column.ptr[row] : column.ptr[row + 1]]
            for code in codes:
                trained_value = (
                    code < system.items.categories[name].size and composed(system).seen[_at(system, name) + code]
                )
                vector += weight[first[name] + code] / len(codes) * bool(trained_value)
        torch.testing.assert_close(table.all_rows()[row], vector)
        if not terms:
            torch.testing.assert_close(new[:, row], query @ head.vectors(vector[None])[0])
    if terms:
        last = LOG.items.attributes["category"]
        same = [
            n
            for n in range(40)
            if "c0" in {str(last.values[last.codes[i]]) for i in samples.item[samples.begin[n] : samples.end[n]]}
        ]
        plain = query @ head.vectors(table.all_rows())[16]
        assert same and ((new[same, 16] - plain[same]).abs() > 1e-4).all()


def _at(system: System, name: str) -> int:
    names = list(system.items.categories)
    return 16 + sum(system.items.categories[one].size for one in names[: names.index(name)])


def test_new_items_are_recommended_and_clicked_in_their_ids_saved_and_loaded(tmp_path) -> None:
    more = trained().extended(NEW)
    found = more.recommend(["i3", "n1"], k=18)
    assert {"n2", "n3"} & {str(one.item) for one in found} and all(np.isfinite(one.score) for one in found)
    more.save(tmp_path)
    again = load(tmp_path)
    assert again.items.ids.tolist() == more.items.ids.tolist()
    assert again.recommend(["i3", "n1"], k=18) == found


def test_twice_is_as_at_once() -> None:
    system = trained()
    once = system.extended(NEW)
    twice = system.extended(NEW.take(np.arange(1))).extended(NEW.take(np.arange(1, 3)))
    samples = replace(prefixes(LOG).take(slice(0, 10)), items=None)
    torch.testing.assert_close(once.scores(samples), twice.scores(samples))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: trained(name="sr_gnn"), "recommender.features.item has weight for each of 16 items .* dropout_net"),
        (lambda: trained(name="global_gnn"), "for each of 16 items"),
        (lambda: trained(("reranker",)), "score_terms.reranker has .* for each of 16 items"),
    ],
)  # fmt: skip
def test_a_system_that_cannot_compose_items_is_refused(make, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make().extended(NEW)


def test_an_adapted_head_keeps_adapting_and_an_adapted_table_is_refused() -> None:
    for scope, refused in (("head", False), ("features", True)):
        adaptation = gm.Adaptation(gm.Scope(scope), step=gm.Gradient(0.1), steps=2)
        system = with_adaptation(trained(), adaptation).eval()
        samples = replace(prefixes(LOG).take(slice(30, 40)), items=None)
        if refused:
            with pytest.raises(InputError, match=r"the adaptation changes features.item.weight, .* fit again"):
                system.extended(NEW)
        else:  # the inner loss ranks the new items too
            assert system.extended(NEW).scores(samples).shape == (10, 19)
            torch.testing.assert_close(
                system.extended(NEW).scores(samples, steps=0)[:, :16],
                system.scores(samples, steps=0),
                atol=1e-6,
                rtol=0,
            )


def test_known_items_and_other_types_are_refused() -> None:
    system = trained()
    with pytest.raises(InputError, match="'i3' is in the table already"):
        system.extended(LOG.items.take(LOG.items.rows_of(np.array(["i3"]))))
    numbers = EntityTable.read(pd.DataFrame({"item": ["x"], "brand": [1.0]}), key="item", types={"brand": "numeric"})
    with pytest.raises(InputError, match="column 'brand' is categorical here and numeric in the new rows"):
        system.extended(numbers)
    with pytest.raises(InputError, match="the log has no users"):
        EventLog(LOG.session, LOG.item, LOG.time, LOG.sessions, LOG.items).with_entities(users=NEW)


PEOPLE = EntityTable(np.array(["anna", "bert"], dtype=object), {})
RATED = fake_ratings(users=12)
OF_USERS_ALONE = {
    "mf",
    "full_retrain",
    "fine_tune",
    "spmf",
    "sml",
}  # without an item bias, the same score for all items
USER_TABLES = {"caser", "bpr_mf", "asars_user_cat", "asars_user_att", "asars_time_user", "bpr_fold_in"}
USER_COLUMNS = {"melu_rating", "mamo_rating", "meta_hin_rating"}


def made(name: str) -> tuple[System, EventLog]:
    """A small system with its users, whose weights are not those of its start."""
    torch.manual_seed(0)
    log = RATED if CATALOGUE[name].predicts_ratings else LOG
    system = gm.build(name, log.items, users=log.users, **sized(name, 4)).eval()
    system.fit_statistics(log)
    for weight in system.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    return system, log


@pytest.mark.filterwarnings("ignore:this system reads dwell times", "ignore:co-occurrence counts")
def test_a_new_user_gets_the_ranking_without_a_user_or_a_reason_all_over_the_catalogue() -> None:
    refused, tables = set(), set()
    for name, entry in CATALOGUE.items():
        if entry.predicts_ratings:
            continue
        system, log = made(name)
        session = log.items.ids[:2].tolist()
        tables |= {name} if system.users is not None else set()
        try:
            found = system.recommend(session, 5, user="anna")
        except InputError as error:
            refused.add(name)
            assert str(error).startswith("this system reads users alone") and "\n" not in str(error)
            found = system.recommend(session, 5, user="anna", unknown="ignore")
            assert [one.why for one in found] == ["popular"] * 5
            assert len(system.recommend(session, 5, user=log.users.ids[1])) == 5
            with pytest.raises(InputError, match="session 1: this system reads users alone"):
                system.recommend_many([session] * 2, 5, users=[log.users.ids[1], "anna"])
            continue
        assert found == system.recommend(session, 5), name
        assert len({one.score for one in found}) > 1, name
    assert refused == OF_USERS_ALONE and tables == USER_TABLES | OF_USERS_ALONE


@pytest.mark.filterwarnings("ignore:this system reads dwell times")
@pytest.mark.parametrize("name", sorted(USER_TABLES))
def test_new_users_of_a_table_get_the_ranking_without_a_user_until_trained(name: str, tmp_path) -> None:
    system, log = made(name)
    samples = prefixes(log).take(slice(0, 40))
    longer = system.extended(users=PEOPLE)
    assert torch.equal(longer.scores(samples), system.scores(samples)), "old users"
    nobody = system.scores(replace(samples, user=np.full(40, -1)))
    new = replace(samples, user=np.full(40, len(log.users) + 1), users=longer.users)
    assert torch.equal(longer.scores(new), nobody)
    session = log.items.ids[:2].tolist()
    assert longer.recommend(session, 3, user="bert") == system.recommend(session, 3)
    longer.save(tmp_path)
    assert torch.equal(load(tmp_path).scores(new), nobody)
    theirs = replace(log, users=longer.users, session_user=np.append(log.session_user[:-1], len(log.users) + 1))
    list(gm.train(longer, theirs, epochs=1))
    if name != "bpr_fold_in":  # whose users are all new to it
        assert not torch.equal(longer.scores(new), longer.scores(replace(new, user=np.full(40, -1))))
    with pytest.raises(InputError, match="is in the table already"):
        longer.extended(users=PEOPLE)


def test_temporal_biases_of_new_users() -> None:
    torch.manual_seed(0)
    system = gm.build("asars_user_cat", LOG.items, users=LOG.users, width=4, temporal=True).eval()
    system.fit_statistics(LOG)
    samples = prefixes(LOG).take(slice(0, 9))
    longer = system.extended(users=PEOPLE)
    new = replace(samples, user=np.full(9, len(LOG.users)), users=longer.users)
    assert torch.equal(longer.scores(new), system.scores(replace(samples, user=np.full(9, -1))))
    assert torch.equal(longer.scores(samples), system.scores(samples))


@pytest.mark.parametrize("name", sorted(USER_COLUMNS))
def test_new_users_with_columns_are_composed_of_them(name: str) -> None:
    """A new user with the columns of an old one scores as the old one."""
    system, log = made(name)
    tasks = system.training_samples(log).take(np.arange(3))
    twins = replace(log.users.take(tasks.query.user[tasks.query_ptr[:-1]]), ids=np.array(["a", "b", "c"], dtype=object))
    longer = system.extended(users=twins)
    wanted = system.scores(tasks)
    torch.testing.assert_close(longer.scores(tasks), wanted, rtol=0, atol=0)
    sizes = np.diff(tasks.support_ptr), np.diff(tasks.query_ptr)
    number = [len(log.users) + np.repeat(np.arange(3), size) for size in sizes]
    parts = zip((tasks.support, tasks.query), number, strict=True)
    support, query = (replace(part, user=user, users=longer.users) for part, user in parts)
    theirs = replace(tasks, support=support, query=query)
    torch.testing.assert_close(longer.scores(theirs), wanted, rtol=0, atol=1e-6)


def test_new_users_are_refused_where_they_have_no_vector() -> None:
    with pytest.raises(InputError, match="learned from their events, so there is none for new users"):
        made("mf")[0].extended(users=PEOPLE)
    with pytest.raises(InputError, match=r"the system has no users.*recommend\(session, history="):
        made("sr_gnn")[0].extended(users=PEOPLE)
    system = made("caser")[0]
    system.recommender.head.own = nn.Embedding(len(LOG.users), 3)
    with pytest.raises(
        InputError, match=r"recommender.head.own has a row for each of 20 users and has no extend_users"
    ):
        system.extended(users=PEOPLE)
