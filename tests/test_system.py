"""A system recommends in original ids for anybody, and survives saving byte for byte."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Last
from graphmeta.published.catalogue import CATALOGUE, RANKING, TRAINED, build
from graphmeta.published.load import load
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import last_clicks, sessions_without_target
from graphmeta.storage import load_state, save_state, state_hash
from graphmeta.storage.versions import current
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from tests.catalogue import sized

LOG = fake_log(sessions=120)


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    system = build("maml", LOG.items, width=8, base="sr_gnn")
    list(train(system, LOG, epochs=10, optimizer=Adam(lr=3e-2), batch_size=20))
    return system


def test_recommends_in_original_ids(system):
    best = system.recommend(["i3", "i4", "i5"], k=3)
    assert best[0].item == "i6" and len(best) == 3
    assert [r.score for r in best] == sorted((r.score for r in best), reverse=True)


def test_one_and_many_agree(system):
    sessions = [["i3"], ["i1", "i2", "i3", "i4"], ["i9", "i9"]]
    many = system.recommend_many(sessions, k=5)
    for session, row in zip(sessions, many, strict=True):
        alone = system.recommend(session, k=5)
        assert [r.item for r in alone] == [r.item for r in row]
        assert [r.score for r in alone] == pytest.approx([r.score for r in row], abs=1e-5)


def test_recommending_changes_nothing(system):
    before, first = state_hash(system), system.recommend(["i3", "i4", "i5"])
    system.recommend(["i9", "i1"])
    assert system.recommend(["i3", "i4", "i5"]) == first and state_hash(system) == before


def test_integer_ids_come_back_as_integers():
    frame = pd.DataFrame({"s": np.repeat(np.arange(30), 4), "i": np.tile(np.arange(12), 10) + 100})
    log = EventLog.read(frame, session="s", item="i")
    best = build("sr_gnn", log.items, width=4).recommend([100, 101], k=2)
    assert all(type(r.item) is int for r in best)
    json.dumps([vars(r) for r in best])


def test_exclude_seen(system):
    session = ["i3", "i4", "i5"]
    assert not {r.item for r in system.recommend(session, k=30, exclude_seen=True)} & set(session)


def test_unknown_items(system):
    with pytest.raises(InputError, match="'nope' is not known.*unknown='ignore'"):
        system.recommend(["i3", "nope"])
    with pytest.warns(UserWarning, match="skipped: 1 unknown item, the first 'nope'"):
        warned = system.recommend(["i3", "nope"], unknown="warn")
    assert warned == system.recommend(["i3", "nope"], unknown="ignore") == system.recommend(["i3"])
    with pytest.raises(InputError, match="'nope' is not known"):
        system.recommend(["nope"])
    assert {one.why for one in system.recommend(["nope"], unknown="ignore")} == {"popular"}
    with pytest.raises(InputError, match="must be raise, warn or ignore"):
        system.recommend(["i3"], unknown="perhaps")


def test_seen_items_are_left_out_even_if_fewer_than_k_remain(system):
    seen = [f"i{n}" for n in range(35)]
    assert {r.item for r in system.recommend(seen, k=20, exclude_seen=True)} == {f"i{n}" for n in range(35, 40)}


def test_no_session_no_answer_and_no_nonsense(system):
    assert system.recommend_many([]) == []
    broken = build("sr_gnn", LOG.items, width=4)
    torch.nn.init.constant_(broken.recommender.features.item.weight, torch.nan)
    with pytest.raises(InputError, match="not finite"):
        broken.recommend(["i1"])


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_k_must_be_a_whole_number_from_one(system, k):
    with pytest.raises(InputError, match=f"k={k} must be a whole number, 1 or more"):
        system.recommend(["i3"], k=k)


@pytest.mark.parametrize("k", [40, 99])
def test_more_recommendations_than_items_are_all_items(system, k):
    assert system.recommend(["i3"], k=k)[:39] == system.recommend(["i3"], k=39)
    assert {one.item for one in system.recommend(["i3"], k=k)} == set(LOG.items.ids)
    assert len(system.recommend(["i3"], k=k, exclude_seen=True)) == 39
    assert [len(found) for found in system.recommend_many([["i3"], ["i4", "i5"]], k=k)] == [40, 40]


@pytest.mark.by_kind  # tests/test_state.py saves and loads every system
@pytest.mark.parametrize("name", RANKING)
def test_saved_is_loaded(name, tmp_path):
    torch.manual_seed(0)
    system = build(name, LOG.items, users=LOG.users, **sized(name, 6))
    system.notes["why"] = "test"
    if not system.has_weights:
        system.fit_statistics(LOG)
    system.save(tmp_path)
    again = load(tmp_path)
    assert state_hash(again) == state_hash(system) and again.notes == {"why": "test"}
    samples = last_clicks(LOG)
    assert torch.equal(again.scores(samples), system.scores(samples))
    assert again.items.ids.tolist() == LOG.items.ids.tolist()


def test_maml_around_another_base_is_saved(tmp_path):
    for base in ("if_san", "hetero_gnn"):
        system = build("maml", LOG.items, width=6, base=base)
        system.save(tmp_path)
        assert state_hash(load(tmp_path)) == state_hash(system)
    with pytest.raises(InputError, match="no system is called 'sr_gnm'"):
        build("maml", LOG.items, base="sr_gnm")


def test_models_of_the_first_format_still_load(tmp_path):
    system = build("sr_gnn", LOG.items, width=6)
    system.save(tmp_path)
    tensors, document = load_state(current(tmp_path), "model")
    del document["users"]
    document["recipe"] = document.pop("spec")
    save_state(current(tmp_path), "model", tensors, {**document, "format": 1})
    assert load(tmp_path).users is None
    save_state(current(tmp_path), "model", tensors, {**document, "format": 99})
    with pytest.raises(InputError, match="update graphmeta"):
        load(tmp_path)


def test_users_are_saved_and_read_by_their_own_ids(tmp_path):
    torch.manual_seed(0)
    system = build("bpr_mf", LOG.items, users=LOG.users, width=6).eval()
    for weight in system.parameters():  # untrained, all biases are zero
        weight.data.add_(0.1 * torch.randn_like(weight))
    session, user = [LOG.items.ids[0]], LOG.users.ids[3]
    wanted = system.recommend(session, k=5, user=user)
    system.save(tmp_path)
    again = load(tmp_path).eval()
    assert again.recommend(session, k=5, user=user) == wanted
    assert again.recommend(session, k=5, user="nobody") == again.recommend(session, k=5)
    assert wanted != again.recommend(session, k=5)
    with pytest.raises(InputError, match="one user per session"):
        again.recommend_many([session], k=5, users=[user, user])
    with pytest.raises(InputError, match="needs users"):
        build("bpr_mf", LOG.items)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    system = build("sr_gnn", LOG.items, width=4)
    system.notes["bad"] = float("nan")
    with pytest.raises(ValueError):
        system.save(tmp_path)
    assert not list(tmp_path.iterdir())


def own(items):
    return System(Recommender(ItemFeatures(len(items), 4), GatedSessionGraph(4), Dot(Last())), items)


def test_a_system_of_ones_own_needs_its_builder(tmp_path):
    system = own(LOG.items)
    system.save(tmp_path)
    with pytest.raises(InputError, match="pass build="):
        load(tmp_path)
    assert state_hash(load(tmp_path, build=own)) == state_hash(system)
    with pytest.raises(InputError, match="do not fit"):
        load(tmp_path, build=lambda items: build("if_san", items, width=4))


def test_unknown_system_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'sr_gnn'"):
        build("srgnn", LOG.items)


LONG = pytest.param("meta_tl", marks=pytest.mark.slow)


@pytest.mark.filterwarnings("ignore:.*statistics_log=")
@pytest.mark.by_kind  # tests/published/test_catalogue.py trains every system on the bundled dataset
@pytest.mark.parametrize("name", [LONG if name == "meta_tl" else name for name in TRAINED])
def test_every_system_trains(name):
    torch.manual_seed(0)
    system = build(name, LOG.items, users=LOG.users, width=8)
    if CATALOGUE[name].encoder == "bpr_fold_in":  # frozen factors: on random ones there is nothing to learn
        plain = build("bpr_fold_in", LOG.items, users=LOG.users, width=8)
        list(train(plain, LOG, epochs=8, optimizer=Adam(lr=5e-2), batch_size=100))
        system.load_matching(plain)
    epochs = 12 if name == "meta_tl" else 3  # translations stand still before they part
    history = list(train(system, LOG, epochs=epochs, optimizer=Adam(lr=1e-2), batch_size=30))
    assert history[-1].loss < history[0].loss


def test_times_are_required_and_must_not_decrease():
    torch.manual_seed(0)
    system = build("asars_time_cat", LOG.items, width=4, hidden=5, time_width=2).eval()
    system.fit_statistics(LOG)
    clicks = [LOG.items.ids[n] for n in (0, 3)]
    with pytest.warns(UserWarning, match="pass the click times"):
        alone = system.recommend(clicks[:1], k=5)
    assert [r.score for r in alone] == [r.score for r in system.recommend(clicks[:1], k=5, times=[7.0])]
    for bad in ([5.0, 4.0], [1.0, float("nan")]):
        with pytest.raises(InputError, match="do not decrease"):
            system.recommend(clicks, k=5, times=bad)


def test_a_session_longer_than_the_system_reads_counts_with_its_last_clicks(system):
    long = np.random.default_rng(0).integers(0, LOG.num_items, 80)
    whole, tail = (
        system.scores(sessions_without_target([part], max_length=200)) for part in (long, long[-system.max_length :])
    )
    assert torch.equal(whole, tail)


def test_maml_keeps_the_users_and_limits_of_its_base():
    for base in ("bpr_mf", "caser", "asars_user_cat"):
        inner = build(base, LOG.items, users=LOG.users, width=6)
        outer = build("maml", LOG.items, users=LOG.users, width=6, base=base)
        assert outer.users is LOG.users and outer.max_length == inner.max_length
        assert torch.isfinite(outer.losses(last_clicks(LOG, min_length=3).take(slice(0, 4)))).all()
    with pytest.raises(InputError, match="needs users"):
        build("maml", LOG.items, width=6, base="bpr_mf")


def test_a_larger_weight_takes_the_others_as_its_leading_block():
    base, system = build("sr_gnn", LOG.items, width=5), build("cbml", LOG.items, width=5, base="sr_gnn")
    copied = system.load_matching(base)
    ours, theirs = system.recommender.state_dict(), base.recommender.state_dict()
    assert set(copied) == set(ours) & set(theirs)
    (wider,) = [name for name in copied if ours[name].shape != theirs[name].shape]
    rows, columns = theirs[wider].shape
    assert torch.equal(ours[wider][:rows, :columns], theirs[wider])
    assert rows == len(ours[wider]) and not ours[wider][:, columns:].any()


OTHERS = fake_log(sessions=12).users


def strangers(name, log=LOG, **arguments):
    return build(name, log.items, users=log.users, **arguments)


@pytest.mark.parametrize(
    ("system", "other", "fixed", "told"),
    [
        (strangers("sr_gnn"), strangers("sr_gnn", fake_log(items=41)), False, "has other items"),
        (strangers("bpr_mf"), build("bpr_mf", LOG.items, users=OTHERS), False, "has other users"),
        (
            strangers("sr_gnn", width=5),
            strangers("sr_gnn", width=6),
            False,
            r"\(40, 6\) in the other system and \(40, 5\) here",
        ),
        (
            strangers("sr_gnn", width=5),
            strangers("cbml", base="sr_gnn", width=5),
            False,
            "in the other system and .* here; build",
        ),
        (strangers("sr_gnn"), strangers("sr_gnn"), True, "that are frozen here"),
    ],
)
def test_what_it_cannot_start_from_is_refused_and_nothing_is_copied(system, other, fixed, told):
    before = state_hash(system)
    with pytest.raises(InputError, match=told):
        system.load_matching(other, frozen_only=fixed)
    assert state_hash(system) == before


def test_adaptation_starts_from_the_factors_of_training_users():
    assert build("meta_cf_g", LOG.items).load_matching(build("bpr_fold_in", LOG.items, users=OTHERS))


def test_what_was_counted_is_copied_whole_or_not_at_all():
    base, system = (build("cluster_seq", LOG.items, width=4, graph=4, code=3, clusters=2) for _ in range(2))
    base.fit_statistics(LOG)
    assert "features.edges" not in system.load_matching(base)
    system.fit_statistics(LOG)
    base.recommender.features.edges.zero_()
    assert "features.edges" in system.load_matching(base)
    assert not system.recommender.features.edges.any()


def test_what_it_starts_from_includes_single_numbers():
    base, system = (build("asars_time_cat", LOG.items, width=4, hidden=5, time_width=2) for _ in range(2))
    base.fit_statistics(LOG)
    system.load_matching(base)
    ours, theirs = system.recommender.state_dict(), base.recommender.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_attribute_names_may_have_dots():
    table = EntityTable(LOG.items.ids, {"price.band": LOG.items.attributes["category"]})
    for name in ("if_san", "hetero_gnn"):
        assert build(name, table, width=4).recommender.state_dict()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("gru4rec", {"cell": "rnn"}),
        ("gru4rec", {"loss": "l2"}),
        ("wavenet", {"gated": False}),
        ("hetero_gnn", {"messages": "attention", "width": 5}),
        ("asars_time_cat", {"loss": "hinge_max"}),
        ("sr_gnn", {"depth": 3}),
    ],
)
def test_options_that_do_not_exist_are_named(name, arguments):
    with pytest.raises(InputError):
        build(name, LOG.items, **arguments)


@pytest.mark.parametrize("session", ["i3", b"i3", 3, np.str_("i3")])
def test_one_id_is_no_session(system, session):
    with pytest.raises(InputError, match=r"is one id, not a session; pass a list of item ids: \["):
        system.recommend(session)
    with pytest.raises(InputError, match="session 1: .* is one id, not a session"):
        system.recommend_many([["i3"], session])


def test_numbers_of_numpy_and_whole_floats_are_read_as_a_log_reads_them():
    frame = pd.DataFrame({"s": np.repeat(np.arange(30), 4), "i": np.tile(np.arange(12), 10)})
    log = EventLog.read(frame, session="s", item="i")
    system = build("sr_gnn", log.items, width=4)
    wanted = system.recommend([1, 2], 2)
    for session in ([1.0, 2.0], np.array([1, 2]), np.array([1.0, 2.0]), (np.int32(1), np.float32(2))):
        assert system.recommend(session, np.int64(2)) == wanted
    with pytest.raises(InputError, match="1.5 is not known"):
        system.recommend([1.5], 2)
    with pytest.raises(InputError, match="k=True"):
        system.recommend([1], True)
