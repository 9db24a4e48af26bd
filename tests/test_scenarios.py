"""No rating of a cold person or item, and none that is asked, trains anything."""

import numpy as np
import pandas as pd
import pytest

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.cold_start import (
    Cold,
    ColdStart,
    cold_start,
    late_users,
    random_users,
    rare_items,
    released_from,
)
from graphmeta.sampling.few_shot import RandomQueries, random_queries
from graphmeta.testing import fake_log, fake_ratings

LOG = fake_ratings(users=60, items=50, each=30)
QUERIES = RandomQueries(queries=3, min_events=5, max_events=40)


def cut(share: float = 0.5) -> ColdStart:
    return cold_start(
        LOG, random_users(LOG, 0.25), Cold(LOG.items.ids % 4 == 0, "every fourth"), share=share, queries=QUERIES
    )


def pairs(session: np.ndarray, item: np.ndarray, log: EventLog = LOG) -> set[tuple[int, int]]:
    return set(zip(log.sessions[session].tolist(), log.items.ids[item].tolist(), strict=True))


def test_nothing_of_the_cold_trains() -> None:
    scenario = cut()
    training = scenario.training
    people, items = LOG.sessions[scenario.users.rows], LOG.items.ids[scenario.items.rows]
    assert len(people) == 15 and not np.isin(training.sessions, people).any()
    assert not np.isin(training.items.ids[training.item], items).any()
    assert training.items is LOG.items and training.users is LOG.users
    assert (
        training.num_events + scenario.held_out.sum()
        == (~scenario.users.rows[LOG.session] & ~scenario.items.rows[LOG.item]).sum()
    )


def test_every_scenario_has_its_own_users_and_items() -> None:
    scenario = cut()
    seen = pairs(LOG.session[scenario.seen], LOG.item[scenario.seen])
    cold_people, cold_items = (set(x.tolist()) for x in (LOG.sessions[scenario.users.rows], np.arange(0, 50, 4)))
    names = []
    for one in scenario.scenarios():
        names.append(one.name)
        log = scenario.training if one.trained else LOG
        query, known = (pairs(part.session, part.target, log) for part in (one.tasks.query, one.tasks.support))
        assert query and known and not query & known
        assert one.trained == (query <= seen) and bool(query & seen) == one.trained
        user, item = one.name in ("user cold", "both cold"), one.name in ("item cold", "both cold")
        if one.trained:
            continue
        assert {(p in cold_people, i in cold_items) for p, i in query} == {(user, item)}
        assert known <= seen if one.name == "warm" else not known & seen
        assert set(np.diff(one.tasks.query_ptr)) == {3} and "every fourth" in str(one)
    assert names == ["warm", "user cold", "item cold", "both cold", "warm, as trained"]


def test_the_other_ratings_of_a_held_out_user_are_training_data() -> None:
    scenario = cut()
    warm = next(scenario.scenarios()).tasks
    trained = set(QUERIES(scenario.training).query.session.tolist())
    own = {int(np.flatnonzero(scenario.training.sessions == LOG.sessions[s])[0]) for s in warm.query.session}
    assert 5 < len(own) < 40 and own <= trained


def test_with_nothing_held_out_there_is_no_warm_scenario() -> None:
    scenario = cut(0.0)
    assert not scenario.held_out.any() and "warm" not in [one.name for one in scenario.scenarios()]


def test_ten_ratings_of_a_user_are_queries_the_rest_support() -> None:
    among = LOG.item % 4 != 0
    known, query = random_queries(LOG, among, queries=3, min_events=20, max_events=22, seed=4)
    for s in range(LOG.num_sessions):
        own = (LOG.session == s) & among
        takes_part = 20 <= own.sum() <= 22
        assert (own & query).sum() == 3 * takes_part and (own & known).sum() == (own.sum() - 3) * takes_part
    assert not (query & ~among).any()
    again = random_queries(LOG, among, queries=3, min_events=20, max_events=22, seed=4)[1]
    other = random_queries(LOG, among, queries=3, min_events=20, max_events=22, seed=5)[1]
    assert (again == query).all() and (other != query).any()


def test_rules() -> None:
    frame = pd.DataFrame({"p": [1, 1, 2, 3, 3], "i": ["a", "b", "a", "c", "a"], "t": [0, 9, 2, 7, 8], "r": 1})
    films = pd.DataFrame({"i": ["a", "b", "c"], "year": ["1997", None, "1998"]})
    log = EventLog.read(frame, session="p", item="i", time="t", value="r", items=EntityTable.read(films, key="i"))
    assert released_from(log.items, 1998).rows.tolist() == [i == "c" for i in log.items.ids]
    assert rare_items(log, 1).rows.tolist() == [i != "a" for i in log.items.ids]
    assert log.sessions[late_users(log, 0.5).rows].tolist() == [] and late_users(log, 0.9).rows.sum() == 2
    assert random_users(log, 0.34, seed=1).rows.sum() == 1


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(InputError, match="name the log's column of ratings"):
        cold_start(fake_log(), random_users(fake_log(), 0.5), rare_items(fake_log(), 1))
    every = np.ones(LOG.num_events, dtype=bool)
    with pytest.raises(InputError, match="by warm users of warm items"):
        ColdStart(LOG, random_users(LOG, 0.5), Cold(np.zeros(50, dtype=bool), "none"), every, QUERIES)


MASK, NONE = np.zeros(60, dtype=bool), Cold(np.zeros(50, dtype=bool), "none")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: random_users(LOG, 2.0), "share=2.0 must lie between 0 and 1"),
        (lambda: random_users(LOG, -1), "share=-1 must lie"),
        (lambda: late_users(LOG, 2.0), "share=2.0 must lie"),
        (lambda: late_users(LOG, float("nan")), "share=nan must lie"),
        (lambda: cold_start(LOG, Cold(MASK, "none"), NONE, share=5), "share=5 must lie"),
        (lambda: released_from(LOG.items, 1998), "no attribute 'year'; there are: rate"),
        (lambda: Cold(np.array([3, 7]), "two"), r"rows of int64 \(2,\) are not a mask"),
        (lambda: cold_start(LOG, Cold(MASK[:9], "none"), NONE), "a mask of 9 for 60 sessions"),
        (lambda: cold_start(LOG, Cold(MASK, "none"), Cold(MASK, "none")), "a mask of 60 for 50 items"),
        (lambda: ColdStart(LOG, Cold(MASK[:9], "none"), NONE, MASK, QUERIES), "a mask of 9 for 60 sessions"),
        (lambda: ColdStart(LOG, Cold(MASK, "none"), NONE, MASK, QUERIES), "pass one bool per rating"),
    ],
)
def test_shares_and_masks_that_are_none_are_refused(wrong, told) -> None:
    with pytest.raises(InputError, match=told):
        wrong()


def test_the_support_log_is_the_log_without_the_queries() -> None:
    log = fake_ratings()
    queries = RandomQueries(queries=4, min_events=6, seed=3)
    known, tasks = queries.without_queries(log), queries(log)

    def pairs(session: np.ndarray, item: np.ndarray, value: np.ndarray) -> list[tuple[float, ...]]:
        return sorted(zip(session.tolist(), item.tolist(), value.tolist(), strict=True))

    query, support = (pairs(part.session, part.target, part.value) for part in (tasks.query, tasks.support))
    assert pairs(known.session, known.item, known.value) == support
    assert sorted(support + query) == pairs(log.session, log.item, log.value)
    assert known.num_items == log.num_items and known.num_sessions == log.num_sessions
