"""The numbers of an explanation add up to the score, and are those of independent definitions."""

import warnings
from itertools import permutations

import numpy as np
import pytest
import torch

from graphmeta.errors import InputError
from graphmeta.inference.shapley import shapley
from graphmeta.published.catalogue import CATALOGUE, RANKING, build
from graphmeta.published.load import load
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log
from tests.catalogue import LOG, made

SESSION, TIMES = ["i1", "i2", "i1"], [2e9, 2e9 + 5, 2e9 + 9]


def trained(name, arguments=None, score_terms=()):
    """A system of weights that are not those of its start."""
    system, _ = made(name, arguments or {}, score_terms)
    for weight in system.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    return system.eval()


def score_of(system, session, item, **given):
    """The score, from the list of all items but one."""
    found = system.recommend_many([session], len(system.items) - 1, unknown="ignore", **given)[0]
    return next((one.score for one in found if one.item == item), None)


@pytest.mark.by_kind
@pytest.mark.parametrize("name", RANKING)
def test_the_parts_add_up_to_the_score(name):
    system, user = trained(name), LOG.users.ids[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = system.recommend(SESSION, 2, user=user, times=TIMES)[1]
        found = system.explain(SESSION, best.item, user=user, times=TIMES)
    assert found.score == pytest.approx(best.score, abs=1e-4)
    assert sum(found.parts.values()) == pytest.approx(found.score, abs=1e-9)
    assert found.without_clicks + sum(one.value for one in found.clicks) == pytest.approx(found.score, abs=1e-9)
    assert [one.id for one in found.clicks] == SESSION and not found.sampled
    if not system.adapts:
        for one in found.clicks:
            assert sum(one.parts.values()) == pytest.approx(one.value, abs=1e-9)
    assert ("adaptation" in found.parts) == system.adapts
    assert (found.without_history is not None) == system.reads_history
    if system.reads_history:
        assert len(found.sessions) == 2
        total = found.without_history + sum(one.value for one in found.sessions)
        assert total == pytest.approx(found.score, abs=1e-9)
    assert best.name in str(found)


@pytest.mark.parametrize("name", ["maml", "cbml", "meta_tl"])
def test_adaptation_is_the_score_after_minus_the_score_before(name):
    system = trained(name)
    item = system.recommend(SESSION, 2)[1].item
    found = system.explain(SESSION, item)
    after, before = (score_of(system, SESSION, item, **steps) for steps in ({}, {"steps": 0}))
    assert found.parts["adaptation"] == pytest.approx(after - before, abs=1e-4)
    assert abs(found.parts["adaptation"]) > 1e-5 or name == "cbml"
    assert system.explain(SESSION, item, steps=0).parts["adaptation"] == pytest.approx(0, abs=1e-9)


def test_clicks_are_the_mean_over_all_orders_of_what_each_adds():
    system = trained("reranker")
    item = system.recommend(SESSION, 2)[1].item
    shares = np.zeros(3)
    values = {}
    for chosen in ([], [0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        session = [SESSION[at] for at in chosen]
        values[frozenset(chosen)] = (
            score_of(system, session, item) if chosen else system.explain(SESSION, item).without_clicks
        )
    for order in permutations(range(3)):
        for at, click in enumerate(order):
            shares[click] += (values[frozenset(order[: at + 1])] - values[frozenset(order[:at])]) / 6
    assert [one.value for one in system.explain(SESSION, item).clicks] == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize("terms", [("cooccurrence",), ("repeat_bias", "cooccurrence", "same_category")])
@pytest.mark.filterwarnings("ignore:co-occurrence counts")
def test_each_score_term_has_its_own_share(terms):
    """By taking it away: a term's part is the score with it minus the score without it."""
    system = trained("niser", score_terms=terms)
    item = system.recommend(SESSION, 3)[2].item
    found = system.explain(SESSION, item)
    assert list(found.parts) == ["product", *system.recommender.head.score_terms]
    for term in system.recommender.head.score_terms:
        other = trained("niser", score_terms=terms)
        other.load_state_dict(system.state_dict())
        del other.recommender.head.score_terms[term]
        without = other.explain(SESSION, item)
        assert found.score - without.score == pytest.approx(found.parts[term], abs=1e-5)
    assert max(abs(value) for name, value in found.parts.items() if name != "product") > 1e-3


@pytest.mark.parametrize("base", ["sr_gnn", "niser"])
def test_attributes_are_products_of_the_query_with_the_vectors_of_the_values(base):
    system = trained("dropout_net", {"base": base})
    found, head = system.explain(SESSION, "i5"), system.recommender.head
    row = LOG.items.ids.tolist().index("i5")
    samples = sessions_without_target([LOG.items.rows_of(np.array(SESSION, dtype=object))])
    states, candidates = system.recommender.encode(batch := session_batch(samples, num_items=len(LOG.items)))
    query, begin = head.query(states, batch)[0], 0
    state = system.recommender.features.state_dict()
    (weight,) = (value for name, value in state.items() if name.endswith("item.weight"))
    unit = candidates[row].norm() if base == "niser" else 1.0
    wanted = {"item": weight[row] @ query / unit}
    for name, values in LOG.items.attributes.items():
        wanted[name] = weight[len(LOG.items) + begin + values.codes[row]] @ query / unit
        begin += values.size
    assert found.attributes == pytest.approx({name: float(value.detach()) for name, value in wanted.items()}, abs=1e-5)
    assert sum(found.attributes.values()) == pytest.approx(found.parts["product"], abs=1e-5)


def test_earlier_sessions_are_what_they_add():
    system, user = trained("personal_reranker"), LOG.users.ids[1]
    item = system.recommend(SESSION, 2, user=user)[1].item
    found = system.explain(SESSION, item, user=user)
    assert found.without_history == pytest.approx(score_of(system, SESSION, item), abs=1e-4)
    alone = system.explain([], item, user=user)
    assert alone.clicks == () and alone.without_clicks == pytest.approx(alone.score, abs=1e-9)


@pytest.mark.parametrize("players", [0, 1, 4, 8, 9, 12])
def test_shapley_values_of_known_games(players):
    """An additive game gives each player its own value; a game of pairs is shared equally."""
    own = np.arange(1.0, players + 1)

    def value(sets):
        return np.array([[sum(own[i] for i in s), len(s) * (len(s) - 1) / 2] for s in map(sorted, sets)]).reshape(-1, 2)

    shares = shapley(players, value)
    assert shares[:, 0] == pytest.approx(own)
    assert shares[:, 1].sum() == pytest.approx(players * (players - 1) / 2)
    # Each order and its reverse: a player is before and after every other once.
    assert shares[:, 1] == pytest.approx([(players - 1) / 2] * players)


def test_long_sessions_are_sampled_and_add_up_all_the_same():
    system = trained("sr_gnn")
    session = [f"i{n % 12}" for n in range(70)]
    found = system.explain(session, "i5")
    assert found.sampled and len(found.clicks) == system.max_length
    assert found.without_clicks + sum(one.value for one in found.clicks) == pytest.approx(found.score, abs=1e-9)
    assert system.explain(session, "i5") == found


def test_explaining_changes_nothing_and_errors_name_the_remedy():
    system = trained("maml")
    before = system.recommend(SESSION, 3)
    system.train()
    system.explain(SESSION, "i5")
    assert system.training and system.eval().recommend(SESSION, 3) == before
    with pytest.raises(InputError, match="item 'I5' is not known to this model; did you mean 'i5'"):
        system.explain(SESSION, "I5")
    with pytest.raises(InputError, match="no known item"):
        system.explain(["new"], "i5", unknown="ignore")
    rating, _ = made(next(name for name, row in CATALOGUE.items() if row.predicts_ratings), {})
    one, other = rating.items.ids[:2].tolist()
    with pytest.raises(InputError, match="rating"):
        rating.explain([one], other)


OF_NEIGHBOURS = ("item_knn", "session_knn", "stan", "tifu_knn", "up_cf")


@pytest.mark.parametrize("name", OF_NEIGHBOURS)
def test_neighbours_are_named_and_add_up_to_the_score(name, tmp_path):
    """Ids of users only of a model that was saved with its histories; sessions by their items."""
    log = fake_log(sessions=90, items=12, length=4)
    system = build(name, log.items, users=log.users)
    system.fit_statistics(log)
    user, session = "u3", log.items.ids[log.item[:3]].tolist()
    item = system.recommend(session, 1, user=user if system.reads_history else None)[0].item
    system.save(tmp_path / "plain")
    system.save(tmp_path / "kept", keep_histories=True)
    found = {}
    for folder in ("plain", "kept"):
        loaded = load(tmp_path / folder)
        given = {"user": user, "history": log} if system.reads_history else {}
        found[folder] = why = loaded.explain(session, item, **given)
        assert 2 <= len(why.neighbours) <= 11 and why.score > 0
        assert sum(one.value for one in why.neighbours) == pytest.approx(why.score, rel=1e-5)
        values = [one.value for one in why.neighbours if not one.name.startswith("(")]
        assert values == sorted(values, reverse=True) and all(one.name in str(why) for one in why.neighbours)
    kinds = {one.kind for one in found["kept"].neighbours}
    users = set(log.users.ids.tolist())
    if name == "item_knn":
        assert kinds == {"item"} and {one.id for one in found["plain"].neighbours} <= set(session)
    elif name in ("session_knn", "stan"):
        first = found["plain"].neighbours[0]
        assert kinds == {"session"} and all(one.id is None for one in found["kept"].neighbours)
        assert first.name.startswith("a session with ") and item in first.name
        sessions = [", ".join(log.items.ids[log.item[a:b]]) for a, b in zip(log.ptr, log.ptr[1:], strict=False)]
        assert first.name.removeprefix("a session with ") in sessions
    else:
        assert kinds == {"user"} and all(one.id is None for one in found["plain"].neighbours)
        assert not any(one.name.startswith("user ") for one in found["plain"].neighbours)
        named = [one for one in found["kept"].neighbours if not one.name.startswith("(")]
        assert named and all(one.id in users and one.name == f"user {one.id}" for one in named)


def test_systems_without_neighbours_name_none():
    assert trained("sr_gnn").explain(["i1"], "i2").neighbours == ()
