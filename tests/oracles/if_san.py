"""IF-SAN, one session at a time (CBML eqs 1–8, papers §2.2)."""

import math

import torch
from torch import Tensor

from tests.oracles.weights import ITEMS, Reads, Weights, linear


def attribute_vectors(w: Weights, fields: dict[str, list[int]], clicks: list[int]) -> Tensor:
    """Eqs 1–2: ``α = softmax_f(A W^f)``, ``e_a = Σ_f α_f ⊙ A_f``, dimension by dimension; a click a row.

    The printed ``b^f`` is the same for all fields and cancels. A single field is taken as it is.
    """
    rows = [w[f"features.fields.field_{name}.weight"][[codes[i] for i in clicks]] for name, codes in fields.items()]
    if len(rows) == 1:
        return rows[0]
    logits = [torch.exp(linear(w, "features.fuse.score", row)) for row in rows]
    return sum(logit / sum(logits) * row for logit, row in zip(logits, rows, strict=True))


def attention_block(w: Weights, name: str, x: Tensor) -> Tensor:
    """Eqs 3–4: ``F = softmax(X W_Q (X W_K)ᵀ / √d) X W_V``, ``E = ReLU(F W_1 + b_1) W_2 + b_2 + F``.

    X is one session, a click a row; its clicks see each other in both directions.
    """
    share = torch.exp(linear(w, f"{name}.query", x) @ linear(w, f"{name}.key", x).t() / math.sqrt(x.shape[1]))
    f = (share / share.sum(1, keepdim=True)) @ linear(w, f"{name}.value", x)
    return linear(w, f"{name}.outer", torch.relu(linear(w, f"{name}.inner", f))) + f


def level(w: Weights, name: str, x: Tensor, layers: int, mix: float) -> Tensor:
    """Eqs 5 and 7: ``w F[last] + (1 − w) e[last]`` after ``layers`` blocks with weights of their own.

    w is ``mix``, or ``1 / (1 + exp(−ℓ))`` if ℓ is learned.
    """
    states = x
    for number in range(layers):
        states = attention_block(w, f"{name}.block.blocks.{number}", states)
    share = 1 / (1 + torch.exp(-w[f"{name}.logit"])) if f"{name}.logit" in w else mix
    return share * states[-1] + (1 - share) * x[-1]


def if_san(fields: dict[str, list[int]], *, layers: int, mix: tuple[float, float] = (0.5, 0.5)) -> Reads:
    """Eq 8's session: ``S = [S_x ; S_a]``, of items and of attributes; without attributes ``S_x`` alone (CBML-F).

    Args:
        fields: each attribute's value of each item; mix: w_x and w_a, where they are not learned.
    """

    def reads(w: Weights, clicks: list[int]) -> Tensor:
        levels = [w[ITEMS][clicks]]
        if fields:
            levels.append(attribute_vectors(w, fields, clicks))
        return torch.cat([level(w, f"encoder.encoders.{at}", x, layers, mix[at]) for at, x in enumerate(levels)])

    return reads
