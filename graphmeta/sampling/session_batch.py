"""Samples to one flat HeteroData, vectorised: no padding, no Python loop over sessions.

A *sample* is a context (a contiguous window of clicks) and its next click. A batch of samples holds

* ``item``: one row for each distinct item of each sample (``n_id``, ``batch`` = its sample);
* ``event``: one row for each click (``item`` = its item row, ``batch`` = its sample, ``order`` = position 0, 1, …);
* ``sample``: ``ptr`` (its events are ``ptr[s]:ptr[s + 1]``), ``last`` (row of its last event), ``target``; if some
  sample has no event, ``has_events`` is the mask of samples with events;
* ``history``, if the samples have earlier sessions of their users: one row for each event of these (``n_id`` = its
  item, ``batch`` = the sample, ``age`` = how many sessions ago, 1 is the latest, ``days`` before the question);
* optional columns of the log: ``event.time`` and ``sample.next_time`` (seconds; NaN when recommending, or if the log
  does not have the next click), ``sample.user`` (-1: unknown), ``sample.value`` (of the target), ``sample.age`` (of a
  support sample's session, in sessions ago);
* edges ``(item, next, item)``, one per distinct transition, with ``weight`` = its count, and ``(event, of, item)``.

GNN, RNN, CNN and attention encoders all read this form. With ``task`` given, the rows are grouped by task
(*task-major*): task t owns the rows ``t·R … (t + 1)·R - 1`` of every store and of the ``next`` edges, R the same for
all tasks (stored in ``batch.rows``), padded with dummy samples, which losses and scores ignore. ``sample.real`` holds
the rows of the samples that are not padding, in order; batches without tasks have no padding and no ``real``.

Two sizes are stored as Python numbers, to avoid a GPU synchronisation: ``batch.longest``, the clicks of the longest
sample, and ``batch.has_targets``, whether each real sample has a target.

Letters of shapes, here and in all docstrings: S samples, E events (clicks) of the samples, I item rows (distinct items
of each sample), C candidates (items that are scored), T tasks, M transitions (edges), N all events of a log or any
other number, which the docstring names.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.overrides import handle_torch_function, has_torch_function_variadic
from torch_geometric.data import HeteroData

from graphmeta.data.splits import check_log
from graphmeta.sampling.batch_rows import BatchRows, next_times, to_hetero_data, transitions
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.task_layout import task_major


def session_batch(
    samples: Samples, *, num_items: int, task: np.ndarray | None = None, num_tasks: int = 0
) -> HeteroData:
    """The session graphs of these samples as one graph; task-major if ``task`` (sorted, ``[S]``) is given.

    Args:
        num_items: size of the item vocabulary.
        num_tasks: number of tasks (some may have no sample).

    Raises:
        InputError: a log, a split or a file instead of samples.
    """
    rows = session_rows(samples, num_items=num_items)
    return to_hetero_data(rows) if task is None else task_major(rows, task, num_tasks)


def session_rows(samples: Samples, *, num_items: int) -> BatchRows:
    """The arrays of a batch of these samples, see :func:`session_batch`."""
    if not isinstance(samples, Samples):
        check_log("session_batch", samples, samples_of="last_clicks")
    where, ptr = ragged(samples.begin, samples.lengths)
    click, sample = samples.item[where], np.repeat(np.arange(len(samples)), np.diff(ptr))
    key, event_item = np.unique(sample * num_items + click, return_inverse=True)
    edges, weight = transitions(event_item, sample, len(key))
    event_columns, sample_columns = {}, {"target": samples.target}
    if samples.time is not None:
        event_columns["time"] = samples.time[where]
        sample_columns["next_time"] = next_times(samples, samples.time)
    given = {name: getattr(samples, name) for name in ("user", "value", "age")}
    sample_columns |= {name: column for name, column in given.items() if column is not None}
    if (samples.lengths == 0).any():
        sample_columns["has_events"] = samples.lengths > 0
    history = None if samples.earlier is None else samples.earlier.columns()
    return BatchRows(
        ptr, key % num_items, key // num_items, event_item, edges, weight, event_columns, sample_columns, history
    )


def rows_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``rows_like(zeros, x)`` returns ``zeros``: row i of ``zeros`` belongs to the task of row i of ``x``.

    The stacked engine tracks the task of each row of a tensor; new tensors such as zeros have none. Declare it before
    they are combined with per-task weights. Without an adaptation this returns ``x`` unchanged.

    Shapes: ``[N, …]`` and ``[N, …]`` -> ``[N, …]``.
    """
    if has_torch_function_variadic(x, like):
        return handle_torch_function(rows_like, (x, like), x, like)
    return x


def real_samples(batch: HeteroData, values: torch.Tensor) -> torch.Tensor:
    """The rows of ``values`` ``[S, …]`` that belong to real samples, in their order."""
    real = batch["sample"].get("real")
    return values if real is None else values.index_select(0, real)


def clicked_items(batch: HeteroData) -> HeteroData:
    """The batch with the item rows that were clicked only, for parts that read each item row as a click's.

    Batches of :class:`~graphmeta.sampling.subgraph.SubgraphSampler` have further rows (``item.clicked`` is their mask);
    others are returned as they are. The result has no edges.
    """
    clicked = batch["item"].get("clicked")
    if clicked is None:
        return batch
    own = copy.copy(batch)
    for relation in own.edge_types:
        del own[relation]
    row = clicked.nonzero().squeeze(1)
    for name in ("n_id", "batch"):
        own["item"][name] = batch["item"][name].index_select(0, row)
    own["event"].item = (clicked.cumsum(0) - 1).index_select(0, batch["event"].item)
    own["item"].num_nodes = len(row)
    return own


def without_targets(batch: HeteroData) -> HeteroData:
    """A shallow copy of the batch without targets and their values.

    ``sample.next_time`` stays: it is an input of encoders with ``DwellBins(lag=0)``, which warn that it leaks the time
    of the next click, and the start of an adaptation sees a session as its encoder does. No other part reads it.
    """
    hidden = copy.copy(batch)
    for name in [name for name in ("target", "value") if name in hidden["sample"]]:
        del hidden["sample"][name]
    return hidden
