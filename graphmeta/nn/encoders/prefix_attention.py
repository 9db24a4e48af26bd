"""Causal attention over prefixes: a softmax over the clicks so far, for all clicks of a session at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.encoders.attention import in_blocks
from graphmeta.nn.encoders.dwell_time import DwellEmbedding
from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.nn.features.tables import UserFeatures

Part = tuple[Tensor, Tensor]


def running_mean(scores: Tensor, values: Tensor) -> Tensor:
    """``q_t = Σ_{i≤t} e^{s_i} h_i / Σ_{i≤t} e^{s_i}`` for every t, in O(n) work and without overflow.

    A segment of clicks is represented by its log-weight ``ℓ = log Σ e^{s_i}`` and its mean; two adjacent segments
    combine to ``logaddexp(ℓ_1, ℓ_2)`` and ``q_1 + σ(ℓ_2 − ℓ_1)(q_2 − q_1)``. A parallel prefix scan combines
    neighbours, scans the pairs and fills in the rest. There is no division and no exponential above 1, whatever the
    scores; a running sum of ``e^{s_i − max}`` would underflow for clicks before a high score.

    Shapes: scores ``[S, L]``, values ``[S, L, D]`` -> ``[S, L, D]``.
    """
    return _scan((scores, values))[1]


def _join(first: Part, second: Part) -> Part:
    ahead = second[0] - first[0]
    # torch.logaddexp has NaN second derivatives where one term is much larger.
    weight = torch.where(ahead > 0, second[0] + F.softplus(-ahead), first[0] + F.softplus(ahead))
    return weight, first[1] + torch.sigmoid(ahead)[:, :, None] * (second[1] - first[1])


def _scan(parts: Part) -> Part:
    """Combine every prefix of the parts."""
    length = parts[0].shape[1]
    if length == 1:
        return parts
    odd = _scan(_join(_at(parts, slice(0, length - 1, 2)), _at(parts, slice(1, length, 2))))
    even = _at(parts, slice(0, 1))
    if length > 2:
        later = _join(_at(odd, slice(0, (length - 1) // 2)), _at(parts, slice(2, length, 2)))
        even = torch.cat([even[0], later[0]], 1), torch.cat([even[1], later[1]], 1)
    return _zipped(even[0], odd[0]), _zipped(even[1], odd[1])


def _at(parts: Part, where: slice) -> Part:
    return parts[0][:, where], parts[1][:, where]


def _zipped(even: Tensor, odd: Tensor) -> Tensor:
    """``even_0, odd_0, even_1, odd_1, …`` along dimension 1; there may be one more even than odd."""
    pairs = torch.stack([even[:, : odd.shape[1]], odd], 2).flatten(1, 2)
    return torch.cat([pairs, even[:, odd.shape[1] :]], 1)


class PrefixAttention(nn.Module):
    """Attention of each click over the clicks up to it, with scores ``s_i = tanh(W k_i + b) · a_i``.

    Shapes: states ``[E, D]``, keys ``[E, K]``, against ``[E, A]`` -> ``[E, D]``.
    Source: ASARS eqs 15–19.
    Differs: the causal mask is −∞ (eq 18 prints zeros, to which a softmax gives weight), and the keys are multiplied
    with the item state or the user vector (eq 18 prints the user's bias).
    """

    def __init__(self, keys: int, against: int) -> None:
        super().__init__()
        self.key = nn.Linear(keys, against)

    def forward(self, states: Tensor, batch: HeteroData, *, keys: Tensor, against: Tensor) -> Tensor:
        """New states of the clicks."""
        scores = (torch.tanh(self.key(keys)) * against).sum(1, keepdim=True)
        both = torch.cat([scores, states], 1)
        return in_blocks(lambda block, _: running_mean(block[:, :, 0], block[:, :, 1:]), both, batch)


class DwellAttention(nn.Module):
    """Attention over item states, with keys from a second network over dwell times:
    ``s_i = tanh(W h^time_i + b) · h_i``.

    Shapes: ``x [I, D] -> [E, hidden]``. Source: ASARS eqs 15–19 with time.
    """

    def __init__(
        self, network: Recurrent, dwell: DwellEmbedding, over_dwell: Recurrent, attention: PrefixAttention
    ) -> None:
        super().__init__()
        self.network, self.dwell, self.over_dwell, self.attention = network, dwell, over_dwell, attention

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        states = self.network(x, batch)
        keys = self.over_dwell.over_clicks(self.dwell(batch), batch)
        return self.attention(states, batch, keys=keys, against=states)


class WithUser(nn.Module):
    """States concatenated with the user vector, ``[h_t ; e_u]``; with ``attention`` over them, ``[q_t ; e_u]``.

    The attention scores are ``s_i = tanh(W h_i + b) · e_u``. An unknown user is a zero vector, which weights all clicks
    equally.

    Shapes: ``x [I, D] -> [E, hidden + user's width]``. Source: ASARS, section 3.4 and eqs 15–19 with users.
    """

    def __init__(self, encoder: nn.Module, users: UserFeatures, attention: PrefixAttention | None = None) -> None:
        super().__init__()
        self.encoder, self.users, self.attention = encoder, users, attention

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        states = self.encoder(x, batch)
        user = self.users.of_samples(batch).index_select(0, batch["event"].batch)
        if self.attention is not None:
            states = self.attention(states, batch, keys=states, against=user)
        return torch.cat([states, user], 1)
