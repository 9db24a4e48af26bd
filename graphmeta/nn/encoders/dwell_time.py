"""Dwell times between the clicks of a session, in bins whose width follows Scott's rule."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.nn.features.tables import Table


def dwell_times(batch: HeteroData, *, lag: int = 1) -> Tensor:
    """Seconds before each click (``lag=1``) or after it (``lag=0``), ``[E]``: NaN if unknown, −1 if there is none.

    A sample's first click has no dwell time before it; after its last one, the dwell time lasts until
    ``sample.next_time``.
    """
    event = batch["event"]
    if "time" not in event:
        unknown = torch.full((event.num_nodes,), torch.nan, dtype=torch.float64, device=event.item.device)
        return torch.where(event.order > 0, unknown, -1.0) if lag else unknown
    step = event.time.diff()
    if lag:
        return torch.where(event.order > 0, torch.nn.functional.pad(step, (1, 0)), -1.0)
    end = batch["sample"].ptr[1:].index_select(0, event.batch)
    is_last = torch.arange(event.num_nodes, device=end.device) + 1 == end
    after = batch["sample"].next_time.index_select(0, event.batch) - event.time
    return torch.where(is_last, after, torch.nn.functional.pad(step, (0, 1)))


class DwellBins(nn.Module):
    """Bin index of each click's dwell time; bins are fitted on the training log (:meth:`fit_statistics`).

    With dwell times clipped at their 99th percentile, σ their standard deviation and n their number, Scott's rule gives
    ``h = 3.49 σ n^(−1/3)`` and ``min(⌈range / h⌉, max_bins)`` bins of equal width over the range; values outside fall
    in the first or last bin. Id 0 is "none", ``max_bins + 1`` "unknown", ids between are bins. Before
    ``fit_statistics`` a bin is one second.

    Args:
        lag: 1 for the dwell time before a click, which is complete when the click comes; 0 for the one after it, which
            ends with the next click and so leaks its time.
        logarithm: bins of ``log(1 + seconds)``.

    Shapes: ``batch -> [E]`` int64.
    Source: ASARS eq 8 (Scott 1979).
    Differs: dwell times are clipped before σ is computed, which a few long ones would dominate.
    """

    reads_times = True

    def __init__(self, *, lag: int = 1, max_bins: int = 1024, logarithm: bool = False) -> None:
        super().__init__()
        if lag not in (0, 1):
            raise InputError(f"dwell_lag={lag!r} must be 1 (the dwell time before a click) or 0 (the one after it)")
        self.lag, self.max_bins, self.logarithm = lag, max_bins, logarithm
        self.low: Tensor
        self.size: Tensor
        self.bins: Tensor
        self.register_buffer("low", torch.zeros((), dtype=torch.float64))
        self.register_buffer("size", torch.ones((), dtype=torch.float64))
        self.register_buffer("bins", torch.tensor(max_bins))

    @property
    def num_ids(self) -> int:
        """Number of ids, used or not."""
        return self.max_bins + 2

    def fit_statistics(self, log: EventLog) -> None:
        """Fit the bins to the dwell times of this log.

        Raises:
            InputError: a log without times.
        """
        if not log.has_time:
            raise InputError("this system reads dwell times between clicks; name the log's time column")
        if self.lag == 0:
            warnings.warn(
                "dwell_lag=0 leaks the time of the next click; dwell_lag=1 uses completed dwell times only",
                stacklevel=2,
            )
        gaps = np.diff(log.time)[np.diff(log.session) == 0]
        if len(gaps) == 0:
            raise InputError("no session has two clicks, so there are no dwell times; provide longer sessions")
        gaps = np.minimum(gaps, np.quantile(gaps, 0.99))
        gaps = np.log1p(gaps) if self.logarithm else gaps
        low, extent, width = gaps.min(), np.ptp(gaps), 3.49 * gaps.std() * len(gaps) ** (-1 / 3)
        bins = min(math.ceil(extent / width), self.max_bins) if width > 0 else 1
        self.low.fill_(low)
        self.size.fill_(extent / bins if extent > 0 else 1.0)
        self.bins.fill_(bins)

    def forward(self, batch: HeteroData) -> Tensor:
        """Bin ids of the clicks' dwell times."""
        gap = dwell_times(batch, lag=self.lag)
        value = torch.log1p(gap.clamp(min=0)) if self.logarithm else gap
        place = ((value - self.low) / self.size).nan_to_num(0.0).floor().clamp(min=0).minimum(self.bins - 1)
        found = torch.where(gap == -1, 0, place.long() + 1)
        return torch.where(gap.isnan(), self.max_bins + 1, found)


class DwellEmbedding(nn.Module):
    """An embedding of each click's dwell-time bin: ``batch -> [E, width]``. "None" and "unknown" start as zeros."""

    def __init__(self, bins: DwellBins, width: int) -> None:
        super().__init__()
        self.bins, self.table = bins, Table(bins.num_ids, width)
        with torch.no_grad():
            self.table.weight[[0, -1]] = 0.0

    def forward(self, batch: HeteroData) -> Tensor:
        """Embeddings of the dwell times."""
        return self.table(self.bins(batch))


class DwellRecurrent(nn.Module):
    """A recurrent network over ``[item ; dwell time]``. Shapes: ``x [I, D] -> [E, hidden]``. Source: ASARS, section
    3.4.
    """

    def __init__(self, dwell: DwellEmbedding, network: Recurrent) -> None:
        super().__init__()
        self.dwell, self.network = dwell, network

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        clicks = x.index_select(0, batch["event"].item)
        return self.network.over_clicks(torch.cat([clicks, self.dwell(batch)], 1), batch)
