"""A batch says what a plain loop over its sessions says, in both layouts, for any sessions."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.sampling.batch_rows import NEXT, OF
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples, last_clicks, prefixes, sessions_without_target, whole_sessions
from graphmeta.sampling.session_batch import real_samples, session_batch, without_targets
from graphmeta.sampling.task_layout import split_tasks

ITEMS = 6


@dataclass(frozen=True)
class Content:
    """What a batch holds of one sample, in item numbers."""

    clicks: tuple[int, ...]
    order: tuple[int, ...]
    nodes: tuple[int, ...]
    steps: tuple[tuple[int, int, float], ...]
    last: int
    target: int


def by_hand(samples: Samples, s: int) -> Content:
    clicks = [int(samples.item[at]) for at in range(samples.begin[s], samples.end[s])]
    steps = Counter(zip(clicks[:-1], clicks[1:], strict=True))
    return Content(
        tuple(clicks), tuple(range(len(clicks))), tuple(sorted(set(clicks))),
        tuple(sorted((*step, float(count)) for step, count in steps.items())), clicks[-1], int(samples.target[s]),
    )  # fmt: skip


def content(batch: HeteroData, s: int) -> Content:
    begin, end = batch["sample"].ptr[s : s + 2].tolist()
    item, event, n_id = batch["item"], batch["event"], batch["item"].n_id
    assert (event.batch[begin:end] == s).all() and (event.batch == s).sum() == end - begin
    assert (item.batch[event.item[begin:end]] == s).all()
    assert torch.equal(batch[OF].edge_index, torch.stack([torch.arange(len(event.item)), event.item]))
    edges, weight = batch[NEXT].edge_index, batch[NEXT].weight
    own = item.batch[edges[0]] == s
    assert torch.equal(own, item.batch[edges[1]] == s)
    steps = torch.stack([*n_id[edges[:, own]], weight[own].long()]).t().tolist()
    return Content(
        tuple(n_id[event.item[begin:end]].tolist()), tuple(event.order[begin:end].tolist()),
        tuple(sorted(n_id[item.batch == s].tolist())), tuple(sorted((a, b, float(w)) for a, b, w in steps)),
        int(n_id[event.item[batch["sample"].last[s]]]), int(batch["sample"].target[s]),
    )  # fmt: skip


def real(batch: HeteroData) -> list[int]:
    return batch["sample"].real.tolist() if "real" in batch["sample"] else list(range(batch["sample"].num_nodes))


def samples_of(sessions: list[list[int]], targets: list[int] | None = None) -> Samples:
    rows = sessions_without_target([np.array(session) for session in sessions])
    return rows if targets is None else Samples(rows.item, rows.begin, rows.end, np.array(targets), rows.session)


SESSIONS = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=7), min_size=1, max_size=8)


@st.composite
def runs(draw: st.DrawFn) -> Samples:
    """Samples anywhere in one row of clicks: they may overlap, as prefixes do."""
    item = np.array(draw(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=20)))
    cuts = st.tuples(st.integers(0, len(item) - 1), st.integers(1, 8)).map(
        lambda c: (c[0], min(c[0] + c[1], len(item)))
    )
    found = np.array(draw(st.lists(cuts, max_size=9)), dtype=np.int64).reshape(-1, 2)
    targets = draw(st.lists(st.integers(-1, ITEMS - 1), min_size=len(found), max_size=len(found)))
    return Samples(item, found[:, 0], found[:, 1], np.array(targets, dtype=np.int64), np.arange(len(found)))


# Ragged


@given(runs())
def test_a_batch_against_a_plain_loop(samples: Samples) -> None:
    batch = session_batch(samples, num_items=ITEMS)
    assert batch["sample"].num_nodes == len(samples)
    assert [content(batch, s) for s in range(len(samples))] == [by_hand(samples, s) for s in range(len(samples))]
    assert batch["event"].num_nodes == samples.lengths.sum() == len(batch["event"].item)
    assert batch["item"].num_nodes == sum(len(by_hand(samples, s).nodes) for s in range(len(samples)))
    assert batch[NEXT].num_edges == sum(len(by_hand(samples, s).steps) for s in range(len(samples)))
    assert batch.num_tasks == 1 and batch.longest == max([1, *samples.lengths.tolist()])
    edges = batch[NEXT].edge_index
    assert edges.shape[1] == len({tuple(edge) for edge in edges.t().tolist()})


def test_repeated_clicks_and_self_loops() -> None:
    batch = session_batch(samples_of([[4, 4, 2, 4, 4, 4], [4]], [3, 2]), num_items=ITEMS)
    assert batch["item"].n_id.tolist() == [2, 4, 4] and batch["item"].batch.tolist() == [0, 0, 1]
    assert batch["event"].item.tolist() == [1, 1, 0, 1, 1, 1, 2]
    assert batch["event"].order.tolist() == [0, 1, 2, 3, 4, 5, 0]
    edges = dict(zip(map(tuple, batch[NEXT].edge_index.t().tolist()), batch[NEXT].weight.tolist(), strict=True))
    assert edges == {(1, 1): 3.0, (1, 0): 1.0, (0, 1): 1.0}
    assert batch["sample"].ptr.tolist() == [0, 6, 7] and batch["sample"].last.tolist() == [5, 6]
    assert batch["sample"].target.tolist() == [3, 2]


def test_tensors_have_the_types_that_pyg_expects() -> None:
    batch = session_batch(samples_of([[1, 2, 1]], [3]), num_items=ITEMS)
    assert batch[NEXT].weight.dtype == torch.float32
    for store, names in {
        "item": ["n_id", "batch"], "event": ["item", "batch", "order"], "sample": ["ptr", "last", "target"],
        OF: ["edge_index"], NEXT: ["edge_index"],
    }.items():  # fmt: skip
        assert all(batch[store][name].dtype == torch.int64 for name in names)
    assert set(batch.edge_types) == {NEXT, OF}


@given(runs(), st.data())
def test_a_sample_does_not_depend_on_its_batch(samples: Samples, data: st.DataObject) -> None:
    rows = np.array(
        data.draw(st.lists(st.integers(0, len(samples) - 1), max_size=5)) if len(samples) else [], dtype=int
    )
    batch = session_batch(samples.take(rows), num_items=ITEMS)
    assert [content(batch, s) for s in range(len(rows))] == [by_hand(samples, s) for s in rows]


def test_the_time_of_a_target_is_known_only_if_it_is_the_next_click() -> None:
    item, time = np.array([4, 5, 6, 7]), np.array([10.0, 20.0, 30.0, 40.0])
    begin, end, target = np.array([[0, 1, 5], [0, 2, 6], [0, 2, -1], [1, 3, 7], [1, 3, 6], [2, 4, 7]]).T
    samples = Samples(item % ITEMS, begin, end, np.where(target < 0, -1, target % ITEMS), np.arange(6), time=time)
    found = session_batch(samples, num_items=ITEMS)["sample"].next_time
    np.testing.assert_array_equal(found.numpy(), [20.0, 30.0, np.nan, 40.0, np.nan, np.nan])


# Task-major


def check_task_major(samples: Samples, task: np.ndarray, num_tasks: int) -> HeteroData:
    batch = session_batch(samples, num_items=ITEMS, task=task, num_tasks=num_tasks)
    size = batch.rows
    assert batch.num_tasks == num_tasks
    stores = {"sample": batch["sample"].target, "event": batch["event"].item, "item": batch["item"].n_id}
    for name, rows in {**stores, "edge": batch[NEXT].weight}.items():
        assert len(rows) == num_tasks * size[name]
    owner = {name: torch.arange(num_tasks).repeat_interleave(n) for name, n in size.items()}
    assert torch.equal(owner["sample"][batch["event"].batch], owner["event"])
    assert torch.equal(owner["sample"][batch["item"].batch], owner["item"])
    assert torch.equal(owner["item"][batch["event"].item], owner["event"])
    assert torch.equal(owner["item"][batch[NEXT].edge_index], owner["edge"].expand(2, -1))
    assert torch.equal(owner["event"][batch["sample"].last], owner["sample"])
    assert batch["item"].n_id.min() >= 0 and batch["item"].n_id.max() < ITEMS
    where = real(batch)
    assert owner["sample"][where].tolist() == task.tolist()
    assert [content(batch, s) for s in where] == [by_hand(samples, s) for s in range(len(samples))]
    assert torch.equal(real_samples(batch, batch["sample"].target), torch.from_numpy(samples.target))
    dummies = [s for s in range(num_tasks * size["sample"]) if s not in where]
    lengths = batch["sample"].ptr.diff()
    assert batch.longest == int(samples.lengths.max(initial=1))
    assert all(1 <= lengths[s] <= batch.longest and batch["sample"].target[s] == -1 for s in dummies)
    assert torch.equal(batch["sample"].last, batch["sample"].ptr[1:] - 1)
    assert torch.equal(
        batch["event"].order, torch.arange(len(owner["event"])) - batch["sample"].ptr[batch["event"].batch]
    )
    return batch


@st.composite
def tasks_of(draw: st.DrawFn) -> tuple[Samples, np.ndarray, int]:
    samples = draw(runs())
    num_tasks = draw(st.integers(1, 5))
    task = sorted(draw(st.lists(st.integers(0, num_tasks - 1), min_size=len(samples), max_size=len(samples))))
    return samples, np.array(task, dtype=np.int64), num_tasks


NOTHING = Samples(np.zeros(1, np.int64), *(np.zeros(0, np.int64) for _ in range(4)))


@settings(max_examples=100)
@given(tasks_of())
@example((NOTHING, np.zeros(0, np.int64), 3))
@example((NOTHING, np.zeros(0, np.int64), 1))
@example((samples_of([[0] * 50, [1], [2], [3]], [0] * 4), np.array([0, 1, 1, 1]), 3))
@example((samples_of([[0], [1] * 40, [2] * 40, [3] * 40], [0] * 4), np.array([0, 1, 1, 1]), 2))
def test_rows_are_laid_out_by_task(drawn: tuple[Samples, np.ndarray, int]) -> None:
    check_task_major(*drawn)


def test_tasks_of_equal_size_need_no_dummies() -> None:
    samples = samples_of([[0, 1], [2, 3, 3], [4, 5], [1, 2, 2]], [1, 2, 3, 4])
    batch = check_task_major(samples, np.array([0, 0, 1, 1]), 2)
    assert batch.rows == {"sample": 2, "event": 5, "item": 4, "edge": 3}
    plain = session_batch(samples, num_items=ITEMS)
    for store in ("item", "event", "sample", NEXT, OF):
        for name, rows in plain[store].items():
            assert name == "num_nodes" or torch.equal(rows, batch[store][name])


def test_tasks_that_differ_in_transitions_alone_are_not_equal() -> None:
    batch = check_task_major(samples_of([[0, 1, 0], [2, 2, 3]], [1, 1]), np.array([0, 1]), 2)
    assert batch.rows["edge"] == 2
    batch = check_task_major(samples_of([[0, 1, 0, 1], [2, 3, 2, 2]], [1, 1]), np.array([0, 1]), 2)
    assert batch.rows == {"sample": 2, "event": 5, "item": 3, "edge": 3}


def test_tasks_without_samples_hold_dummies_only() -> None:
    batch = check_task_major(samples_of([[0, 1, 2]], [3]), np.array([1]), 3)
    assert real(batch) == [batch.rows["sample"]]


@given(tasks_of())
def test_a_task_taken_out_is_that_task_alone(drawn: tuple[Samples, np.ndarray, int]) -> None:
    samples, task, num_tasks = drawn
    batch = session_batch(samples, num_items=ITEMS, task=task, num_tasks=num_tasks)
    parts = split_tasks(batch)
    assert len(parts) == num_tasks
    for number, part in enumerate(parts):
        own = samples.take(np.flatnonzero(task == number))
        assert [content(part, s) for s in real(part)] == [by_hand(own, s) for s in range(len(own))]
        assert part.num_tasks == 1 and part.rows == batch.rows and part.longest == batch.longest
        assert [part[name].num_nodes for name in ("sample", "event", "item")] == [
            batch.rows[name] for name in ("sample", "event", "item")
        ]
        assert part["sample"].ptr[0] == 0 and part["sample"].ptr[-1] == batch.rows["event"]
        for name, rows in ((name, part[name].batch) for name in ("event", "item")):
            assert rows.min() >= 0 and rows.max() < batch.rows["sample"], name


def test_one_task_alone_is_the_same_in_both_layouts() -> None:
    samples = samples_of([[0, 1], [2, 3, 3]], [1, 2])
    plain = session_batch(samples, num_items=ITEMS)
    alone = split_tasks(session_batch(samples, num_items=ITEMS, task=np.zeros(2, np.int64), num_tasks=1))[0]
    for store in ("item", "event", "sample", NEXT, OF):
        for name, rows in plain[store].items():
            assert rows == alone[store][name] if name == "num_nodes" else torch.equal(rows, alone[store][name])


def test_a_copy_without_targets_leaves_the_batch_unchanged() -> None:
    batch = session_batch(samples_of([[0, 1]], [2]), num_items=ITEMS)
    blind = without_targets(batch)
    assert "target" not in blind["sample"] and batch["sample"].target.tolist() == [2]
    assert blind["item"].n_id is batch["item"].n_id


# Samples


def log_of(sessions: list[list[int]]) -> EventLog:
    frame = pd.DataFrame([(s, f"i{i}") for s, clicks in enumerate(sessions) for i in clicks], columns=["s", "i"])
    return EventLog.read(frame, session="s", item="i")


def spelled(samples: Samples, log: EventLog) -> list[tuple[list[str], str, int]]:
    names = log.items.ids
    return [
        (names[samples.item[b:e]].tolist(), names[t], s)
        for b, e, t, s in zip(samples.begin, samples.end, samples.target, samples.session, strict=True)
    ]


@settings(max_examples=30)
@given(SESSIONS, st.integers(1, 8))
def test_prefixes_against_a_plain_loop(sessions: list[list[int]], max_length: int) -> None:
    log = log_of(sessions)
    expected = [
        ([f"i{i}" for i in clicks[max(0, at - max_length) : at]], f"i{clicks[at]}", s)
        for s, clicks in enumerate(sessions)
        for at in range(1, len(clicks))
    ]
    assert spelled(prefixes(log, max_length=max_length), log) == expected


@settings(max_examples=30)
@given(SESSIONS, st.integers(1, 8), st.integers(0, 5))
def test_last_clicks_against_a_plain_loop(sessions: list[list[int]], max_length: int, min_length: int) -> None:
    log = log_of(sessions)
    expected = [
        ([f"i{i}" for i in clicks[:-1][-max_length:]], f"i{clicks[-1]}", s)
        for s, clicks in enumerate(sessions)
        if len(clicks) >= max(min_length, 2)
    ]
    assert spelled(last_clicks(log, min_length=min_length, max_length=max_length), log) == expected


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=5), st.integers(1, 7))
def test_sessions_without_target_keep_their_last_clicks(sessions: list[list[int]], max_length: int) -> None:
    samples = sessions_without_target(
        [np.array(session, dtype=np.int64) for session in sessions], max_length=max_length
    )
    found = [samples.item[b:e].tolist() for b, e in zip(samples.begin, samples.end, strict=True)]
    assert found == [session[-max_length:] for session in sessions]
    assert samples.target.tolist() == [-1] * len(sessions) and len(samples) == len(sessions)
    click, ptr = samples.flat()
    assert click.tolist() == [i for session in found for i in session]
    assert np.diff(ptr).tolist() == samples.lengths.tolist() == [len(session) for session in found]


@given(st.lists(st.tuples(st.integers(-5, 50), st.integers(0, 4)), max_size=10))
def test_ragged_against_a_plain_loop(runs: list[tuple[int, int]]) -> None:
    begin, lengths = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    where, ptr = ragged(begin, lengths)
    assert where.tolist() == [b + k for b, n in runs for k in range(n)]
    assert ptr.tolist() == np.cumsum([0, *lengths]).tolist()


@pytest.mark.parametrize("task", [None, np.zeros(0, np.int64)])
def test_no_samples_at_all(task: np.ndarray | None) -> None:
    batch = session_batch(NOTHING, num_items=ITEMS, task=task, num_tasks=0)
    assert batch["sample"].num_nodes == 0 and batch["event"].num_nodes == 0 and batch[NEXT].num_edges == 0


def test_ten_thousand_clicks_in_one_session() -> None:
    session = np.arange(10_000) % 97
    batch = session_batch(sessions_without_target([session], max_length=10_000), num_items=97)
    assert batch["event"].num_nodes == 10_000 and batch["item"].num_nodes == 97 and batch[NEXT].num_edges == 97
    assert batch[NEXT].weight.sum() == 9_999


@settings(max_examples=30)
@given(SESSIONS, st.integers(1, 8))
def test_whole_sessions_are_pieces_that_follow_on_each_other(sessions: list[list[int]], max_length: int) -> None:
    """Each click but a session's last is read once, and each but its first is asked for once."""
    log = log_of(sessions)
    expected = [
        ([f"i{i}" for i in clicks[at : at + max_length][: len(clicks) - 1 - at]], at + max_length, s)
        for s, clicks in enumerate(sessions)
        for at in range(0, len(clicks) - 1, max_length)
    ]
    found = spelled(whole_sessions(log, max_length=max_length), log)
    assert found == [(read, f"i{sessions[s][min(to, len(sessions[s]) - 1)]}", s) for read, to, s in expected]
    targets = [(s, name) for read, target, s in found for name in [*read[1:], target]]
    every = [(s, f"i{i}") for s, clicks in enumerate(sessions) for i in clicks[1:]]
    assert Counter(targets) == Counter(every)


@pytest.mark.parametrize(("targets", "known"), [([0, 3], True), ([3, -1], False), ([0], True)])
def test_a_batch_marks_the_samples_that_have_a_target(targets: list[int], known: bool) -> None:
    """Item 0 is one."""
    samples = samples_of([[1, 2]] * len(targets), targets)
    assert session_batch(samples, num_items=ITEMS).has_targets is known
    tasks = session_batch(samples, num_items=ITEMS, task=np.arange(len(targets)), num_tasks=len(targets))
    assert tasks.has_targets is known


def test_a_batch_marks_the_samples_that_have_clicks_where_some_have_none() -> None:
    batch = session_batch(samples_of([[1], [], [2, 3]], [0, 1, 2]), num_items=ITEMS)
    assert batch["sample"].has_events.tolist() == [True, False, True]
    assert "has_events" not in session_batch(samples_of([[1], [2, 3]], [0, 2]), num_items=ITEMS)["sample"]


def test_sessions_without_target_start_with_their_first_click_or_now() -> None:
    sessions = [np.array(session, dtype=np.int64) for session in ([3, 1], [], [2])]
    times = [np.array(time, dtype=float) for time in ([5, 7], [], [9])]
    assert sessions_without_target(sessions, times=times, max_length=1).start.tolist() == [5, np.inf, 9]
    assert sessions_without_target(sessions).start.tolist() == [np.inf] * 3
