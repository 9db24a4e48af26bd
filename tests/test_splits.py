"""Training never knows what it may not, and no session is in two parts."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmeta.data.events import EventLog
from graphmeta.data.splits import (
    Split,
    last_sessions,
    split_at,
    split_by_item,
    split_by_time,
    split_by_user,
    split_users,
)
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.testing import fake_log


def log_of(events: list[tuple[int, int, int]], items: int = 30) -> EventLog:
    frame = pd.DataFrame(events, columns=["s", "i", "t"]).drop_duplicates().assign(u=lambda f: f["s"] % 5)
    table = EntityTable.read(pd.DataFrame({"i": range(items), "brand": [f"b{i % 3}" for i in range(items)]}), key="i")
    return EventLog.read(frame, session="s", item="i", time="t", user="u", items=table)


def regular(sessions: int = 40) -> EventLog:
    """Session s clicks items s % 10 … s % 10 + 2 from second 10 s on; every fourth lasts into the next two."""
    return log_of(
        [(s, (s + k) % 10, 10 * s + k * (10 if s % 4 == 0 else 1)) for s in range(sessions) for k in range(3)]
    )


def events(log: EventLog) -> set[tuple[int, int, float]]:
    return set(zip(log.sessions[log.session].tolist(), log.items.ids[log.item].tolist(), log.time, strict=True))


def parts(split: Split) -> tuple[EventLog, EventLog, EventLog]:
    return split.train, split.valid, split.test


def assert_whole(split: Split, log: EventLog) -> None:
    """No session is in two parts, nothing is made up, and all parts count items alike."""
    names = [set(part.sessions.tolist()) for part in parts(split)]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert all(events(part) <= events(log) for part in parts(split))
    assert split.valid.items is split.test.items and len(split.train.items) == len(split.test.items)
    assert split.train.items.ids.tolist() == split.test.items.ids.tolist()


# By time


def test_shares_and_cuts_by_time() -> None:
    log = regular()
    split = split_by_time(log, test=0.1, valid=0.2)
    assert (split.valid_from, split.test_from) == (280, 360)
    assert [part.sessions.tolist() for part in parts(split)] == [
        list(range(28)), list(range(28, 36)), list(range(36, 40))
    ]  # fmt: skip
    assert_whole(split, log)


def test_a_session_that_runs_across_a_cut_keeps_what_came_before() -> None:
    log = log_of(
        [(0, 0, 0), (1, 1, 10), (2, 2, 20), (1, 2, 25), (0, 1, 45), (2, 0, 46), (3, 0, 50), (3, 1, 51), (4, 2, 60)]
    )
    split = split_at(log, 15, 50)
    assert events(split.train) == {(0, 0, 0), (1, 1, 10)}
    assert split.unknown == 2  # item 2, clicked at 20 in session 2 and at 60 in session 4, is news to training
    assert events(split.valid) == {(2, 0, 46)}
    assert events(split.test) == {(3, 0, 50), (3, 1, 51)}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6), st.integers(0, 40)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.1, 0.4]),
)
def test_by_time_against_a_plain_loop(rows: list, test: float, valid: float) -> None:
    log = log_of(rows)
    starts = sorted(min(t for s, _, t in rows if s == session) for session in {s for s, *_ in rows})
    n_test, n_valid = round(len(starts) * test), round(len(starts) * valid)
    if n_test + n_valid >= len(starts) or (test and not n_test) or (valid and not n_valid):
        with pytest.raises(InputError, match=f"too few sessions, {len(starts)}, for"):
            split_by_time(log, test=test, valid=valid)
        return
    test_from = starts[-n_test] if n_test else np.inf
    valid_from = starts[-n_test - n_valid] if n_valid else test_from
    if valid_from == starts[0] or (n_valid and valid_from == test_from):
        with pytest.raises(InputError, match="no event lies before|so many sessions begin at one time"):
            split_by_time(log, test=test, valid=valid)
        return
    split = split_by_time(log, test=test, valid=valid)
    begin = {session: min(t for s, _, t in rows if s == session) for session, *_ in rows}
    known = {i for _, i, t in rows if t < valid_from}
    assert events(split.train) == {row for row in rows if row[2] < valid_from}
    middle = {row for row in rows if valid_from <= begin[row[0]] and row[2] < test_from}
    late = {row for row in rows if begin[row[0]] >= test_from}
    assert events(split.valid) == {row for row in middle if row[1] in known}
    assert events(split.test) == {row for row in late if row[1] in known}
    assert split.unknown == sum(row[1] not in known for row in middle | late)
    assert set(split.train.items.ids.tolist()) == known
    assert_whole(split, log)


def test_no_share_no_part() -> None:
    split = split_by_time(regular(), test=0.0, valid=0.0)
    assert (split.train.num_sessions, split.valid.num_events, split.test.num_events) == (40, 0, 0)
    split = split_by_time(regular(), test=0.25, valid=0.0)
    assert split.valid_from == split.test_from == 300 and split.valid.num_events == 0


@pytest.mark.parametrize(("test", "valid"), [(1.0, 0.0), (0.5, 0.5), (-0.1, 0.1), (0.1, 1.5), (float("nan"), 0.1)])
@pytest.mark.parametrize("how", [split_by_time, split_by_user, split_by_item])
def test_shares_that_leave_no_training_are_refused(how, test: float, valid: float) -> None:
    with pytest.raises(InputError, match="must be in"):
        how(regular(), test=test, valid=valid)


@pytest.mark.parametrize(
    ("how", "things"), [(split_by_time, "sessions"), (split_by_user, "users"), (split_by_item, "items")]
)
def test_a_log_too_small_to_cut_is_refused(how, things: str) -> None:
    with pytest.raises(InputError, match=f"too few {things}, 2, for shares of 0.1 and 0.1"):
        how(log_of([(0, 0, 0), (0, 1, 1), (1, 1, 2)]))


@pytest.mark.parametrize(("sessions", "test", "valid"), [(2, 0.3, 0.4), (2, 0.45, 0.45), (3, 0.34, 0.6)])
def test_shares_that_round_to_the_whole_log_are_refused(sessions: int, test: float, valid: float) -> None:
    """Sessions whose shares below 1 round up to all of them have none left to train on."""
    log = log_of([(s, i, 10 * s + i) for s in range(sessions) for i in range(2)])
    with pytest.raises(InputError, match=f"too few sessions, {sessions}, for shares"):
        split_by_time(log, test=test, valid=valid)


def test_a_single_event_cannot_be_split() -> None:
    with pytest.raises(InputError, match="too few sessions, 1, for"):
        split_by_time(log_of([(0, 0, 0)]))


def test_one_time_for_all_cannot_be_split() -> None:
    with pytest.raises(InputError, match="one time"):
        split_by_time(log_of([(s, s % 3, 7) for s in range(20)]))
    with pytest.raises(InputError, match="no event lies before the validation cut"):
        split_by_time(log_of([(s, s % 3, 7) for s in range(20)]), valid=0.0)


def test_a_log_without_times_is_split_in_the_order_of_its_rows() -> None:
    frame = pd.DataFrame({"s": np.repeat(np.arange(10), 2)[::-1], "i": [0, 1] * 10})
    split = split_by_time(EventLog.read(frame, session="s", item="i"))
    assert split.test.sessions.tolist() == [0] and split.valid.sessions.tolist() == [1]


def test_rows_sorted_by_user_are_no_order_in_time() -> None:
    """Without times, the last sessions of a log that is sorted by user are those of its last users."""
    rows = [(user, basket, item) for user in "ab" for basket in range(3) for item in "xy"]

    def log(order: list, **time: str) -> EventLog:
        table = pd.DataFrame(order, columns=["user", "basket", "item"])
        table["session"] = table["user"] + table["basket"].astype(str)
        return EventLog.read(
            table.assign(at=1e9 + table["basket"]), session="session", user="user", item="item", **time
        )

    for cut in (partial(split_by_time, test=0.34, valid=0.34), partial(last_sessions, count=2)):
        with pytest.warns(UserWarning, match="sorted by user"):
            cut(log(rows))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cut(log(sorted(rows, key=lambda row: row[1])))
            cut(log(rows, time="at"))
            cut(log([(f"u{n}", 0, "x") for n in range(10)]))


def test_a_split_shows_what_was_left_out() -> None:
    log = log_of([(0, 0, 0), (1, 1, 10), (2, 2, 20), (2, 0, 46), (3, 0, 50), (3, 1, 51), (4, 2, 60)])
    split = split_at(log, 15, 50)
    assert "on items not in training: 2 events)" in repr(split).splitlines()[2]
    assert "left out" not in repr(split_at(log, 21, 50)) and "no events" in repr(split_at(log, 21, np.inf))


# By user


@settings(max_examples=30)
@given(st.integers(0, 99), st.sampled_from([0.2, 0.4]), st.sampled_from([0.0, 0.2]))
def test_users_are_in_one_part_with_all_they_did(seed: int, test: float, valid: float) -> None:
    log = regular()
    split = split_by_user(log, test=test, valid=valid, seed=seed)
    users = [set(part.users.ids[part.session_user].tolist()) for part in parts(split)]
    assert all(part.users.ids.tolist() == log.users.ids.tolist() for part in parts(split))
    assert [len(u) for u in users] == [5 - round(5 * valid) - round(5 * test), round(5 * valid), round(5 * test)]
    assert not (users[0] & users[1] or users[0] & users[2] or users[1] & users[2])
    for part, own in zip(parts(split), users, strict=True):
        known = set(split.train.items.ids.tolist())
        assert events(part) == {e for e in events(log) if e[0] % 5 in own and e[1] in known}
    assert_whole(split, log)
    assert split.unknown == log.num_events - sum(part.num_events for part in parts(split))


def test_a_split_depends_on_the_seed_alone() -> None:
    for how in (split_by_user, split_by_item):
        splits = [how(regular(), test=0.2, valid=0.2, seed=seed) for seed in (1, 1, 2)]
        assert events(splits[0].test) == events(splits[1].test)
    assert events(splits[0].test) != events(splits[2].test)


def test_by_user_needs_users() -> None:
    frame = pd.DataFrame({"s": [1, 2], "i": [1, 2]})
    with pytest.raises(InputError, match="no user column"):
        split_by_user(EventLog.read(frame, session="s", item="i"))


@pytest.mark.parametrize("how", [split_at, split_by_time, split_by_user, split_by_item, split_users, last_sessions])
def test_what_is_no_log_is_refused(how: Callable) -> None:
    remedy = re.escape(f"{how.__name__} takes a log, not a str; read it first: {how.__name__}(EventLog.read('a.csv'")
    arguments = {split_at: (1.0, 2.0), last_sessions: (2,)}.get(how, ())
    with pytest.raises(InputError, match=remedy):
        how("a.csv", *arguments)


# By item


@settings(max_examples=30)
@given(st.integers(0, 99))
def test_new_items_are_on_sale_but_training_never_saw_them_clicked(seed: int) -> None:
    log = log_of([(s, (7 * s + k * (1 + s % 3)) % 30, 10 * s + k) for s in range(80) for k in range(3)])
    split = split_by_item(log, test=0.1, valid=0.1, seed=seed)
    assert_whole(split, log)
    for part in parts(split):
        assert part.items is log.items and part.num_items == 30
        assert part.items.attributes["brand"].codes.min() >= 1
    unseen = split.train.support == 0
    assert unseen.sum() >= 6
    shuffled = np.random.default_rng(seed).permutation(30)
    new_in_test, new_in_valid = shuffled[:3], shuffled[3:6]
    assert unseen[new_in_test].all() and unseen[new_in_valid].all() and not split.valid.support[new_in_test].any()
    for part, own in ((split.valid, new_in_valid), (split.test, new_in_test)):
        assert set(part.session[np.isin(part.item, own)]) == set(range(part.num_sessions))
    assert sum(part.num_events for part in parts(split)) == log.num_events


def test_a_part_without_sessions_is_refused() -> None:
    with pytest.raises(InputError, match="no session is left to train on"):
        split_by_item(log_of([(s, i, 10 * s + i) for s in range(5) for i in range(10)]))


def test_users_are_split_by_shares_and_none_is_in_two_parts() -> None:
    log = fake_log(sessions=100)
    parts = split_users(log, shares=(1, 2, 1), seed=4)
    owners = [set(part.users.ids[part.session_user].tolist()) for part in parts]
    assert [len(people) for people in owners] == [5, 10, 5]
    assert len(set.union(*owners)) == 20 and sum(part.num_sessions for part in parts) == 100
    for part, people in zip(parts, owners, strict=True):
        assert part.items.ids.tolist() == log.items.ids.tolist()
        assert set(part.users.ids.tolist()) == people  # a part knows nobody else's name
        mine = np.isin(log.users.ids[log.session_user[log.session]], list(people))
        assert part.item.tolist() == log.item[mine].tolist()
    again, other = (split_users(log, seed=seed)[0].sessions.tolist() for seed in (4, 5))
    assert again == parts[0].sessions.tolist() != other


def test_known_users_stay_whole_beside_sessions_of_unknown_ones() -> None:
    log = fake_log(sessions=60)
    owner = np.where(np.arange(60) % 3 == 0, -1, np.arange(60) % 4)
    parts = split_users(replace(log, session_user=owner, users=log.users.take(np.arange(4))), shares=(1, 1, 1), seed=2)
    numbers = [np.searchsorted(log.sessions, part.sessions) for part in parts]
    assert sorted(np.concatenate(numbers).tolist()) == list(range(60))  # the ids of the log are 0, 1, …
    for user in range(4):
        assert sum(user in owner[own] for own in numbers) == 1
    assert all((owner[own] < 0).any() for own in numbers)  # 20 sessions of unknown users, each its own
    sizes = [len(np.unique(owner[own][owner[own] >= 0])) + int((owner[own] < 0).sum()) for own in numbers]
    assert sizes == [8, 8, 8]


@pytest.mark.parametrize("unknown", [[0], [1], [0, 1, 2], [5, 0]])
def test_a_session_of_an_unknown_user_is_a_user_of_its_own(unknown: list[int]) -> None:
    """As many parts as users and unknown sessions: each part is one of them."""
    log = fake_log(sessions=12)
    owner = np.where(np.isin(np.arange(12), unknown), -1, np.arange(12) % 3)
    whole = replace(log, session_user=owner, users=log.users.take(np.arange(3)))
    units = sorted([[s] for s in unknown] + [[s for s in range(12) if owner[s] == u] for u in range(3)])
    parts = split_users(whole, shares=(1,) * len(units))
    assert sorted(np.searchsorted(log.sessions, part.sessions).tolist() for part in parts) == units


def test_sessions_without_users_are_users_of_their_own() -> None:
    log = fake_log(sessions=8).aligned_to(fake_log(sessions=8).items)
    parts = split_users(log, shares=(1, 1))
    assert [part.num_sessions for part in parts] == [4, 4]
    assert not set(parts[0].sessions) & set(parts[1].sessions)
    with pytest.raises(InputError, match="shares must be positive"):
        split_users(log, shares=(1, 0))
    with pytest.raises(InputError, match="8 users"):
        split_users(log, shares=(1,) * 9)
