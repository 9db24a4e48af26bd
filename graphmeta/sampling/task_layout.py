"""Layout of a batch grouped by task (task-major): rows sorted by task, each task padded to the size of the largest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.sampling.batch_rows import DUMMY_VALUES, NEXT, OF, BatchRows, to_hetero_data
from graphmeta.sampling.padding import events_per_dummy, overwritten, padded_index, padded_sizes, ragged
from graphmeta.sampling.user_histories import HistoryColumns


@dataclass
class TaskLayout:
    """Where the rows of samples are in a task-major batch with dummy rows.

    Shapes: task ``[S]``; at: the new row of each row, by store; size: rows per task, by store or edge type.
    """

    task: np.ndarray
    num_tasks: int
    at: dict[str, np.ndarray]
    size: dict[Any, int]

    def place(self, kind: Any, task: np.ndarray) -> np.ndarray:
        """The new rows of a further store, given their tasks (sorted, ``[N]``), with one dummy row or more per task."""
        count = np.bincount(task, minlength=self.num_tasks)
        self.size[kind] = int(count.max(initial=0)) + 1
        return padded_index(task, count, self.size[kind])


def task_major(rows: BatchRows, task: np.ndarray, num_tasks: int) -> HeteroData:
    """The rows sorted by task, with dummy rows where tasks differ in size."""
    return task_major_layout(rows, task, num_tasks, always=False)[0]


def task_major_layout(
    rows: BatchRows, task: np.ndarray, num_tasks: int, *, always: bool = True
) -> tuple[HeteroData, TaskLayout]:
    """The rows sorted by task, and where they are; ``always`` with dummy rows, or only where tasks differ in size."""
    lengths = np.diff(rows.ptr)
    item_task = task[rows.item_sample]
    edge_task = item_task[rows.edges[0]]
    count = {
        "sample": np.bincount(task, minlength=num_tasks),
        "event": np.bincount(task, weights=lengths, minlength=num_tasks).astype(np.int64),
        "item": np.bincount(item_task, minlength=num_tasks),
        "edge": np.bincount(edge_task, minlength=num_tasks),
    }
    if rows.history is not None:
        count["history"] = np.bincount(task[rows.history.sample], minlength=num_tasks)
    equal = all((numbers == numbers[0]).all() for numbers in count.values()) if len(task) else False
    if equal and not always:  # no padding
        size = {name: int(numbers[0]) for name, numbers in count.items()}
        batch = to_hetero_data(rows, real=np.arange(len(task)), per_task=size, num_tasks=num_tasks)
        return batch, TaskLayout(task, num_tasks, {}, size)
    shortest = int(lengths.min(initial=1) > 0)
    size = padded_sizes(count, int(lengths.max(initial=1)), shortest)
    if rows.history is not None:
        size["history"] = int(count["history"].max(initial=0))
    sample_at = padded_index(task, count["sample"], size["sample"])
    item_at = padded_index(item_task, count["item"], size["item"])
    dummy = np.ones(num_tasks * size["sample"], dtype=bool)
    dummy[sample_at] = False
    new_lengths = np.zeros(len(dummy), dtype=np.int64)
    new_lengths[dummy] = events_per_dummy(size["event"] - count["event"], size["sample"] - count["sample"])
    new_lengths[sample_at] = lengths
    real_event = ~np.repeat(dummy, new_lengths)
    event_item, item_sample, steps, of_step = _dummy_sessions(dummy, new_lengths, count, size, apart=shortest > 0)
    size["edge"] = int((count["edge"] + np.bincount(of_step, minlength=num_tasks)).max(initial=0))
    last_item = np.arange(1, num_tasks + 1) * size["item"] - 1
    edges = np.repeat(last_item, size["edge"])[None].repeat(2, 0)
    edge_at = padded_index(edge_task, count["edge"], size["edge"])
    edges[:, edge_at] = item_at[rows.edges]
    first = count["edge"][of_step] + of_step * size["edge"]
    edges[:, first + np.arange(len(of_step)) - np.searchsorted(of_step, of_step)] = steps
    padded = BatchRows(
        ptr=np.concatenate([[0], np.cumsum(new_lengths)]),
        n_id=overwritten(np.full(num_tasks * size["item"], rows.n_id[:1].sum()), item_at, rows.n_id),
        item_sample=overwritten(item_sample, item_at, sample_at[rows.item_sample]),
        event_item=overwritten(event_item, real_event, item_at[rows.event_item]),
        edges=edges,
        weight=overwritten(np.ones(edges.shape[1], np.float32), edge_at, rows.weight),
        event_columns={
            k: overwritten(_dummy_times(new_lengths, v), real_event, v) for k, v in rows.event_columns.items()
        },
        sample_columns={
            k: overwritten(np.full(len(dummy), DUMMY_VALUES[k]), sample_at, v) for k, v in rows.sample_columns.items()
        },
    )
    if rows.history is not None:
        padded = replace(padded, history=_padded_history(rows.history, task, count, size, sample_at))
    if "has_events" in padded.sample_columns:
        padded.sample_columns["has_events"] = new_lengths > 0
    batch = to_hetero_data(padded, real=sample_at, per_task=size, num_tasks=num_tasks)
    return batch, TaskLayout(task, num_tasks, {"item": item_at, "sample": sample_at}, dict(size))


def _dummy_sessions(
    dummy: np.ndarray, lengths: np.ndarray, count: dict[str, np.ndarray], size: dict[str, int], *, apart: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Dummy samples as sessions: item row of each event ``[E]``, sample of each item ``[I]``, steps ``[2, M]``, their
    tasks ``[M]``; entries of real rows are zero.

    Each dummy sample has events, items of its own, and edges between them, so that a mean over a session's items, an
    item's clicks or its incoming edges is finite in dummy rows too; a NaN there would reach the gradients of weights
    shared with real rows. If real samples may be empty (not ``apart``), dummy samples may be, and share items.
    """
    spare, task = size["item"] - count["item"], np.arange(len(dummy)) // size["sample"]
    sample = np.repeat(np.arange(len(dummy)), np.where(dummy, lengths, 0))
    begin = task * size["item"] + count["item"][task]  # of the task's dummy items
    if apart:
        items = np.zeros(len(dummy), dtype=np.int64)
        items[dummy] = events_per_dummy(spare, size["sample"] - count["sample"])
        first = np.cumsum(items) - items
        begin = begin + first - first[task * size["sample"]]
        number, _ = ragged(np.zeros_like(lengths), np.where(dummy, lengths, 0))
        clicked = begin[sample] + number * items[sample] // lengths[sample]
    else:
        events = size["event"] - count["event"]
        number, _ = ragged(np.zeros_like(events), events)
        clicked = begin[sample] + number * spare[task[sample]] // events[task[sample]]
    event_item, item_sample = (
        np.zeros(int(lengths.sum()), np.int64),
        np.zeros(size["item"] * len(count["item"]), np.int64),
    )
    event_item[np.repeat(dummy, lengths)] = clicked
    item_sample[clicked[::-1]] = sample[::-1]  # the first one is written last
    follows = np.flatnonzero(sample[1:] == sample[:-1])
    steps = np.unique(np.stack([clicked[follows], clicked[follows + 1]]), axis=1)
    return event_item, item_sample, steps, steps[0] // size["item"]


def _padded_history(
    rows: HistoryColumns, task: np.ndarray, count: dict[str, np.ndarray], size: dict[str, int], sample_at: np.ndarray
) -> HistoryColumns:
    """The rows, with dummy rows that belong to the last sample of their task, a dummy."""
    at = padded_index(task[rows.sample], count["history"], size["history"])
    number = len(count["history"]) * size["history"]
    last = (np.arange(number) // max(size["history"], 1) + 1) * size["sample"] - 1
    return HistoryColumns(
        n_id=overwritten(np.full(number, rows.n_id[:1].sum()), at, rows.n_id),
        sample=overwritten(last, at, sample_at[rows.sample]),
        age=overwritten(np.ones(number, dtype=np.int64), at, rows.age),
        days=overwritten(np.zeros(number), at, rows.days),
    )


def _dummy_times(lengths: np.ndarray, times: np.ndarray) -> np.ndarray:
    """A time for each event: one second apart within a sample, starting at the first real time.

    Logarithms of times and of inter-event times are then finite in dummy rows too; a NaN there would reach the
    gradients of weights shared with real rows.
    """
    order, _ = ragged(np.zeros_like(lengths), lengths)
    return order + (times[0] if len(times) else 0.0)


def split_tasks(batch: HeteroData) -> list[HeteroData]:
    """Each task of a task-major batch as a separate batch, for the per-task loop."""
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
        for name in DUMMY_VALUES.keys() & batch[store].keys():
            own[store][name] = batch[store][name][rows]
    if "history" in batch.rows:
        past = slice(t * batch.rows["history"], (t + 1) * batch.rows["history"])
        for name in ("n_id", "age", "days"):
            own["history"][name] = batch["history"][name][past]
        own["history"].batch = batch["history"].batch[past] - sample.start
        own["history"].num_nodes = batch.rows["history"]
    own[OF].edge_index = torch.stack([torch.arange(batch.rows["event"], device=real.device), own["event"].item])
    edge = slice(t * batch.rows["edge"], (t + 1) * batch.rows["edge"])
    own[NEXT].edge_index = batch[NEXT].edge_index[:, edge] - item.start
    own[NEXT].weight = batch[NEXT].weight[edge]
    for name in ("item", "event", "sample"):
        own[name].num_nodes = batch.rows[name]
    _add_further_stores(own, batch, t)
    own.rows, own.num_tasks, own.longest, own.has_targets = batch.rows, 1, batch.longest, batch.has_targets
    return own


def _add_further_stores(own: HeteroData, batch: HeteroData, t: int) -> None:
    """Copy task t's rows of the stores of :mod:`graphmeta.sampling.subgraph`, if there are any."""
    size: dict[Any, int] = batch.rows
    if "clicked" in batch["item"]:
        own["item"].clicked = batch["item"].clicked[t * size["item"] : (t + 1) * size["item"]]
    for kind in batch.node_types:
        if kind in ("item", "event", "sample"):
            continue
        rows = slice(t * size[kind], (t + 1) * size[kind])
        for name, values in batch[kind].items():
            if isinstance(values, torch.Tensor):
                own[kind][name] = values[rows] - t * size["sample"] if name == "batch" else values[rows]
        own[kind].num_nodes = size[kind]
    for relation in batch.edge_types:
        if relation in (NEXT, OF):
            continue
        columns = slice(t * size[relation], (t + 1) * size[relation])
        for name, values in batch[relation].items():
            own[relation][name] = values[..., columns]
        source, target = own[relation].edge_index.unbind(0)
        own[relation].edge_index = torch.stack([source - t * size[relation[0]], target - t * size[relation[2]]])
