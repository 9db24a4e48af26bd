"""A task learns from what lies before its question, and each question is asked once an epoch."""

import dataclasses
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.nn.readout import Last, Mean, SoftAttention
from graphmeta.sampling.batch_rows import NEXT
from graphmeta.sampling.few_shot import RandomQueries, sampled_tasks, support_from_clicks
from graphmeta.sampling.histories import user_histories, with_history
from graphmeta.sampling.order import TaskSampler, user_parallel
from graphmeta.sampling.samples import Samples, last_clicks, sessions_without_target
from graphmeta.sampling.session_batch import session_batch, without_targets
from graphmeta.sampling.task_layout import split_tasks
from graphmeta.sampling.tasks import Tasks, support_of, task_batch, tasks_of


@st.composite
def queries(draw: st.DrawFn) -> Samples:
    """Query samples in one row of clicks; the click at position p is item p, so that items tell positions."""
    size = draw(st.integers(2, 25))
    cuts = st.tuples(st.integers(0, size - 2), st.integers(1, 9)).map(lambda c: (c[0], min(c[0] + c[1], size - 1)))
    begin, end = np.array(draw(st.lists(cuts, max_size=6)), dtype=np.int64).reshape(-1, 2).T
    return Samples(np.arange(size), begin, end, end.copy(), 10 * np.arange(len(begin)))


def by_hand(query: Samples, max_support: int | None) -> list[tuple[list[int], int, int, int]]:
    """Clicks, target, session and task of each support sample."""
    found = []
    for task, (begin, end) in enumerate(zip(query.begin, query.end, strict=True)):
        clicks = [int(i) for i in query.item[begin:end]]
        own = [(clicks[:k], clicks[k], int(query.session[task]), task) for k in range(1, len(clicks))]
        found += own if max_support is None else own[len(own) - min(len(own), max_support) :]
    return found


@given(queries(), st.none() | st.integers(0, 5))
def test_support_against_a_plain_loop(query: Samples, max_support: int | None) -> None:
    support, task = support_of(query, max_support=max_support)
    assert by_hand(query, max_support) == [
        (support.item[b:e].tolist(), t, s, k)
        for b, e, t, s, k in zip(support.begin, support.end, support.target, support.session, task, strict=True)
    ]


@given(queries(), st.none() | st.integers(0, 5))
def test_the_target_of_the_query_is_nowhere_in_its_support(query: Samples, max_support: int | None) -> None:
    """Items are positions here, so the target's position is in no click, no target, no node and no edge."""
    num_items = len(query.item)
    tasks = task_batch(query, num_items=num_items, max_support=max_support)
    if tasks.support is None:
        assert all(n == 1 for n in query.lengths) or max_support == 0
        return
    for target, part in zip(query.target, split_tasks(tasks.support), strict=True):
        samples = part["sample"].real
        events = torch.isin(part["event"].batch, samples)
        items = torch.isin(part["item"].batch, samples)
        seen = part["item"].n_id[part["event"].item[events]]
        assert (seen < target).all() and (part["sample"].target[samples] < target).all()
        assert (part["item"].n_id[items] < target).all()
        edges = part[NEXT].edge_index[:, items[part[NEXT].edge_index[0]]]
        assert (part["item"].n_id[edges] < target).all()


@given(queries())
def test_another_target_changes_only_the_query_target(query: Samples) -> None:
    other = Samples(query.item, query.begin, query.end, np.zeros_like(query.target), query.session)
    mine, yours = (task_batch(q, num_items=len(query.item)) for q in (query, other))
    assert (mine.support is None) == (yours.support is None)
    for a, b in ((mine.support, yours.support), (mine.query, yours.query)):
        for left, right in zip(a.stores, b.stores, strict=True) if a is not None else ():
            for name, value in left.items():
                same = not torch.is_tensor(value) or torch.equal(value, right[name])
                assert same or (a is mine.query and name == "target")


@given(queries())
def test_a_task_a_query(query: Samples) -> None:
    tasks = task_batch(query, num_items=len(query.item))
    assert tasks.num_tasks == tasks.query.num_tasks == len(query)
    assert tasks.support is None or tasks.support.num_tasks == len(query)
    plain = session_batch(query, num_items=len(query.item))
    assert torch.equal(tasks.query["sample"].target[tasks.query["sample"].real], plain["sample"].target)


def test_sessions_of_one_click_have_no_support() -> None:
    query = sessions_without_target([np.array([3]), np.array([4])])
    assert task_batch(query, num_items=5).support is None
    mixed = task_batch(sessions_without_target([np.array([3]), np.array([4, 1])]), num_items=5)
    assert [len(part["sample"].real) for part in split_tasks(mixed.support)] == [0, 1]


def test_tasks_move_to_a_device_whole() -> None:
    tasks = task_batch(sessions_without_target([np.array([3, 1])]), num_items=5).to("meta")
    assert tasks.query["item"].n_id.is_meta and tasks.support["sample"].real.is_meta
    assert task_batch(sessions_without_target([np.array([3])]), num_items=5).to("cpu").support is None


# The sampler


LENGTHS = st.lists(st.integers(1, 30), max_size=60).map(np.array)


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
def test_every_row_is_drawn_once_an_epoch(lengths, batch_size: int, pool: int, seed: int, epoch: int) -> None:
    batches = list(TaskSampler(batch_size, bucket_batches=pool, seed=seed).epoch(lengths, epoch))
    assert sorted(row for rows in batches for row in rows.tolist()) == list(range(len(lengths)))
    sizes = sorted((len(rows) for rows in batches), reverse=True)
    assert all(size == batch_size for size in sizes[:-1]) and all(0 < size <= batch_size for size in sizes)


@pytest.mark.parametrize("pool", [1, 3])
def test_the_order_depends_on_seed_and_epoch_alone(pool: int) -> None:
    lengths = np.arange(50) % 7

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [rows.tolist() for rows in TaskSampler(8, bucket_batches=pool, seed=seed).epoch(lengths, epoch)]

    torch.manual_seed(1)
    first = {(seed, epoch): order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    torch.manual_seed(2)
    np.random.seed(2)
    assert order(1, 1) == first[1, 1] and order(0, 1) == first[0, 1]
    assert len({str(rows) for rows in first.values()}) == 4


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 9))
def test_a_pool_puts_like_with_like(lengths: np.ndarray, batch_size: int) -> None:
    """With one pool for all, the batches side by side are the rows by length; and they come in another order."""
    batches = list(TaskSampler(batch_size, bucket_batches=1000).epoch(lengths, 0))
    full = [sorted(lengths[rows].tolist()) for rows in batches]
    assert [n for part in sorted(full, key=lambda part: (part[0], part[-1])) for n in part] == sorted(lengths.tolist())


def test_pooled_batches_do_not_come_by_length() -> None:
    lengths = np.repeat(np.arange(40), 4)
    longest = [int(lengths[rows].max()) for rows in TaskSampler(4, bucket_batches=1000).epoch(lengths, 0)]
    assert longest != sorted(longest) and sorted(longest) == list(range(40))


# Users in parallel, and their histories


def of_users(users: list[int]) -> Samples:
    samples = sessions_without_target([np.array([0])] * len(users), users=np.array(users))
    return samples if users else samples.take(slice(0, 0))


@settings(max_examples=60)
@given(st.lists(st.integers(-1, 8), max_size=50), st.integers(1, 6), st.integers(0, 2), st.integers(0, 2))
def test_rows_walk_their_users_sessions_in_order(users: list[int], batch_size: int, seed: int, epoch: int) -> None:
    batches = [b.tolist() for b in user_parallel(of_users(users), batch_size=batch_size, seed=seed, epoch=epoch)]
    assert sorted(row for rows in batches for row in rows) == list(range(len(users)))
    sizes = [len(rows) for rows in batches]
    assert all(0 < size <= batch_size for size in sizes)
    assert sizes == sorted(sizes, reverse=True)  # a row stays at work until nobody is left
    step = {row: n for n, rows in enumerate(batches) for row in rows}
    for user in set(users) - {-1}:
        own = [step[row] for row in range(len(users)) if users[row] == user]
        assert own == list(range(own[0], own[0] + len(own)))


def test_the_order_of_users_depends_on_seed_and_epoch_alone() -> None:
    samples = of_users([n % 9 for n in range(60)])

    def order(seed: int, epoch: int) -> str:
        return str([rows.tolist() for rows in user_parallel(samples, batch_size=4, seed=seed, epoch=epoch)])

    first = {(seed, epoch): order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    np.random.seed(2)
    assert order(1, 1) == first[1, 1] and len(set(first.values())) == 4


def histories() -> EventLog:
    """Users b, a, nobody, b, a; the second session of b is at the end."""
    frame = pd.DataFrame({"s": [0, 0, 1, 2, 2, 3, 4, 4], "i": [5, 6, 7, 5, 7, 6, 7, 6], "t": np.arange(8.0)})
    frame["u"] = [["b", "a", "c", "a", "b"][s] for s in frame["s"]]
    log = EventLog.read(frame, session="s", item="i", time="t", user="u")
    return dataclasses.replace(log, session_user=np.where(log.session_user == 2, -1, log.session_user))


def clicks(samples: Samples) -> list[list[int]]:
    return [samples.item[a:b].tolist() for a, b in zip(samples.begin, samples.end, strict=True)]


def test_a_users_sessions_are_joined() -> None:
    log = histories()
    samples = user_histories(log)
    assert clicks(samples) == [[0, 1, 2], [2], [0]]
    assert samples.target.tolist() == [1, 1, 2] and samples.user.tolist() == [0, 1, -1]
    assert clicks(user_histories(log, max_length=2)) == [[0, 1], [2], [2], [0]]


def test_samples_with_their_users_history() -> None:
    log = histories()
    samples = last_clicks(log)
    assert clicks(samples) == [[0], [0], [2]]
    longer = with_history(samples, log)
    assert clicks(longer) == [[0], [0], [0, 1, 2]]
    assert longer.target.tolist() == samples.target.tolist() == longer.item[longer.end].tolist()
    assert longer.time[longer.begin[2] : longer.end[2]].tolist() == [0, 1, 6]
    assert clicks(with_history(samples, log, max_length=2))[2] == [1, 2]
    with pytest.raises(InputError, match="name its user column"):
        with_history(samples, dataclasses.replace(log, users=None, session_user=None))


def test_histories_of_overlapping_sessions_go_by_time():
    rows = [("a", "x", 0), ("a", "y", 100), ("a", "z", 200), ("b", "p", 50), ("b", "q", 60), ("b", "r", 70)]
    frame = pd.DataFrame(rows, columns=["session", "item", "time"]).assign(user="u")
    log = EventLog.read(frame, session="session", item="item", time="time", user="user")
    samples = with_history(last_clicks(log), log)
    names = [
        [str(log.items.ids[i]) for i in samples.item[b:e]] for b, e in zip(samples.begin, samples.end, strict=True)
    ]
    assert names == [["x", "p", "q", "r", "y"], ["x", "p", "q"]]


def ratings() -> EventLog:
    """Three people and their ratings; u1's are 1 to 5 for items a to e, in order of time."""
    people = ["u1"] * 5 + ["u2"] * 3 + ["u3"] * 2
    items = list("abcde") + list("cab") + list("de")
    frame = pd.DataFrame({"who": people, "what": items, "when": range(10), "stars": [1, 2, 3, 4, 5, 3, 1, 2, 4, 5]})
    return EventLog.read(frame, session="who", user="who", item="what", time="when", value="stars")


def read_tasks(tasks: Tasks, log: EventLog) -> list[tuple[list[tuple[str, str, float]], list[tuple[str, str, float]]]]:
    """(known items, target, value) of every support sample and every query, task by task."""

    def rows(part: Samples, ptr: np.ndarray, t: int) -> list[tuple[str, str, float]]:
        assert part.value is not None
        known = ["".join(log.items.ids[part.item[b:e]]) for b, e in zip(part.begin, part.end, strict=True)]
        every = list(zip(known, log.items.ids[part.target], part.value, strict=True))
        return every[ptr[t] : ptr[t + 1]]

    return [
        (rows(tasks.support, tasks.support_ptr, t), rows(tasks.query, tasks.query_ptr, t)) for t in range(len(tasks))
    ]


def test_chosen_ratings_become_support_and_query() -> None:
    log = ratings()
    query = np.isin(np.arange(10), [1, 4, 5])
    tasks = tasks_of(log, ~query & (log.session != 1), query)
    assert len(tasks) == 2 and tasks.support_sizes.tolist() == [3, 0]
    first, second = read_tasks(tasks, log)
    assert first == ([("", "a", 1.0), ("a", "c", 3.0), ("ac", "d", 4.0)], [("acd", "b", 2.0), ("acd", "e", 5.0)])
    assert second == ([], [("", "c", 3.0)])
    assert [log.users.ids[u] for u in tasks.query.user] == ["u1", "u1", "u2"]
    assert read_tasks(tasks.take(np.array([1, 0, 1])), log) == [second, first, second]


def test_chosen_tasks_as_graphs_keep_values_and_mark_empty_samples() -> None:
    log = ratings()
    query = np.isin(np.arange(10), [1, 4, 5, 9])
    batch = tasks_of(log, ~query, query).batch(num_items=log.num_items)
    assert batch.num_tasks == 3 and batch.support is not None
    real = batch.support["sample"].real
    assert batch.support["sample"].value[real].tolist() == [1, 3, 4, 1, 2, 4]
    assert batch.support["sample"].has_events[real].tolist() == [False, True, True, False, True, False]
    assert batch.query["sample"].value[batch.query["sample"].real].tolist() == [2, 5, 3, 5]
    blind = without_targets(batch.query)
    assert "value" not in blind["sample"] and "target" not in blind["sample"] and "value" in batch.query["sample"]


@pytest.mark.parametrize("readout", [Last(), Mean(), SoftAttention(4)])
def test_a_sample_without_clicks_reads_zero_in_any_batch(readout: torch.nn.Module) -> None:
    alone = Samples(np.array([3, 4]), np.array([1]), np.array([1]), np.array([0]), np.array([0]))
    beside = Samples(np.array([3, 4]), np.array([0, 1]), np.array([2, 1]), np.array([0, 0]), np.array([0, 1]))
    states = torch.randn(2, 4)
    got = readout(states, session_batch(beside, num_items=5))[1]
    assert torch.equal(got, readout(states[:0], session_batch(alone, num_items=5))[0])
    assert not got.any()


def test_an_event_cannot_be_support_and_query() -> None:
    log = ratings()
    every = np.ones(10, dtype=bool)
    with pytest.raises(InputError, match="event 0 is both"):
        tasks_of(log, every, every)
    with pytest.raises(InputError, match="there is no query event"):
        tasks_of(log, every, ~every)


def test_tasks_without_clicks_stay_small() -> None:
    """Dummy rows may be empty where real samples are: tasks of 1 and of 40 samples make 41 rows each."""
    many = np.repeat([0, 1], [1, 40])
    nothing = Samples(np.arange(9), np.zeros(41, int), np.zeros(41, int), np.arange(41) % 9, many)
    batch = session_batch(nothing, num_items=9, task=many, num_tasks=2)
    assert batch.rows["sample"] == 41 and batch.rows["event"] <= 1
    assert not batch["sample"].has_events[batch["sample"].real].any()
    one, other = split_tasks(batch)
    assert len(one["sample"].real) == 1 and other["sample"].target[other["sample"].real].tolist() == [
        n % 9 for n in range(1, 41)
    ]
    for readout in (Last(), Mean()):
        assert not readout(torch.randn(other["event"].num_nodes, 4), other)[other["sample"].real].any()


def test_every_observed_click_is_a_support_target() -> None:
    log = ratings()
    samples = last_clicks(log, max_length=3)
    tasks = support_from_clicks(dataclasses.replace(samples, value=samples.target.astype(float)))
    assert tasks.support.value is None

    def rows(part: Samples) -> list[tuple[str, str]]:
        known = ["".join(log.items.ids[part.item[b:e]]) for b, e in zip(part.begin, part.end, strict=True)]
        return list(zip(known, log.items.ids[part.target], strict=True))

    assert rows(tasks.query) == rows(samples) == [("bcd", "e"), ("ca", "b"), ("d", "e")]
    assert rows(tasks.support) == [("", "b"), ("b", "c"), ("bc", "d"), ("", "c"), ("c", "a"), ("", "d")]
    assert tasks.support_ptr.tolist() == [0, 3, 5, 6] and tasks.query_ptr.tolist() == [0, 1, 2, 3]


def histories_of(lengths: list[int]) -> EventLog:
    """People with so many different items each, the first of them clicked again at the end."""
    rows = [(who, n) for who, length in enumerate(lengths) for n in [*range(length), 0]]
    return EventLog.read(pd.DataFrame(rows, columns=["who", "what"]), session="who", item="what")


def test_sampled_events_are_half_support_and_half_query() -> None:
    log = histories_of([1, 2, 3, 7, 40] * 60)
    tasks = sampled_tasks(log, max_events=6, seed=3)
    known, query_sizes = tasks.support_sizes, np.diff(tasks.query_ptr)
    person = tasks.query.session[tasks.query_ptr[:-1]]
    assert person.tolist() == [who for who in range(300) if who % 5]  # one item is not enough
    sampled = known + query_sizes
    assert (known == sampled // 2).all()
    for number, most in ((1, 2), (2, 3), (3, 6), (4, 6)):
        sizes = sampled[person % 5 == number]
        assert set(sizes) == set(range(2, most + 1))
    for t in range(len(tasks)):
        support = tasks.support.target[tasks.support_ptr[t] : tasks.support_ptr[t + 1]].tolist()
        query = tasks.query.target[tasks.query_ptr[t] : tasks.query_ptr[t + 1]].tolist()
        assert len(set(support + query)) == len(support + query) and support == sorted(support)
        assert set(support + query) <= set(log.item[log.session == person[t]].tolist())
    # Any record may be known or asked: the forty's items are spread over their whole history.
    forty = np.isin(tasks.support.session, np.flatnonzero(np.arange(300) % 5 == 4))
    assert len(set(tasks.support.target[forty].tolist())) > 30
    assert tasks.first_queries().query.target.tolist() == tasks.query.target[tasks.query_ptr[:-1]].tolist()


def test_sessions_below_the_least_number_of_events_are_no_tasks() -> None:
    log = histories_of([1, 2, 3, 4, 5, 9])  # distinct items
    tasks = sampled_tasks(log, min_events=4, max_events=4)
    assert tasks.query.session[tasks.query_ptr[:-1]].tolist() == [3, 4, 5]
    assert (tasks.support_sizes + np.diff(tasks.query_ptr) == 4).all()


def test_the_rating_of_a_query_is_in_no_support_sample() -> None:
    """Support samples are other clicks of the session, whose ratings are unknown."""
    query = last_clicks(ratings())
    query = replace(query, value=np.arange(len(query), dtype=np.float64))
    support, _ = support_of(query)
    assert len(support) and support.value is None
    assert "value" not in task_batch(query, num_items=30).support["sample"]


def test_draws_go_by_the_seed_and_the_limits() -> None:
    log = histories_of([12] * 9)
    one, same, other = (sampled_tasks(log, seed=seed) for seed in (1, 1, 2))
    assert one.query.target.tolist() == same.query.target.tolist() != other.query.target.tolist()
    short, whole = (sampled_tasks(log, max_events=12, max_length=length) for length in (2, 50))
    assert short.query.lengths.max() == 2 < whole.query.lengths.max()
    assert short.query.target.tolist() == whole.query.target.tolist()  # sampled from all clicks
    with pytest.raises(InputError, match="min_events=1 and max_events=10"):
        sampled_tasks(log, min_events=1)


def test_the_error_for_a_log_too_small_for_any_task_has_the_number_of_items_or_ratings_that_one_needs() -> None:
    with pytest.raises(InputError, match="has clicked 2 different items, which a task needs; use a log with more"):
        sampled_tasks(histories_of([1, 1]))
    with pytest.raises(InputError, match="has clicked 5 different items.*or a lower min_events"):
        sampled_tasks(histories_of([3]), min_events=5)
    with pytest.raises(InputError, match=r"no user has 13 to 100 ratings.*RandomQueries\(min_events="):
        RandomQueries()(ratings())
