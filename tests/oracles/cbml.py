"""CBML above a base recommender: clusters, gates, prediction (CBML eqs 9–15, papers §2.3–2.4)."""

import torch
from torch import Tensor

from tests.oracles.weights import Reads, Weights, linear, softmax

WEIGHT, BIAS = "head.project.weight", "head.project.bias"
PARTS = {"both": lambda s, c: torch.cat([s, c]), "session": lambda s, c: s, "cluster": lambda s, c: c}


def cluster(w: Weights, session: Tensor) -> Tensor:
    """Eqs 9–11: ``q = S W_q + b_q``, ``p_k = exp(q·g_k) / Σ_j exp(q·g_j)``, ``C = Σ_k p_k g_k``."""
    q = linear(w, "head.project.prototypes.query", session)
    centres = list(w["head.project.prototypes.centres"])
    p = softmax(torch.stack([q @ g for g in centres]))
    return sum(share * g for share, g in zip(p, centres, strict=True))


def gated(w: Weights, gate: str, name: str, seen: Tensor, granularity: str) -> Tensor:
    """Eqs 12–14: ``o = σ(FC(seen))``, ``θ · o``.

    A value for each number; of the matrix, for each output (``row``), each input (``column``), or both (``rank1``).
    """
    o = torch.sigmoid(linear(w, gate, seen))
    if w[name].dim() == 1:
        return w[name] * o
    out, size = w[name].shape
    if granularity == "row":
        return torch.stack([row * value for row, value in zip(w[name], o, strict=True)])
    if granularity == "column":
        return torch.stack([row * o for row in w[name]])
    if granularity == "rank1":
        return torch.stack([w[name][i] * o[i] * o[out:] for i in range(out)])
    return w[name] * o.reshape(out, size)


def gate_of_session(reads: Reads, gate: str, granularity: str):
    """The start of a task: the prediction layer under a gate of its known clicks, by the shared weights."""

    def start(w: Weights, known: list[int]) -> Weights:
        session = reads(w, known)
        seen = PARTS[gate](session, cluster(w, session))
        names = {WEIGHT: "adaptation.start.gates.head/project/weight", BIAS: "adaptation.start.gates.head/project/bias"}
        return {name: gated(w, fc, name, seen, granularity) for name, fc in names.items()}

    return start


def prediction(w: Weights, session: Tensor) -> Tensor:
    """Eq 15: ``[S ; C] W_u + b_u``, whatever the weights of the task are."""
    return linear(w, "head.project", torch.cat([session, cluster(w, session)]))


def gated_prediction(gate: str, granularity: str):
    """Eq 15 with a gate for each sample: ``(W · o_W(x)) x + b · o_b(x)``."""

    def predict(w: Weights, session: Tensor) -> Tensor:
        code = cluster(w, session)
        seen = PARTS[gate](session, code)
        weight, bias = (
            gated(w, f"head.project.gate.gates.{short}", name, seen, granularity)
            for short, name in (("weight", WEIGHT), ("bias", BIAS))
        )
        return weight @ torch.cat([session, code]) + bias

    return predict
