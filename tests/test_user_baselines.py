"""The baselines that read users' earlier sessions against plain loops of the papers' formulas, and what they ignore."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.baselines import UPCF, PersonalFrequency, Popularity, TifuKNN, match_repeats
from graphmeta.baselines.user_items import own_items
from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.evaluation.compare import baselines
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.systems import systems
from graphmeta.sampling.samples import Samples, last_clicks, sessions_without_target
from graphmeta.sampling.user_histories import UserHistories

DAY, ITEMS = 86_400.0, 9
MODELS = [PersonalFrequency, TifuKNN, UPCF]
Baskets = dict[str, list[tuple[float, list[int]]]]  # of each user: day and items, by day


def users_of(seed: int, *, users: int = 12, first: float = 0.0) -> Baskets:
    """Users with one to six baskets of distinct items, a day or more apart."""
    generator = np.random.default_rng(seed)
    found: Baskets = {}
    for user in range(users):
        days = first + np.cumsum(generator.integers(1, 4, generator.integers(1, 7)))
        found[f"u{user}"] = [
            (float(day), generator.choice(ITEMS, generator.integers(1, 5), replace=False).tolist()) for day in days
        ]
    return found


def log_of(baskets: Baskets) -> EventLog:
    """One event per item; a basket has one time. Items are numbered as in the baskets."""
    rows = [
        (f"{who}@{day}", item, DAY * day, who) for who, each in baskets.items() for day, items in each for item in items
    ]
    rows = [("all", item, -DAY, "nobody") for item in range(ITEMS)] + sorted(rows, key=lambda row: row[2])
    frame = pd.DataFrame(rows, columns=["session", "item", "time", "user"])
    return EventLog.read(frame, session="session", item="item", user="user", time="time")


@pytest.fixture(params=range(3), scope="module")
def logs(request) -> tuple[Baskets, EventLog, EventLog, Samples]:
    """Training baskets and log, a later log, whose users are in part new, and its samples with earlier sessions."""
    known = users_of(request.param)
    train = log_of(known)
    later = {f"u{int(who[1:]) + 4}": each for who, each in users_of(50 + request.param, first=40.0).items()}
    test = log_of(later).after(0.0).aligned_to(train.items, log_of(later).users)
    samples = UserHistories.of(train, test).attached(last_clicks(test), test)
    assert (samples.earlier.sessions == 0).any() and (samples.earlier.sessions > 2).any()
    return {**known, "nobody": [(-1.0, list(range(ITEMS)))]}, train, test, samples


def empty() -> Samples:
    """One sample without clicks."""
    return sessions_without_target([np.array([], dtype=np.int64)])


def queries(logs) -> list[tuple[list[list[int]], list[float], list[int], str, float]]:
    """Earlier baskets and their days before the query, oldest first, the clicks, the user: by filtering all events."""
    _, train, test, samples = logs
    rows = pd.concat([train.to_frame(), test.to_frame()])
    found = []
    for s in range(len(samples)):
        own = test.session == samples.session[s]
        who, begin = test.users.ids[test.session_user[samples.session[s]]], test.time[own].min()
        before = rows[(rows.user == who) & (rows.time < begin)].sort_values("time", kind="stable")
        grouped = before.groupby("time")["item"]
        items = train.items.rows_of(before["item"].to_numpy())
        baskets = [sorted(set(train.items.rows_of(each.to_numpy()).tolist())) for _, each in grouped]
        assert len(items) == sum(map(len, baskets))
        days = [(begin - at) / DAY for at, _ in grouped]
        found.append((baskets, days, samples.item[samples.begin[s] : samples.end[s]].tolist(), who, begin))
    return found


def numbered(known: Baskets, train: EventLog) -> dict[str, list[list[int]]]:
    """The baskets of each user, as item indices of the log."""
    return {who: [train.items.rows_of(np.array(items)).tolist() for _, items in each] for who, each in known.items()}


def order(scores) -> list[list[int]]:
    """Rank groups: for each item, how many items have a higher score."""
    return [[sum(other > own for other in row) for own in row] for row in scores]


@pytest.mark.covering
@pytest.mark.parametrize(
    "given",
    [{"decay": 1.0}, {}, {"decay": 0.5, "days": 3.0}, {"popular_rest": False}, {"popular_ties": False}],
    ids=str,
)
def test_personal_frequency_is_its_formula(logs, given) -> None:
    _, train, _, samples = logs
    support, options = train.support.tolist(), {"decay": 0.95, "days": None, "popular_rest": True, "popular_ties": True}
    options |= given
    expected = []
    for baskets, days, clicks, *_ in queries(logs):
        total = {i: 1.0 for i in clicks}
        for age, (items, ago) in enumerate(zip(reversed(baskets), reversed(days), strict=True), start=1):
            for i in items:
                weight = options["decay"] ** age * (math.exp(-ago / options["days"]) if options["days"] else 1)
                total[i] = total.get(i, 0) + weight
        keys = [
            (round(total[i], 10), support[i] if options["popular_ties"] else 0)
            if i in total
            else (0, support[i] if options["popular_rest"] else 0)
            for i in range(ITEMS)
        ]
        expected.append([sum(other > own for other in keys) for own in keys])
    assert order(PersonalFrequency(train, **given).scores(samples).tolist()) == expected


def test_personal_frequency_by_hand() -> None:
    train = log_of({"u": [(1.0, [0, 1]), (2.0, [1, 2]), (3.0, [2])]})
    model = PersonalFrequency(train, decay=0.5)
    whole = replace(empty(), earlier=UserHistories.of(train).for_users(["u"]))
    # weights: item 0 1/8, item 1 1/8 + 1/4, item 2 1/4 + 1/2; items 0 … 2 have 2, 3, 3 events, the others 1
    assert model.scores(whole)[0].tolist() == pytest.approx([1, 2, 3] + [1 / 4] * 6)
    assert model.scores(replace(whole, earlier=None))[0].tolist() == pytest.approx([n / 4 for n in [2, 3, 3] + [1] * 6])


def tifu_vector(baskets: list[list[int]], group: int, within: float, between: float) -> list[float]:
    """The groups are cut from the last basket back."""
    left, groups = list(baskets), []
    while left:
        groups.insert(0, left[-group:])
        left = left[:-group]
    vector = [0.0] * ITEMS
    for g, each in enumerate(groups, start=1):
        for b, items in enumerate(each, start=1):
            for i in items:
                vector[i] += between ** (len(groups) - g) * within ** (len(each) - b) / len(each) / len(groups)
    return vector


@pytest.mark.covering
@pytest.mark.parametrize("neighbours", [1, 3, 300])
@pytest.mark.parametrize(
    "given", [{}, {"group": 2, "within": 0.5, "between": 0.6, "alpha": 0.4}, {"group": 1}], ids=str
)
def test_tifu_knn_is_its_formula(logs, neighbours, given) -> None:
    known, train, _, samples = logs
    options = {"group": 7, "within": 0.9, "between": 0.7, "alpha": 0.7} | given
    decays = (options["group"], options["within"], options["between"])
    rows = {who: tifu_vector(each, *decays) for who, each in numbered(known, train).items()}
    expected = []
    for baskets, _, _, who, _ in queries(logs):
        own = tifu_vector(baskets, *decays)
        ids = [other for other in train.users.ids.tolist() if other != who]
        near = sorted(ids, key=lambda n: round(sum((a - b) ** 2 for a, b in zip(own, rows[n], strict=True)), 10))
        near = near[:neighbours]
        mean = [sum(rows[n][i] for n in near) / len(near) for i in range(ITEMS)]
        scores = [options["alpha"] * a + (1 - options["alpha"]) * b for a, b in zip(own, mean, strict=True)]
        popular = [n / (1 + max(train.support)) for n in train.support]
        expected.append(scores if baskets else popular)
    found = TifuKNN(train, neighbours=neighbours, **given).scores(samples)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-6)


@pytest.mark.covering
@pytest.mark.parametrize("neighbours", [None, 2])
@pytest.mark.parametrize(
    "given", [{}, {"recent": 1, "alpha": 0.5, "locality": 1.0}, {"recent": None, "alpha": 1.0}], ids=str
)
def test_up_cf_is_its_formula(logs, neighbours, given) -> None:
    known, train, _, samples = logs
    options = {"recent": 5, "alpha": 0.25, "locality": 5.0} | given

    def share(baskets: list[list[int]], i: int) -> float:
        last = baskets if options["recent"] is None else baskets[-options["recent"] :]
        return sum(i in items for items in last) / len(last)

    rows = numbered(known, train)
    expected = []
    for baskets, _, _, who, _ in queries(logs):
        own = set().union(*baskets)
        similar = {}
        for other in train.users.ids.tolist():
            items = set().union(*rows[other])
            if other != who and own & items:
                size = len(own) ** options["alpha"] * len(items) ** (1 - options["alpha"])
                similar[other] = len(own & items) / size
        near = sorted(similar, key=lambda n: -round(similar[n], 10))[:neighbours]
        if baskets:
            votes = [sum(similar[n] ** options["locality"] * share(rows[n], i) for n in near) for i in range(ITEMS)]
            expected.append([share(baskets, i) + votes[i] for i in range(ITEMS)])
        else:
            expected.append([n / (1 + max(train.support)) for n in train.support])
    found = UPCF(train, neighbours=neighbours, **given).scores(samples)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-6)


@pytest.mark.covering
@pytest.mark.parametrize("build", MODELS)
def test_a_row_depends_on_its_sample_only(logs, build, monkeypatch) -> None:
    _, train, _, samples = logs
    model = build(train)
    together = model.scores(samples)
    assert together.shape == (len(samples), train.num_items) and together.dtype == torch.float32
    rows = np.random.default_rng(0).permutation(len(samples))
    assert torch.equal(model.scores(samples.take(rows)), together[torch.from_numpy(rows)])
    assert torch.equal(torch.cat([model.scores(samples.take(slice(s, s + 1))) for s in range(len(samples))]), together)
    monkeypatch.setattr("graphmeta.baselines.user_items._TERMS_AT_ONCE", 50)
    assert torch.equal(model.scores(samples), together)
    model.scores(samples).fill_(torch.nan)
    assert torch.equal(model.scores(samples), together)


@pytest.mark.covering
@pytest.mark.parametrize("build", MODELS)
def test_later_sessions_and_other_users_do_not_reach_a_users_row(logs, build) -> None:
    """The rest of the query's session, a later session of the user, and the test sessions of all others."""
    _, train, test, samples = logs
    model, asked = build(train), int(np.argmax(samples.earlier.sessions > 1))
    whole, session = test.to_frame(), samples.session[asked]
    who, begin = test.users.ids[test.session_user[session]], test.starts[session]
    own = (whole.user == who) & (whole.time < begin)
    query = whole.session == test.sessions[session]
    changed = whole.copy()
    swap = ~own & ~query
    changed.loc[swap, "item"] = (changed.loc[swap, "item"] + 1) % ITEMS
    last = query & ~query.duplicated(keep="last")
    changed.loc[last, "item"] = min(set(range(ITEMS)) - set(whole.item[query]))
    other = EventLog.read(changed, session="session", item="item", user="user", time="time")
    other = other.aligned_to(train.items, other.users)
    again = UserHistories.of(train, other).attached(last_clicks(other), other)
    row = other.sessions[again.session].tolist().index(test.sessions[session])
    assert torch.equal(model.scores(again.take([row])), model.scores(samples.take([asked])))


@pytest.mark.covering
@pytest.mark.parametrize("build", MODELS)
def test_evaluate_attaches_the_sessions_of_training_and_test_log(logs, build) -> None:
    _, train, test, samples = logs
    model = match_repeats(train, build(train))
    assert model.reads_history and model.histories is not None
    attached, given = (evaluate(model, one, ks=(3,)) for one in (test, samples))
    assert torch.equal(attached.ranks, given.ranks)
    assert attached.slices["known sessions"] == given.slices["known sessions"]


@pytest.mark.covering
@pytest.mark.parametrize("build", MODELS)
def test_without_users_or_sessions_it_is_popularity(logs, build) -> None:
    _, train, test, samples = logs
    anonymous = train.aligned_to(train.items)
    for model, given in ((build(anonymous), empty()), (build(train), empty())):
        assert order(model.scores(given).tolist()) == order(Popularity(train).scores(given).tolist())
    nothing = train.before(-2 * DAY).aligned_to(train.items, train.users)
    assert build(nothing).scores(empty()).tolist() == [[0] * ITEMS]
    assert build(train).scores(samples.take(slice(0, 0))).shape == (0, ITEMS)


@pytest.mark.covering
@pytest.mark.parametrize("build", MODELS)
def test_sessions_with_other_item_indices_are_refused(logs, build) -> None:
    _, train, test, samples = logs
    with pytest.raises(InputError, match="earlier sessions have other item indices.*align"):
        build(train.before(3 * DAY).aligned_to(train.items.take(np.arange(4)), train.users)).scores(samples)


@pytest.mark.covering
@pytest.mark.parametrize(
    ("build", "given"),
    [
        *((PersonalFrequency, {"decay": value}) for value in (0.0, 1.1, math.nan)),
        (PersonalFrequency, {"days": 0.0}),
        *((TifuKNN, {name: 0}) for name in ("neighbours", "group", "within", "between")),
        (TifuKNN, {"alpha": 1.5}),
        *((UPCF, {name: 0}) for name in ("neighbours", "recent", "locality")),
        (UPCF, {"alpha": -0.1}),
    ],
)
def test_settings_outside_their_range_are_refused(logs, build, given) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        build(logs[1], **given)


def test_the_items_of_a_session_count_once(logs) -> None:
    _, train, *_ = logs
    twice = replace(train, **{name: np.repeat(getattr(train, name), 2) for name in ("session", "item", "time")})
    first, second = (
        own_items(replace(empty(), earlier=UserHistories.of(log).for_users(["u5"])), train.items)
        for log in (train, twice)
    )
    for name in ("row", "item", "age", "days", "sessions"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_they_are_listed_and_compared_where_the_log_has_users(logs) -> None:
    train = logs[1]
    names = {row.name for row in systems()}
    assert {"personal_frequency", "tifu_knn", "up_cf"} <= names
    plain = {"popularity", "session_knn", "stan"}
    assert baselines(train).keys() == plain == baselines(train, train.aligned_to(train.items)).keys()
    assert baselines(train, train).keys() == plain | {"personal_frequency", "tifu_knn", "up_cf"}
