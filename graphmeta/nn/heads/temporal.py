"""Time-dependent preferences and popularity: item biases per period, user drift."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.features.tables import ItemFeatures, Table, UserFeatures
from graphmeta.nn.heads.dot import Dot

_DAY = 86_400.0


class TemporalItems(ItemFeatures):
    """Items with all that :class:`TemporalDot` scores against: vector, factors of the bias per period, bias, and a one.

    Shapes: ``n_id [I] -> (x [I, width], candidates [num_items, width + rank + 2])``.
    """

    def __init__(self, num_items: int, width: int, *, rank: int = 8) -> None:
        super().__init__(num_items, width + rank, bias=True)
        self.width = width

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items, and the table of all items."""
        x, table = super().forward(n_id)
        return x, torch.cat([table, table.new_ones(len(table), 1)], 1)


class TemporalDot(Dot):
    """``r_k(t) = e_k · (e_u + α_u g_u(t)) + b_k + b_{k,bin(t)} + μ + b_u + α_u dev_u(t)``.

    g is the projected readout, ``b_{k,bin} = v_k · w_bin`` a low-rank table over equally long periods of the training
    log (later times fall in the last), ``dev_u(t) = sign(t − t̄_u) |t − t̄_u|^0.4`` in days, t̄_u the mean time of the
    user's training clicks, and t the time of the last known click. The last three terms are the same
    for every item: they cannot change a ranking, nor a loss that compares items, and matter to pointwise losses.
    An unknown user has ``e_u = b_u = 0``, ``α_u = 1`` and the mean time of all clicks.

    Args:
        num_users: number of users.
        width: of items.
        rank: of the table.
        periods: their number.

    Shapes: states ``[E, D]``, candidates ``[C, width + rank + 2]`` -> ``[S, C]``.
    Source: ASARS eqs 5–14; Koren 2009 (timeSVD++) for dev and the bins.
    Differs: eq 14 multiplies the state's input by dev of the item, eq 11 adds; here dev is the user's and is added.
    """

    def __init__(
        self, readout: nn.Module, project: nn.Module, *, num_users: int, width: int, rank: int = 8, periods: int = 30
    ) -> None:
        super().__init__(readout, project, bias=True)
        self.width, self.users, self.periods = width, UserFeatures(num_users, width + 2), Table(periods, rank)
        nn.init.zeros_(self.users.user.weight[:, width:])
        self.mean = nn.Parameter(torch.zeros(()))
        self.begin: Tensor
        self.length: Tensor
        self.mean_time: Tensor
        self.register_buffer("begin", torch.zeros((), dtype=torch.float64))
        self.register_buffer("length", torch.full((), _DAY, dtype=torch.float64))
        self.register_buffer("mean_time", torch.zeros(num_users + 1, dtype=torch.float64))

    def fit_statistics(self, log: EventLog) -> None:
        """Store the begin and end of the log, and the mean time of each user's clicks.

        Raises:
            InputError: a log without times or users.
        """
        if not log.has_time or log.session_user is None:
            raise InputError("temporal biases need times and users; name the log's time and user columns")
        start, size = log.time.min(), len(self.mean_time) - 1
        since, user = log.time - start, log.session_user[log.session]
        known = user >= 0
        count = np.bincount(user[known], minlength=size)
        total = np.bincount(user[known], since[known], minlength=size)
        own = np.where(count > 0, total / np.maximum(count, 1), since.mean())
        self.mean_time.copy_(torch.from_numpy(start + np.append(own, since.mean())))
        self.begin.fill_(start)
        self.length.fill_(max(np.ptp(log.time), 1.0) / self.periods.weight.shape[0])

    def extend_users(self, users: EntityTable) -> None:
        """Add users, who have the mean time of all clicks."""
        more = len(users) + 1 - len(self.mean_time)
        self.mean_time = torch.cat([self.mean_time, self.mean_time[-1:].expand(more)])

    def period(self, time: Tensor) -> Tensor:
        """Index of the period of each time."""
        last = self.periods.weight.shape[0] - 1
        return ((time - self.begin) / self.length).floor().clamp(0, last).long()

    def deviation(self, time: Tensor, user: Tensor) -> Tensor:
        """dev of each user (−1: unknown) at each time, in days^0.4."""
        days = (time - self.mean_time.index_select(0, user.remainder(len(self.mean_time)))) / _DAY
        return days.sign() * days.abs().pow(0.4)

    def column_parts(self) -> dict[str, slice]:
        """As of :class:`Dot`, ``popularity in the period``, and ``level of the user and time``, equal for all items."""
        period = slice(self.width, -2)
        columns = {"product": slice(0, self.width), "popularity in the period": period, "item bias": slice(-2, -1)}
        return columns | {"level of the user and time": slice(-1, None)}

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """``[e_u + α_u g ; w_bin ; 1 ; μ + b_u + α_u dev]``, ``[S, width + rank + 2]``."""
        if "time" not in batch["event"]:
            raise InputError("temporal biases need the times of the clicks; pass times, one per click, in seconds")
        own, time = self.users.of_samples(batch), batch["event"].time.index_select(0, batch["sample"].last)
        user = batch["sample"].get("user", torch.full_like(batch["sample"].last, -1))
        alpha, bias = 1 + own[:, self.width, None], own[:, self.width + 1, None]
        read = self.of_clicks(self.project(self.readout(states, batch)), batch)
        vector = own[:, : self.width] + alpha * read
        drift = alpha * self.deviation(time, user)[:, None].to(alpha.dtype)
        level = bias + drift + self.mean
        return torch.cat([vector, self.periods(self.period(time)), torch.ones_like(level), level], 1)
