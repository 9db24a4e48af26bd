"""MAMO's task memory above a base recommender (papers §2.10)."""

import torch
from torch import Tensor

from tests.oracles.weights import Reads, Weights, linear, softmax

SLOTS, KEYS, MEMORY = (f"head.project.memory.{name}" for name in ("slots", "keys", "weight"))


def address(w: Weights, session: Tensor) -> Tensor:
    """``a_k = softmax_k(S · κ_k)``."""
    return softmax(torch.stack([session @ key for key in w[KEYS]]))


def read_memory(reads: Reads):
    """The start of a task: ``M_S = Σ_k a_k M_k`` of its known clicks, by the shared weights."""

    def start(w: Weights, known: list[int]) -> Weights:
        a = address(w, reads(w, known))
        return {MEMORY: sum(share * slot for share, slot in zip(a, w[SLOTS], strict=True))}

    return start


def prediction(w: Weights, session: Tensor) -> Tensor:
    """``W (M_S S + b_M) + b``: the memory's layer before the prediction layer, nothing between them."""
    return linear(w, "head.project", linear(w, "head.project.memory", session))


def written(slots: Tensor, noted: list[tuple[Tensor, Tensor]], rate: float) -> Tensor:
    """``M_k ← M_k + γ mean_t a_tk (x_t − M_k)`` of the tasks' addresses a_t and memory layers x_t after their steps."""
    found = []
    for k, slot in enumerate(slots):
        change = sum(a[k] * (x - slot) for a, x in noted) / len(noted)
        found.append(slot + rate * change)
    return torch.stack(found)
