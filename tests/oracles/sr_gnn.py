"""SR-GNN, one session graph at a time (papers §2.5)."""

import torch
from torch import Tensor

from tests.oracles.weights import ITEMS, Weights, linear


def mean_or_zero(rows: list[Tensor], width: int) -> Tensor:
    """A row of ``A H``: the matrix is normalised by degree, and a node without neighbours has a zero row."""
    return sum(rows) / len(rows) if rows else torch.zeros(width, dtype=torch.float64)


def graph_step(w: Weights, h: dict[int, Tensor], clicks: list[int], *, weighted: bool) -> dict[int, Tensor]:
    """``a = [A_in(H W_in + b_in) + b'_in ; A_out(H W_out + b_out) + b'_out]``, ``H' = GRU(a, H)``.

    A transition that is made twice is one edge, with ``weighted`` two; an item clicked twice in a row is its own
    neighbour.
    """
    edges = list(zip(clicks, clicks[1:], strict=False))
    edges = edges if weighted else list(dict.fromkeys(edges))
    found = {}
    for node, state in h.items():
        width = len(state)
        before = [linear(w, "encoder.incoming", h[one]) for one, other in edges if other == node]
        after = [linear(w, "encoder.outgoing", h[other]) for one, other in edges if one == node]
        a = torch.cat([mean_or_zero(before, width), mean_or_zero(after, width)]) + w["encoder.bias"]
        of_a = w["encoder.cell.weight_ih"] @ a + w["encoder.cell.bias_ih"]
        of_h = w["encoder.cell.weight_hh"] @ state + w["encoder.cell.bias_hh"]
        r = torch.sigmoid(of_a[:width] + of_h[:width])
        z = torch.sigmoid(of_a[width : 2 * width] + of_h[width : 2 * width])
        n = torch.tanh(of_a[2 * width :] + r * of_h[2 * width :])
        found[node] = (1 - z) * n + z * state
    return found


def sr_gnn(w: Weights, clicks: list[int], *, steps: int = 1, weighted: bool = False) -> Tensor:
    """``S = [Σ_i α_i h_i ; h_last]``, ``α_i = qᵀ σ(W_1 h_last + W_2 h_i + c)``, over positions, so repeats count."""
    h = {item: w[ITEMS][item] for item in dict.fromkeys(clicks)}
    for _ in range(steps):
        h = graph_step(w, h, clicks, weighted=weighted)
    last = h[clicks[-1]]
    total = torch.zeros_like(last)
    for item in clicks:
        hidden = torch.sigmoid(linear(w, "head.readout.of_last", last) + linear(w, "head.readout.of_each", h[item]))
        total = total + linear(w, "head.readout.score", hidden) * h[item]
    return torch.cat([total, last])
