"""Rows and edges of a batch: items, events and samples as a heterogeneous graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.sampling.samples import Samples
from graphmeta.sampling.user_histories import HistoryColumns

NEXT = ("item", "next", "item")
OF = ("event", "of", "item")


def next_times(samples: Samples, time: np.ndarray) -> np.ndarray:
    """Time of each sample's target click, NaN where the log does not have it."""
    at = np.minimum(samples.end, len(time) - 1)
    known = (samples.end < len(time)) & (samples.item[at] == samples.target)  # no item is -1, the unknown target
    return np.where(known, time[at], np.nan)


# Value of each optional column in dummy rows.
DUMMY_VALUES: dict[str, float] = {
    "time": 0.0,
    "next_time": np.nan,
    "target": -1,
    "user": -1,
    "value": 0.0,
    "age": 0.0,
    "has_events": True,
}


@dataclass(frozen=True)
class BatchRows:
    """Arrays of a batch; for S, I and E see :mod:`graphmeta.sampling.session_batch`.

    ptr ``[S + 1]``: events of each sample; n_id ``[I]``: item of each item row; item_sample ``[I]``: its sample;
    event_item ``[E]``: item row of each event; edges ``[2, M]``, weight ``[M]``: transitions; event_columns ``[E]`` and
    sample_columns ``[S]``: further columns, by name; history: events of the users' earlier sessions.
    """

    ptr: np.ndarray
    n_id: np.ndarray
    item_sample: np.ndarray
    event_item: np.ndarray
    edges: np.ndarray
    weight: np.ndarray
    event_columns: dict[str, np.ndarray]
    sample_columns: dict[str, np.ndarray]
    history: HistoryColumns | None = None


def to_hetero_data(
    rows: BatchRows, *, real: np.ndarray | None = None, per_task: dict[str, int] | None = None, num_tasks: int = 1
) -> HeteroData:
    """The arrays as a batch, see :mod:`graphmeta.sampling.session_batch`.

    Args:
        real: rows of the samples that are not padding.
    """
    lengths = np.diff(rows.ptr)
    sample = np.repeat(np.arange(len(lengths)), lengths)
    of = torch.from_numpy(np.stack([np.arange(len(sample)), rows.event_item]))
    batch = HeteroData()
    item, event, query, following = batch["item"], batch["event"], batch["sample"], batch[NEXT]
    item.n_id, item.batch = torch.from_numpy(rows.n_id), torch.from_numpy(rows.item_sample)
    item.num_nodes = len(rows.n_id)
    event.item, event.batch = of[1], torch.from_numpy(sample)
    event.order = torch.from_numpy(np.arange(len(sample)) - rows.ptr[sample])
    event.num_nodes = len(sample)
    query.ptr = torch.from_numpy(rows.ptr)
    query.last = torch.from_numpy(np.maximum(rows.ptr[1:] - 1, 0))
    for store, columns in ((event, rows.event_columns), (query, rows.sample_columns)):
        for name, values in columns.items():
            store[name] = torch.from_numpy(values)
    if rows.history is not None:
        history, known = batch["history"], rows.history
        history.n_id, history.batch = torch.from_numpy(known.n_id), torch.from_numpy(known.sample)
        history.age, history.days = torch.from_numpy(known.age), torch.from_numpy(known.days).float()
        history.num_nodes = len(known.n_id)
    if real is not None:
        query.real = torch.from_numpy(real)
    query.num_nodes = len(lengths)
    batch[OF].edge_index = of
    following.edge_index, following.weight = torch.from_numpy(rows.edges), torch.from_numpy(rows.weight)
    batch.rows, batch.num_tasks, batch.longest = per_task or {}, num_tasks, int(lengths.max(initial=1))
    batch.has_targets = bool((rows.sample_columns["target"][slice(None) if real is None else real] >= 0).all())
    return batch


def transitions(event_item: np.ndarray, sample: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct transitions between item rows ``[2, M]``, sorted by source, and their counts ``[M]``."""
    step, size = np.flatnonzero(sample[1:] == sample[:-1]), max(num_rows, 1)
    key, count = np.unique(event_item[step] * size + event_item[step + 1], return_counts=True)
    return np.stack([key // size, key % size]), count.astype(np.float32)
