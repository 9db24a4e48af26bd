"""Filters are exact, equal scores have one order, and a session of which nothing is known gets popular items."""

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.inference.filters import Filters
from graphmeta.published.catalogue import TRAINED
from graphmeta.published.load import load
from graphmeta.sampling.best import top
from graphmeta.storage import load_state, save_state
from graphmeta.storage.versions import current
from graphmeta.testing import fake_log
from tests.catalogue import made

LOG = fake_log(sessions=60, items=20)
IDS = LOG.items.ids.tolist()


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    system = gm.build("sr_gnn", LOG.items, width=8).eval()
    system.fit_statistics(LOG)
    return system


def naive(system, session, k, *, among=None, exclude=(), seen=False):
    """Sort all items that may be recommended."""
    every = {one.item: one.score for one in system.recommend(session, k=len(IDS) - 1)}
    lost = set(IDS) - every.keys()  # recommend never has the last item
    allowed = set(IDS if among is None else among) - set(exclude) - (set(session) if seen else set())
    return sorted(allowed - lost, key=lambda item: -every[item])[:k], lost


@pytest.mark.parametrize("seed", range(8))
def test_filters_give_what_a_loop_over_all_items_gives(system, seed):
    random = np.random.default_rng(seed)
    session = random.choice(IDS, 3).tolist()
    among = random.choice(IDS, random.integers(1, 15), replace=False).tolist() if seed % 2 else None
    exclude = random.choice(IDS, random.integers(0, 8), replace=False).tolist()
    seen, k = bool(seed % 3), int(random.integers(1, 12))
    found = [one.item for one in system.recommend(session, k, among=among, exclude=exclude, exclude_seen=seen)]
    wanted, lost = naive(system, session, k, among=among, exclude=exclude, seen=seen)
    assert [item for item in found if item not in lost] == wanted[: len(found) - len(lost & set(found))]
    assert len(found) == min(k, len(set(IDS if among is None else among) - set(exclude) - set(session if seen else [])))
    mask = np.isin(LOG.items.ids, IDS if among is None else among)
    assert found == [
        one.item
        for one in system.recommend(
            session, k, among=mask, exclude=torch.from_numpy(np.isin(IDS, exclude)), exclude_seen=seen
        )
    ]


def test_values_of_columns_are_alternatives_and_columns_hold_together(system):
    one, two = LOG.items.attributes["category"], LOG.items.attributes["brand"]
    of = [(one.values[a], two.values[b]) for a, b in zip(one.codes, two.codes, strict=True)]
    categories, brand = list(dict.fromkeys(a for a, _ in of))[:2], of[0][1]
    chosen = {"category": categories, "brand": brand}
    wanted = {item for item, (a, b) in zip(IDS, of, strict=True) if a in categories and b == brand}
    assert {one.item for one in system.recommend(["i1"], 19, among=chosen)} == wanted
    rest = {one.item for one in system.recommend(["i1"], 19, exclude=chosen)}
    assert rest == set(IDS) - wanted


def test_an_item_with_several_values_has_each_of_them():
    frame = pd.DataFrame({"i": ["a", "b", "c"], "genre": ["x|y", "y", None]})
    table = EntityTable.read(frame, key="i", several={"genre": "|"})
    assert Filters(among={"genre": "x"}).allowed(table).tolist() == [True, False, False]
    assert Filters(exclude={"genre": ["y"]}).allowed(table).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"among": "i1"}, r"is one id, not several; pass a list of item ids: \['i1'\]"),
        ({"among": ["nope"]}, "no item that is known to this model"),
        ({"exclude": np.ones(3, dtype=bool)}, r"a mask of the shape \(3,\), and the model has 20 items"),
        ({"among": {"Brnd": "x"}}, "no categorical column 'Brnd'; did you mean 'brand'"),
        ({"among": {"brand": "nope"}}, "no item has brand='nope'"),
    ],
)
@pytest.mark.filterwarnings("ignore:among")
def test_errors_name_the_filter_and_the_remedy(system, filters, message):
    with pytest.raises(InputError, match=message):
        system.recommend(["i1"], 3, **filters)


def test_unknown_ids_of_a_filter_are_named_in_a_warning(system):
    with pytest.warns(UserWarning, match="among: 2 of 3 ids unknown to this model.* first: 'new'") as caught:
        assert [one.item for one in system.recommend(["i1"], 3, among=["i4", "new", "newer"])] == ["i4"]
    assert len(caught) == 1


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_best_of_equal_scores_are_the_first_columns(k):
    scores = torch.randint(0, 3, (40, 9), generator=torch.Generator().manual_seed(0)).float()
    scores[0] = 1.0
    columns, values = top(scores, k)
    for row, (found, value) in enumerate(zip(columns.tolist(), values.tolist(), strict=True)):
        wanted = sorted(range(9), key=lambda column: (-scores[row, column], column))[:k]
        assert found == wanted and value == scores[row, wanted].tolist()


# sessions of which nothing is known


def test_unknown_sessions_among_many_have_popular_items_by_the_training_events(system):
    sessions = [["i1", "i2"], ["new"], [], ["i3", "new"]]
    found = system.recommend_many(sessions, 4, unknown="ignore", exclude=["i2"])
    events = {item: int((LOG.item == row).sum()) for row, item in enumerate(IDS) if item != "i2"}
    wanted = sorted(events, key=lambda item: (-events[item], IDS.index(item)))[:4]
    for row in (1, 2):
        assert [(one.item, one.score, one.why) for one in found[row]] == [
            (item, events[item], "popular") for item in wanted
        ]
    assert {one.why for one in found[0] + found[3]} == {"model"}
    alone = system.recommend(["i3"], 4, exclude=["i2"])
    assert [one.item for one in found[3]] == [one.item for one in alone]
    with pytest.raises(InputError, match="session 1: item 'new' is not known"):
        system.recommend_many(sessions, 4)


def test_counts_are_saved_loaded_extended_and_taken_from_the_training_sequences_of_older_models(system, tmp_path):
    system.save(tmp_path)
    wanted = system.recommend([], 3, unknown="ignore")
    assert load(tmp_path).recommend([], 3, unknown="ignore") == wanted
    place = current(tmp_path)
    tensors, document = load_state(place, "model")
    del document["events"]
    save_state(place, "model", tensors, document)
    with pytest.raises(InputError, match="no known item"):
        load(tmp_path).recommend([], 3, unknown="ignore")
    assert load(tmp_path).recommend_many([["new"]], 3, unknown="ignore") == [[]]
    sequences = {"item": torch.from_numpy(LOG.item.astype(np.int32)), "ptr": torch.from_numpy(LOG.ptr)}
    save_state(place, "history", sequences, {})
    assert load(tmp_path).recommend([], 3, unknown="ignore") == wanted
    for damaged in ([1.5] * 20, [1] * 19, "many", [-1] * 20):
        save_state(place, "model", tensors, document | {"events": damaged})
        with pytest.raises(InputError, match="numbers of training events are damaged"):
            load(tmp_path)


def test_a_session_that_is_known_by_attributes_alone_is_flagged():
    system, _ = made("dropout_net", {})
    new = EntityTable(
        np.array(["n1"], dtype=object), {k: v.take(np.array([1])) for k, v in system.items.columns.items()}
    )
    more = system.eval().extended(new)
    assert {one.why for one in more.recommend(["n1"], 5)} == {"attributes"}
    assert {one.why for one in more.recommend(["n1", "i1"], 5)} == {"model"}
    assert [one.why for one in more.recommend(["?"], 12, unknown="ignore")] == ["popular"] * 12


def test_no_user_is_no_id():
    frame = pd.DataFrame({"s": [1, 1, 2, 2], "i": ["a", "b", "b", "c"], "u": ["None", "None", "x", "x"]})
    with pytest.warns(UserWarning, match="looks like a missing value"):
        log = gm.EventLog.read(frame, session="s", item="i", user="u")
    assert log.users.rows_of(np.array([None, "None", "x"], dtype=object)).tolist() == [-1, 0, 1]


# similar items


@pytest.mark.by_kind
@pytest.mark.parametrize("name", TRAINED)
def test_similar_items_are_those_of_the_largest_cosine(name):
    system, _ = made(name, {})
    head, (_, table) = system.recommender.head, system.eval().recommender.features(torch.tensor([0]))
    biases = getattr(head, "bias", False)
    vectors = table.detach().double().numpy()[:, : table.shape[1] - biases]
    row = int(np.argmax(np.abs(vectors).sum(1)))
    item = system.items.ids[row]
    cosine = [v @ vectors[row] / np.linalg.norm(v) / np.linalg.norm(vectors[row]) if v.any() else 0 for v in vectors]
    cosine[row] = -np.inf
    wanted = np.argsort(-np.array(cosine), kind="stable")[:4]
    found = system.similar(item, 4)
    assert [one.score for one in found] == pytest.approx(np.array(cosine)[wanted], abs=1e-5)
    assert [one.item for one in found] == system.items.ids[wanted].tolist()
    assert found[0].why == "similar"
    allowed = system.items.ids[wanted[1:]].tolist()
    assert [one.item for one in system.similar(item, 9, among=allowed)] == allowed


def test_similar_items_of_none_are_refused(system):
    with pytest.raises(InputError, match="item 'I1' is not known to this model; did you mean 'i1'?"):
        system.similar("I1")
    with torch.no_grad():
        zero = gm.build("sr_gnn", LOG.items, width=4)
        zero.recommender.features.item.weight[IDS.index("i3")] = 0
    with pytest.raises(InputError, match="has the zero vector"):
        zero.similar("i3")
