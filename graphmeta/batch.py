"""Sessions to one flat HeteroData, by index arithmetic alone: no padding, no Python loop over sessions.

A *sample* is a run of clicks and the click that followed it. A batch of samples holds

* ``item``: one row for each distinct item of each sample (``n_id``, ``batch`` = its sample);
* ``event``: one row for each click (``item`` = its item row, ``batch`` = its sample, ``order`` = 0, 1, … in it);
* ``sample``: ``ptr`` (its events are ``ptr[s]:ptr[s + 1]``), ``last`` (row of its last event), ``target``; if some
  sample has no event, ``known`` says which ones have;
* what the log knows besides: ``event.time`` and ``sample.next_time`` (seconds; NaN where the next click is not
  known), ``sample.user`` (-1: unknown), ``sample.value`` (of the target);
* edges ``(item, next, item)``, one a distinct transition, with ``weight`` = how often, and ``(event, of, item)``.

GNNs, RNNs, CNNs and attention all read this one form. With ``task`` given, the rows are laid out *task-major*:
task t owns the rows ``t·R … (t + 1)·R`` of every store and of the ``next`` edges, R the same for all tasks (kept in
``batch.rows``), the gap filled by dummy samples, which no loss and no score looks at (``sample.real``).

What is asked of sizes is kept as plain numbers, so that nobody waits for a GPU to tell: ``batch.longest``, the clicks
of the longest sample, and ``batch.asks``, whether each real sample has a target.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.overrides import handle_torch_function, has_torch_function_variadic
from torch_geometric.data import HeteroData

from graphmeta.events import EventLog
from graphmeta.padding import filled, ragged, shares, sizes, spread

NEXT = ("item", "next", "item")
OF = ("event", "of", "item")


@dataclass(frozen=True)
class Samples:
    """Runs of clicks by reference: sample s is ``item[begin[s]:end[s]]``, followed by ``target[s]`` (-1: unknown).

    Shapes: item ``[N]``; begin, end, target, session ``[S]``; all int64. If known, ``time [N]`` float64 seconds,
    ``user [S]`` int64 (-1: unknown) and ``value [S]`` float64, what the target was given (a rating).
    """

    item: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    target: np.ndarray
    session: np.ndarray
    time: np.ndarray | None = None
    user: np.ndarray | None = None
    value: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def lengths(self) -> np.ndarray:
        """Known clicks a sample, ``[S]``."""
        return self.end - self.begin

    def take(self, rows: np.ndarray | slice) -> Samples:
        """The samples of these rows; the clicks are shared, not copied."""
        known = {name: getattr(self, name) for name in ("begin", "end", "target", "session", "user", "value")}
        return replace(self, **{name: None if column is None else column[rows] for name, column in known.items()})

    def latest(self, length: int) -> Samples:
        """The samples with at most their last ``length`` clicks."""
        return replace(self, begin=np.maximum(self.begin, self.end - length))

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """All clicks one after the other ``[E]``, and where each sample begins ``[S + 1]``."""
        where, ptr = ragged(self.begin, self.lengths)
        return self.item[where], ptr


def prefixes(log: EventLog, *, max_length: int = 50) -> Samples:
    """Every click but the first of each session as a target, its (at most ``max_length`` last) predecessors known."""
    begin = log.ptr[:-1][log.session]
    at = np.arange(log.num_events)
    rows = at[at > begin]
    return _samples(log, np.maximum(begin[rows], rows - max_length), rows, log.session[rows])


def last_clicks(log: EventLog, *, min_length: int = 2, max_length: int = 50) -> Samples:
    """The last click of each session of at least ``min_length`` clicks as the target."""
    chosen = np.flatnonzero(log.lengths >= max(min_length, 2))
    at = log.ptr[chosen + 1] - 1
    return _samples(log, np.maximum(log.ptr[chosen], at - max_length), at, chosen)


def whole_sessions(log: EventLog, *, max_length: int = 50) -> Samples:
    """Each session once, its last click the target; one longer than that in pieces of ``max_length`` clicks.

    With :class:`~graphmeta.nn.loss.EveryClick`, all clicks but the first of each session are targets, as they
    are in :func:`prefixes`, and each click is read once.
    """
    steps = np.maximum(log.lengths - 1, 0)
    piece, ptr = ragged(np.zeros_like(steps), -(-steps // max_length))
    session = np.repeat(np.arange(len(steps)), np.diff(ptr))
    begin = log.ptr[session] + piece * max_length
    return _samples(log, begin, np.minimum(begin + max_length, log.ptr[session + 1] - 1), session)


def _samples(log: EventLog, begin: np.ndarray, end: np.ndarray, session: np.ndarray) -> Samples:
    user = None if log.session_user is None else log.session_user[session]
    return Samples(log.item, begin, end, log.item[end], session, log.time if log.has_time else None, user)


def open_sessions(
    sessions: list[np.ndarray],
    *,
    max_length: int = 50,
    times: list[np.ndarray] | None = None,
    users: np.ndarray | None = None,
) -> Samples:
    """Samples whose target nobody knows yet: what to recommend for. Sessions are arrays of item numbers.

    Args:
        times: seconds of each click, as ``sessions``; users: ``[S]`` user numbers, -1 for unknown ones.
    """
    ptr = np.concatenate([[0], np.cumsum([len(s) for s in sessions])]).astype(np.int64)
    item = np.concatenate([*sessions, np.zeros(0, np.int64)]).astype(np.int64)
    begin = np.maximum(ptr[:-1], ptr[1:] - max_length)
    time = None if times is None else np.concatenate([*times, np.zeros(0)])
    return Samples(item, begin, ptr[1:], np.full(len(sessions), -1), np.arange(len(sessions)), time, users)


def session_batch(
    samples: Samples, *, num_items: int, task: np.ndarray | None = None, num_tasks: int = 0
) -> HeteroData:
    """The sub-graphs of these samples as one graph; task-major if ``task`` (sorted, ``[S]``) is given.

    Args:
        num_items: size of the vocabulary the clicks are numbered in.
        num_tasks: how many tasks there are (some may have no sample).
    """
    where, ptr = ragged(samples.begin, samples.lengths)
    click, sample = samples.item[where], np.repeat(np.arange(len(samples)), np.diff(ptr))
    key, item_row = np.unique(sample * num_items + click, return_inverse=True)
    edges, weight = _transitions(item_row, sample, len(key))
    of_event, of_sample = {}, {"target": samples.target}
    if samples.time is not None:
        of_event["time"] = samples.time[where]
        of_sample["next_time"] = _next_times(samples, samples.time)
    of_sample |= {name: getattr(samples, name) for name in ("user", "value") if getattr(samples, name) is not None}
    if (samples.lengths == 0).any():
        of_sample["known"] = samples.lengths > 0
    rows = _Rows(ptr, key % num_items, key // num_items, item_row, edges, weight, of_event, of_sample)
    return _hetero(rows) if task is None else _task_major(rows, task, num_tasks)


def _next_times(samples: Samples, time: np.ndarray) -> np.ndarray:
    """When each sample's target was clicked, NaN where that is not in the log."""
    at = np.minimum(samples.end, len(time) - 1)
    known = (samples.target >= 0) & (samples.end < len(time)) & (samples.item[at] == samples.target)
    return np.where(known, time[at], np.nan)


_FILL: dict[str, float] = {"time": 0.0, "next_time": np.nan, "target": -1, "user": -1, "value": 0.0, "known": True}


@dataclass(frozen=True)
class _Rows:
    """The stores before they become tensors; ``owner`` is the sample of an item row."""

    ptr: np.ndarray
    n_id: np.ndarray
    owner: np.ndarray
    item_row: np.ndarray
    edges: np.ndarray
    weight: np.ndarray
    of_event: dict[str, np.ndarray]
    of_sample: dict[str, np.ndarray]


def _hetero(
    rows: _Rows, *, real: np.ndarray | None = None, per_task: dict[str, int] | None = None, num_tasks: int = 1
) -> HeteroData:
    lengths = np.diff(rows.ptr)
    sample = np.repeat(np.arange(len(lengths)), lengths)
    of = torch.from_numpy(np.stack([np.arange(len(sample)), rows.item_row]))
    batch = HeteroData()
    item, event, asked, following = batch["item"], batch["event"], batch["sample"], batch[NEXT]
    item.n_id, item.batch = torch.from_numpy(rows.n_id), torch.from_numpy(rows.owner)
    item.num_nodes = len(rows.n_id)
    event.item, event.batch = of[1], torch.from_numpy(sample)
    event.order = torch.from_numpy(np.arange(len(sample)) - rows.ptr[sample])
    event.num_nodes = len(sample)
    asked.ptr = torch.from_numpy(rows.ptr)
    asked.last = torch.from_numpy(np.maximum(rows.ptr[1:] - 1, 0))
    for store, columns in ((event, rows.of_event), (asked, rows.of_sample)):
        for name, values in columns.items():
            store[name] = torch.from_numpy(values)
    if real is not None:
        asked.real = torch.from_numpy(real)
    asked.num_nodes = len(lengths)
    batch[OF].edge_index = of
    following.edge_index, following.weight = torch.from_numpy(rows.edges), torch.from_numpy(rows.weight)
    batch.rows, batch.num_tasks, batch.longest = per_task or {}, num_tasks, int(lengths.max(initial=1))
    batch.asks = bool((rows.of_sample["target"][slice(None) if real is None else real] >= 0).all())
    return batch


def _transitions(item_row: np.ndarray, sample: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct steps from one item row to the next ``[2, N]``, by source, and how often each was taken ``[N]``."""
    step, size = np.flatnonzero(sample[1:] == sample[:-1]), max(num_rows, 1)
    key, count = np.unique(item_row[step] * size + item_row[step + 1], return_counts=True)
    return np.stack([key // size, key % size]), count.astype(np.float32)


def _task_major(rows: _Rows, task: np.ndarray, num_tasks: int) -> HeteroData:
    """The rows with dummies between, where the tasks differ in size."""
    lengths = np.diff(rows.ptr)
    item_task = task[rows.owner]
    edge_task = item_task[rows.edges[0]]
    count = {
        "sample": np.bincount(task, minlength=num_tasks),
        "event": np.bincount(task, weights=lengths, minlength=num_tasks).astype(np.int64),
        "item": np.bincount(item_task, minlength=num_tasks),
        "edge": np.bincount(edge_task, minlength=num_tasks),
    }
    if len(task) and all((numbers == numbers[0]).all() for numbers in count.values()):  # laid out by task as they are
        size = {name: int(numbers[0]) for name, numbers in count.items()}
        return _hetero(rows, real=np.arange(len(task)), per_task=size, num_tasks=num_tasks)
    size = sizes(count, int(lengths.max(initial=1)), int(lengths.min(initial=1) > 0))
    sample_at = spread(task, count["sample"], size["sample"])
    item_at = spread(item_task, count["item"], size["item"])
    dummy = np.ones(num_tasks * size["sample"], dtype=bool)
    dummy[sample_at] = False
    new_lengths = np.zeros(len(dummy), dtype=np.int64)
    new_lengths[dummy] = shares(size["event"] - count["event"], size["sample"] - count["sample"])
    new_lengths[sample_at] = lengths
    real_event = ~np.repeat(dummy, new_lengths)
    last_item = np.arange(1, num_tasks + 1) * size["item"] - 1
    edges = np.repeat(last_item, size["edge"])[None].repeat(2, 0)
    edge_at = spread(edge_task, count["edge"], size["edge"])
    edges[:, edge_at] = item_at[rows.edges]
    padded = _Rows(
        ptr=np.concatenate([[0], np.cumsum(new_lengths)]),
        n_id=filled(num_tasks * size["item"], rows.n_id[:1].sum(), item_at, rows.n_id),
        owner=filled(
            np.repeat(np.arange(1, num_tasks + 1) * size["sample"] - 1, size["item"]),
            None,
            item_at,
            sample_at[rows.owner],
        ),
        item_row=filled(np.repeat(last_item, size["event"]), None, real_event, item_at[rows.item_row]),
        edges=edges,
        weight=filled(np.ones(edges.shape[1], np.float32), None, edge_at, rows.weight),
        of_event={k: filled(_dummy_times(new_lengths, v), None, real_event, v) for k, v in rows.of_event.items()},
        of_sample={k: filled(len(dummy), _FILL[k], sample_at, v) for k, v in rows.of_sample.items()},
    )
    if "known" in padded.of_sample:
        padded.of_sample["known"] = new_lengths > 0
    return _hetero(padded, real=sample_at, per_task=size, num_tasks=num_tasks)


def _dummy_times(lengths: np.ndarray, times: np.ndarray) -> np.ndarray:
    """A time for each event, a second apart within a sample from the first real one on.

    A logarithm of a time, or of the pause between two, is then finite in dummy rows too: a NaN there would reach the
    gradients of weights that real rows share.
    """
    order, _ = ragged(np.zeros_like(lengths), lengths)
    return order + (times[0] if len(times) else 0.0)


def rows_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``x``, which has one row for each row of ``like``, in its order; for constants made by size, such as zeros.

    The stacked engine carries whose rows a tensor holds, and a tensor of zeros holds nobody's. Where per-task weights
    meet it as if it did, say so; without an adaptation this does nothing.

    Shapes: ``[N, …]`` and ``[N, …]`` -> ``[N, …]``.
    """
    if has_torch_function_variadic(x, like):
        return handle_torch_function(rows_like, (x, like), x, like)
    return x


def real_samples(batch: HeteroData, values: torch.Tensor) -> torch.Tensor:
    """The rows of ``values`` ``[S, …]`` that belong to real samples, in their order."""
    real = batch["sample"].get("real")
    return values if real is None else values.index_select(0, real)


def without_targets(batch: HeteroData) -> HeteroData:
    """The batch as a shallow copy that knows neither its targets nor their values."""
    blind = copy.copy(batch)
    for name in [name for name in ("target", "value") if name in blind["sample"]]:
        del blind["sample"][name]
    return blind


def split_tasks(batch: HeteroData) -> list[HeteroData]:
    """Each task of a task-major batch as a batch of its own (what the per-task loop runs on)."""
    return [_one_task(batch, t) for t in range(batch.num_tasks)]


def _one_task(batch: HeteroData, t: int) -> HeteroData:
    item, event, sample = (slice(t * batch.rows[k], (t + 1) * batch.rows[k]) for k in ("item", "event", "sample"))
    real = batch["sample"].real
    real = real[(real >= sample.start) & (real < sample.stop)] - sample.start
    ptr = batch["sample"].ptr[sample.start : sample.stop + 1]
    own = HeteroData()
    own["item"].n_id, own["item"].batch = batch["item"].n_id[item], batch["item"].batch[item] - sample.start
    own["event"].item = batch["event"].item[event] - item.start
    own["event"].batch = batch["event"].batch[event] - sample.start
    own["event"].order = batch["event"].order[event]
    own["sample"].ptr = ptr - ptr[0]
    own["sample"].last = (batch["sample"].last[sample] - event.start).clamp(min=0)
    own["sample"].real = real
    for store, rows in (("event", event), ("sample", sample)):
        for name in _FILL.keys() & batch[store].keys():
            own[store][name] = batch[store][name][rows]
    own[OF].edge_index = torch.stack([torch.arange(batch.rows["event"], device=real.device), own["event"].item])
    edge = slice(t * batch.rows["edge"], (t + 1) * batch.rows["edge"])
    own[NEXT].edge_index = batch[NEXT].edge_index[:, edge] - item.start
    own[NEXT].weight = batch[NEXT].weight[edge]
    for name in ("item", "event", "sample"):
        own[name].num_nodes = batch.rows[name]
    own.rows, own.num_tasks, own.longest, own.asks = batch.rows, 1, batch.longest, batch.asks
    return own
