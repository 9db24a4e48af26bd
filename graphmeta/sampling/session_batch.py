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
of the longest sample, and ``batch.has_targets``, whether each real sample has a target.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.overrides import handle_torch_function, has_torch_function_variadic
from torch_geometric.data import HeteroData

from graphmeta.sampling.batch_rows import BatchRows, hetero, next_times, transitions
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.task_layout import task_major


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
    edges, weight = transitions(item_row, sample, len(key))
    of_event, of_sample = {}, {"target": samples.target}
    if samples.time is not None:
        of_event["time"] = samples.time[where]
        of_sample["next_time"] = next_times(samples, samples.time)
    of_sample |= {name: getattr(samples, name) for name in ("user", "value") if getattr(samples, name) is not None}
    if (samples.lengths == 0).any():
        of_sample["known"] = samples.lengths > 0
    rows = BatchRows(ptr, key % num_items, key // num_items, item_row, edges, weight, of_event, of_sample)
    return hetero(rows) if task is None else task_major(rows, task, num_tasks)


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
