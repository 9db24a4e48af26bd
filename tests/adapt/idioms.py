"""The rest of the catalogue :data:`tests.adapt.layers.LAYERS`: layers of torch, and what people write themselves."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.utils import parametrizations, rnn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import HeteroData
from torch_geometric.utils import add_self_loops, scatter, softmax

from tests.adapt.layers import (
    ABSENT,
    EVAL_ONLY,
    ITEMS,
    LAYERS,
    PLAIN,
    THREE_STEPS,
    Clicks,
    Encoder,
    Fixed,
    Padded,
    Rows,
    add,
    edges,
    flat,
    lengths,
    looped,
    mlp,
    owner,
    parameter,
    samples,
    weights,
)

# Layers of torch.


def clicks(name: str, call: Callable[..., Tensor], parts: Callable[[int], dict[str, Any]]) -> None:
    add(name, Clicks, call, parts)


def rows(name: str, call: Callable[..., Tensor], parts: Callable[[int], dict[str, Any]]) -> None:
    add(name, Rows, call, parts)


def sessions(name: str, call: Callable[..., Tensor], parts: Callable[[int], dict[str, Any]]) -> None:
    add(name, Padded, call, parts)


clicks("torch Linear", lambda m, h, b: m.linear(h), lambda d: {"linear": nn.Linear(d, d)})
clicks("torch Linear without bias", lambda m, h, b: m.linear(h), lambda d: {"linear": nn.Linear(d, d, bias=False)})
clicks("torch Linear of one", lambda m, h, b: h * m.linear(h), lambda d: {"linear": nn.Linear(d, 1)})
clicks("torch Bilinear", lambda m, h, b: m.both(h, h.sin()), lambda d: {"both": nn.Bilinear(d, d, d)})
clicks("torch GRUCell", lambda m, h, b: m.cell(h, h.sin()), lambda d: {"cell": nn.GRUCell(d, d)})
clicks("torch GRUCell from nothing", lambda m, h, b: m.cell(h), lambda d: {"cell": nn.GRUCell(d, d)})
clicks("torch LSTMCell", lambda m, h, b: m.cell(h, (h.sin(), h.cos()))[0], lambda d: {"cell": nn.LSTMCell(d, d)})
clicks("torch RNNCell", lambda m, h, b: m.cell(h, h.sin()), lambda d: {"cell": nn.RNNCell(d, d)})
clicks(
    "torch RNNCell relu", lambda m, h, b: m.cell(h, h.sin()), lambda d: {"cell": nn.RNNCell(d, d, nonlinearity="relu")}
)

for _kind in (nn.GRU, nn.LSTM, nn.RNN):
    _name = f"torch {_kind.__name__}"
    sessions(_name, lambda m, h, k, b: m.rnn(h)[0], lambda d, c=_kind: {"rnn": c(d, d, batch_first=True)})
    sessions(
        f"{_name} of two layers",
        lambda m, h, k, b: m.rnn(h)[0],
        lambda d, c=_kind: {"rnn": c(d, d, num_layers=2, batch_first=True, bias=False)},
    )
    sessions(
        f"{_name} time first",
        lambda m, h, k, b: m.rnn(h.transpose(0, 1))[0].transpose(0, 1),
        lambda d, c=_kind: {"rnn": c(d, d)},
    )
    sessions(
        f"{_name} packed",
        lambda m, h, k, b: packed(m.rnn, h, b),
        lambda d, c=_kind: {"rnn": c(d, d, batch_first=True)},
    )
    sessions(
        f"{_name} packed both ways",
        lambda m, h, k, b: packed(m.rnn, h, b),
        lambda d, c=_kind: {"rnn": c(d, d // 2, batch_first=True, bidirectional=True)},
    )
    add(
        f"{_name} both ways",
        Fixed,
        lambda m, h, k, b: m.rnn(h)[0],
        lambda d, c=_kind: {"rnn": c(d, d // 2, batch_first=True, bidirectional=True, num_layers=2)},
    )
    sessions(
        f"{_name} from a learned state",
        lambda m, h, k, b: m.rnn(h, first_state(m, h))[0],
        lambda d, c=_kind: {"rnn": c(d, d, batch_first=True), "state": parameter(1, 1, d)},
    )
    sessions(
        f"{_name}, last state read",
        lambda m, h, k, b: h + m.last(last_state(m.rnn(h)[0], b))[:, None],
        lambda d, c=_kind: {"rnn": c(d, d, batch_first=True), "last": nn.Linear(d, d)},
    )
sessions(
    "torch LSTM proj_size",
    lambda m, h, k, b: m.last(m.rnn(h)[0]),
    lambda d: {"rnn": nn.LSTM(d, d, proj_size=d // 2, batch_first=True), "last": nn.Linear(d // 2, d)},
)
sessions(
    "torch GRU and Linear",
    lambda m, h, k, b: m.net[1](m.net[0](h)[0]),
    lambda d: {"net": nn.Sequential(nn.GRU(d, d, batch_first=True), nn.Linear(d, d))},
)


def packed(layer: nn.Module, h: Tensor, batch: HeteroData) -> Tensor:
    rows = rnn.pack_padded_sequence(h, lengths(batch), batch_first=True, enforce_sorted=False)
    return rnn.pad_packed_sequence(layer(rows)[0], batch_first=True, total_length=h.shape[1])[0]


def first_state(m: Any, h: Tensor) -> Any:
    state = m.state.expand(1, len(h), -1).contiguous()
    return (state, state.sin()) if isinstance(m.rnn, nn.LSTM) else state


def last_state(out: Tensor, batch: HeteroData) -> Tensor:
    return out[torch.arange(len(out)), lengths(batch) - 1]


def causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def both_masks(m: Any, h: Tensor, k: Tensor, b: HeteroData) -> Tensor:
    return m.attend(h, h, h, key_padding_mask=~k, attn_mask=causal(h.shape[1]), need_weights=False)[0]


for _first in (True, False):
    sessions(
        f"torch MultiheadAttention {'batch' if _first else 'time'} first",
        lambda m, h, k, b, f=_first: attended(m.attend, h, k, f),
        lambda d, f=_first: {"attend": nn.MultiheadAttention(d, 2, batch_first=f)},
    )
sessions(
    "torch MultiheadAttention with weights read",
    lambda m, h, k, b: attended_with(m.attend, h, k),
    lambda d: {"attend": nn.MultiheadAttention(d, 2, batch_first=True)},
)
sessions(
    "torch MultiheadAttention causal", both_masks, lambda d: {"attend": nn.MultiheadAttention(d, 3, batch_first=True)}
)
sessions(
    "torch MultiheadAttention added rows",
    lambda m, h, k, b: attended(m.attend, h, k, True),
    lambda d: {"attend": nn.MultiheadAttention(d, 2, batch_first=True, add_bias_kv=True, add_zero_attn=True)},
)
sessions(
    "torch MultiheadAttention other keys",
    lambda m, h, k, b: m.attend(h, h[..., :4], h[..., :3], key_padding_mask=~k, need_weights=False)[0],
    lambda d: {"attend": nn.MultiheadAttention(d, 2, kdim=4, vdim=3, batch_first=True, bias=False)},
)
sessions(
    "torch scaled_dot_product_attention",
    lambda m, h, k, b: m.out(
        F.scaled_dot_product_attention(*(part(h) for part in (m.q, m.k, m.v)), attn_mask=k[:, None, :])
    ),
    lambda d: {name: nn.Linear(d, d) for name in ("q", "k", "v", "out")},
)


def attended(attend: Any, h: Tensor, known: Tensor, batch_first: bool) -> Tensor:
    if batch_first:
        return attend(h, h, h, key_padding_mask=~known, need_weights=False)[0]
    t = h.transpose(0, 1)
    return attend(t, t, t, key_padding_mask=~known, need_weights=False)[0].transpose(0, 1)


def attended_with(attend: Any, h: Tensor, known: Tensor) -> Tensor:
    out, alpha = attend(h, h, h, key_padding_mask=~known)
    return out + alpha @ h


for _before in (True, False):
    sessions(
        f"torch TransformerEncoderLayer norm {'first' if _before else 'last'}",
        lambda m, h, k, b: m.layer(h, src_key_padding_mask=~k),
        lambda d, f=_before: {
            "layer": nn.TransformerEncoderLayer(d, 2, 2 * d, 0.0, batch_first=True, norm_first=f, activation="gelu")
        },
    )
sessions(
    "torch TransformerEncoderLayer causal",
    lambda m, h, k, b: m.layer(h, src_mask=causal(h.shape[1]), is_causal=True),
    lambda d: {"layer": nn.TransformerEncoderLayer(d, 2, d, 0.0, batch_first=True)},
)
sessions(
    "torch TransformerEncoder",
    lambda m, h, k, b: m.stack(h, src_key_padding_mask=~k),
    lambda d: {"stack": transformer(d, batch_first=True)},
)
sessions(
    "torch TransformerEncoder time first",
    lambda m, h, k, b: m.stack(h.transpose(0, 1), src_key_padding_mask=~k).transpose(0, 1),
    lambda d: {"stack": transformer(d, batch_first=False)},
)
sessions(
    "torch TransformerDecoderLayer",
    lambda m, h, k, b: m.layer(h, h.sin(), tgt_key_padding_mask=~k, memory_key_padding_mask=~k),
    lambda d: {"layer": nn.TransformerDecoderLayer(d, 2, d, 0.0, batch_first=True)},
)


def transformer(d: int, *, batch_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(d, 2, 2 * d, 0.0, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(d), enable_nested_tensor=False)


def convolved(m: Any, h: Tensor, k: Tensor, b: HeteroData) -> Tensor:
    return m.conv(h.transpose(1, 2))[..., : h.shape[1]].transpose(1, 2)


sessions("torch Conv1d", convolved, lambda d: {"conv": nn.Conv1d(d, d, 3, padding=1)})
sessions("torch Conv1d causal", convolved, lambda d: {"conv": nn.Conv1d(d, d, 3, padding=2)})
sessions("torch Conv1d depthwise", convolved, lambda d: {"conv": nn.Conv1d(d, d, 3, padding=1, groups=d)})
sessions("torch Conv1d dilated", convolved, lambda d: {"conv": nn.Conv1d(d, d, 2, padding=2, dilation=2, bias=False)})
sessions("torch Conv1d of one", convolved, lambda d: {"conv": nn.Conv1d(d, d, 1)})
sessions(
    "torch Conv2d",
    lambda m, h, k, b: m.conv(h[:, None])[:, 0],
    lambda d: {"conv": nn.Conv2d(1, 1, 3, padding=1)},
)
sessions(
    "torch ConvTranspose1d",
    convolved,
    lambda d: {"conv": nn.ConvTranspose1d(d, d, 2)},
)
clicks(
    "torch Embedding",
    lambda m, h, b: h * m.table(b["event"].order),
    lambda d: {"table": nn.Embedding(50, d)},
)
clicks(
    "torch Embedding of items",
    lambda m, h, b: h * m.table(b["item"].n_id)[b["event"].item],
    lambda d: {"table": nn.Embedding(ITEMS, d)},
)
clicks(
    "torch Embedding padding_idx",
    lambda m, h, b: h + m.table(b["event"].order),
    lambda d: {"table": nn.Embedding(50, d, padding_idx=0)},
)
sessions(
    "torch Embedding padded indices",
    lambda m, h, k, b: h + m.table((torch.arange(h.shape[1]) + 1) * k),
    lambda d: {"table": nn.Embedding(51, d, padding_idx=0)},
)
clicks(
    "torch Embedding of a computed table",
    lambda m, h, b: h + F.embedding(b["event"].order, m.table.weight * 2.0),
    lambda d: {"table": nn.Embedding(50, d)},
)
for _how in ("sum", "mean"):
    clicks(
        f"torch EmbeddingBag {_how}",
        lambda m, h, b: h + m.bag(b["item"].n_id[b["event"].item], b["sample"].ptr[:-1])[b["event"].batch],
        lambda d, how=_how: {"bag": nn.EmbeddingBag(ITEMS, d, mode=how)},
    )
clicks("torch PReLU", lambda m, h, b: m.act(m.linear(h)), lambda d: {"act": nn.PReLU(), "linear": nn.Linear(d, d)})
clicks(
    "torch PReLU by channel",
    lambda m, h, b: m.act(m.linear(h)),
    lambda d: {"act": nn.PReLU(d), "linear": nn.Linear(d, d)},
)
for _act in (nn.GLU, nn.Softplus, nn.Mish, nn.SiLU, nn.SELU, nn.Hardswish, nn.LogSoftmax, nn.Softmax):
    clicks(
        f"torch {_act.__name__}",
        lambda m, h, b: m.act(m.linear(h)),
        lambda d, a=_act: {
            "act": a(dim=-1) if a in (nn.GLU, nn.LogSoftmax, nn.Softmax) else a(),
            "linear": nn.Linear(d, 2 * d if a is nn.GLU else d),
        },
    )
clicks(
    "torch Sequential",
    lambda m, h, b: m.net(h),
    lambda d: {"net": nn.Sequential(nn.Linear(d, d), nn.LayerNorm(d), nn.GELU(), nn.Dropout(0.0), nn.Linear(d, d))},
)
clicks(
    "torch weight_norm",
    lambda m, h, b: m.linear(h),
    lambda d: {"linear": parametrizations.weight_norm(nn.Linear(d, d))},
)
clicks(
    "torch spectral_norm",
    lambda m, h, b: m.linear(h),
    lambda d: {"linear": parametrizations.spectral_norm(nn.Linear(d, d))},
)
EVAL_ONLY.add("torch spectral_norm")  # counts in training
clicks(
    "torch orthogonal",
    lambda m, h, b: m.linear(h),
    lambda d: {"linear": parametrizations.orthogonal(nn.Linear(d, d), orthogonal_map="cayley")},
)
clicks(
    "torch a parametrization",
    lambda m, h, b: m.linear(h),
    lambda d: {"linear": symmetric(nn.Linear(d, d))},
)


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def symmetric(linear: nn.Linear) -> nn.Linear:
    nn.utils.parametrize.register_parametrization(linear, "weight", Symmetric())
    return linear


clicks(
    "torch ParameterList",
    lambda m, h, b: sum((torch.tanh(h @ w) for w in m.list), h),
    lambda d: {"list": nn.ParameterList([parameter(d, d) for _ in range(3)])},
)
clicks(
    "torch ParameterDict",
    lambda m, h, b: h @ m.dict["a"] + m.dict["b"],
    lambda d: {"dict": nn.ParameterDict({"a": parameter(d, d), "b": parameter(d)})},
)
clicks(
    "torch CosineSimilarity",
    lambda m, h, b: h * m.like(m.linear(h), h)[:, None],
    lambda d: {"like": nn.CosineSimilarity(), "linear": nn.Linear(d, d)},
)
clicks("torch cdist", lambda m, h, b: torch.cdist(h, m.codes) @ m.codes, lambda d: {"codes": parameter(4, d)})

# Two names for one thing.


class Twice(nn.Module):
    """One module under two names."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.one = nn.Linear(d, d)
        self.other = self.one

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        return self.other(torch.tanh(self.one(x[batch["event"].item])))


class ListedTwice(nn.Module):
    """One convolution, twice in a list."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([pyg.GCNConv(d, d)] * 2)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x, edges(batch)))
        return x[batch["event"].item]


class Tied(nn.Module):
    """A parameter of two modules."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(d, d), nn.Linear(d, d)
        self.linear.weight = self.table.weight

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        h = x[batch["event"].item]
        return self.linear(h) + self.table(batch["event"].order % h.shape[1])


class Beside(nn.Module):
    """A plain list of the registered modules, a partial, a bound method and a closure that lead to one."""

    def __init__(self, d: int, how: str) -> None:
        super().__init__()
        self.linear, self.cell = nn.Linear(d, d), nn.GRUCell(d, d)
        linear = self.linear
        self.uses = {
            "list": [self.linear, self.linear],
            "partial": [functools.partial(mixed, self.linear)],
            "method": [self.linear.forward],
            "lambda": [lambda h: linear(h)],
            "dict": {"a": self.linear}.values(),
        }[how]

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        h = x[batch["event"].item]
        state = self.cell(h, h.sin())
        for use in self.uses:
            state = torch.tanh(use(state))
        return state


def mixed(layer: nn.Module, h: Tensor) -> Tensor:
    return layer(h) + h


LAYERS["idiom one module under two names"] = Twice
LAYERS["idiom one convolution twice in a list"] = ListedTwice
LAYERS["idiom one parameter of two modules"] = Tied
for _how, _text in {
    "list": "a plain list of modules beside the registered ones",
    "partial": "a partial that holds a module",
    "method": "a bound method of a module",
    "lambda": "a closure over a module",
}.items():
    LAYERS[f"idiom {_text}"] = lambda d, how=_how: Beside(d, how)

# Learned tensors among the sessions.


def token_in_front(m: Any, h: Tensor, k: Tensor, b: HeteroData) -> Tensor:
    longer = torch.cat([m.token.expand(len(h), 1, -1), h], 1)
    return m.rnn(longer)[0][:, 1:]


def token_repeated(m: Any, h: Tensor, k: Tensor, b: HeteroData) -> Tensor:
    longer = torch.cat([m.token[None, None].repeat(len(h), 1, 1), h], 1)
    known = torch.cat([k.new_ones(len(h), 1), k], 1)
    out = m.attend(longer, longer, longer, key_padding_mask=~known, need_weights=False)[0]
    return out[:, 1:] + out[:, :1]


sessions(
    "idiom a learned token in front",
    token_in_front,
    lambda d: {"token": parameter(1, 1, d), "rnn": nn.GRU(d, d, batch_first=True)},
)
sessions(
    "idiom a learned token in front of attention",
    token_repeated,
    lambda d: {"token": parameter(d), "attend": nn.MultiheadAttention(d, 2, batch_first=True)},
)
sessions(
    "idiom where with a learned vector",
    lambda m, h, k, b: (
        m.linear(torch.where(k[..., None], h, m.pad)).cumsum(1) + m.linear(torch.where(k[..., None], h, m.pad))
    ),
    lambda d: {"pad": parameter(d), "linear": nn.Linear(d, d)},
)
clicks(
    "idiom where of clicks",
    lambda m, h, b: torch.where((b["event"].order == 0)[:, None], m.first, h),
    lambda d: {"first": parameter(d)},
)
clicks(
    "idiom masked_fill by a weight",
    lambda m, h, b: h.masked_fill((b["event"].order == 0)[:, None], 0) + m.first * (b["event"].order == 0)[:, None],
    lambda d: {"first": parameter(1, d)},
)
clicks(
    "idiom a learned row for the first",
    lambda m, h, b: h.index_put(((b["event"].order == 0).nonzero()[:, 0],), m.first),
    lambda d: {"first": parameter(d)},
)

for _text, _spec in {"right": "ed,df->ef", "transposed": "ed,fd->ef"}.items():
    clicks(f"idiom einsum {_text}", lambda m, h, b, s=_spec: torch.einsum(s, h, m.w), lambda d: {"w": parameter(d, d)})
clicks("idiom einsum left", lambda m, h, b: torch.einsum("fd,ed->ef", m.w, h), lambda d: {"w": parameter(d, d)})
clicks(
    "idiom einsum three", lambda m, h, b: torch.einsum("ei,kij,ej->ek", h, m.w, h), lambda d: {"w": parameter(d, d, d)}
)
clicks("idiom einsum diagonal", lambda m, h, b: torch.einsum("ed,d->ed", h, m.w), lambda d: {"w": parameter(d)})
clicks(
    "idiom einsum heads",
    lambda m, h, b: torch.einsum("ehd,hdf->ehf", h.view(len(h), 2, -1), m.w).flatten(1),
    lambda d: {"w": parameter(2, d // 2, d // 2)},
)
sessions(
    "idiom einsum of sessions",
    lambda m, h, k, b: torch.einsum("sld,hde->slhe", h, m.w).flatten(2),
    lambda d: {"w": parameter(2, d, d // 2)},
)
sessions(
    "idiom einsum over time",
    lambda m, h, k, b: torch.einsum("sld,lm->smd", h, m.w[: h.shape[1], : h.shape[1]]),
    lambda d: {"w": parameter(60, 60)},
)
sessions(
    "idiom einsum of attention",
    lambda m, h, k, b: torch.einsum(
        "slm,smd->sld", torch.einsum("sld,de,sme->slm", h, m.w, h).masked_fill(~k[:, None], -1e9).softmax(-1), h
    ),
    lambda d: {"w": parameter(d, d)},
)

for _shape in ((), (1,), ("d",), (1, "d"), (1, 1, "d"), (1, 1, 1), (1, 1)):
    _text = "[" + ", ".join("D" if s == "d" else str(s) for s in _shape) + "]"
    sessions(
        f"idiom a weight {_text} on sessions",
        lambda m, h, k, b: torch.tanh(h * m.w + m.w),
        lambda d, shape=_shape: {"w": parameter(*(d if s == "d" else s for s in shape))},
    )
    if len(_shape) < 3:
        clicks(
            f"idiom a weight {_text} on clicks",
            lambda m, h, b: torch.tanh(m.w - h / (1 + m.w**2)),
            lambda d, shape=_shape: {"w": parameter(*(d if s == "d" else s for s in shape))},
        )
sessions(
    "idiom a table of positions, cut", lambda m, h, k, b: h + m.pos[: h.shape[1]], lambda d: {"pos": parameter(50, d)}
)
add("idiom a table of positions, whole", Fixed, lambda m, h, k, b: h + m.pos, lambda d: {"pos": parameter(50, d)})
sessions(
    "idiom a table of positions, unsqueezed",
    lambda m, h, k, b: h * m.pos[None, : h.shape[1]],
    lambda d: {"pos": parameter(50, d)},
)
sessions(
    "idiom a table of positions, narrowed",
    lambda m, h, k, b: h + m.pos.narrow(0, 0, h.shape[1]),
    lambda d: {"pos": parameter(50, d)},
)
clicks(
    "idiom a table of positions, indexed",
    lambda m, h, b: h + m.pos[b["event"].order],
    lambda d: {"pos": parameter(50, d)},
)
clicks(
    "idiom a table of positions from the end",
    lambda m, h, b: h + m.pos[lengths(b)[b["event"].batch] - 1 - b["event"].order],
    lambda d: {"pos": parameter(50, d)},
)
clicks(
    "idiom positions through a layer, indexed",
    lambda m, h, b: h + m.linear(m.pos)[b["event"].order],
    lambda d: {"pos": parameter(50, d), "linear": nn.Linear(d, d)},
)
sessions(
    "idiom a table for a table of positions",
    lambda m, h, k, b: h + m.pos(torch.arange(h.shape[1])),
    lambda d: {"pos": nn.Embedding(50, d)},
)
sessions("idiom a bias of relative positions", lambda m, h, k, b: relative(m, h, k), lambda d: {"bias": parameter(99)})


def relative(m: Any, h: Tensor, known: Tensor) -> Tensor:
    at = torch.arange(h.shape[1])
    score = h @ h.transpose(1, 2) + m.bias[at[:, None] - at + 49]
    return score.masked_fill(~known[:, None], -torch.inf).softmax(-1) @ h


def decay(m: Any, length: int) -> Tensor:
    return torch.exp(-F.softplus(m.w) * torch.arange(length))


def decayed(m: Any, h: Tensor, k: Tensor, b: HeteroData) -> Tensor:
    return h * decay(m, h.shape[1])[:, None]


def sinusoids(length: int, d: int) -> Tensor:
    at = torch.arange(length, dtype=torch.get_default_dtype())[:, None]
    return torch.sin(at / 100 ** (torch.arange(d) / d))


for _length, _kind in {"the longest": Padded, "50": Fixed}.items():
    add(f"idiom recency decay to {_length}", _kind, decayed, lambda d: {"w": parameter(1)})
    add(
        f"idiom recency decay by channel to {_length}",
        _kind,
        lambda m, h, k, b: h * torch.exp(-F.softplus(m.w) * torch.arange(h.shape[1])[:, None]),
        lambda d: {"w": parameter(1, d)},
    )
    add(
        f"idiom sinusoids of a learned scale to {_length}",
        _kind,
        lambda m, h, k, b: h + m.scale * sinusoids(*h.shape[1:]),
        lambda d: {"scale": parameter(1)},
    )
    add(
        f"idiom sinusoids of learned scales to {_length}",
        _kind,
        lambda m, h, k, b: h + sinusoids(*h.shape[1:]) * m.scale,
        lambda d: {"scale": parameter(1, d)},
    )
    add(
        f"idiom sinusoids through a layer to {_length}",
        _kind,
        lambda m, h, k, b: h + m.linear(sinusoids(*h.shape[1:])),
        lambda d: {"linear": nn.Linear(d, d)},
    )
clicks(
    "idiom recency decay of clicks",
    lambda m, h, b: h * torch.exp(-F.softplus(m.w) * b["event"].order)[:, None],
    lambda d: {"w": parameter(1)},
)
for _length in (10, 20, 30, 40, 48, 60):
    clicks(
        f"idiom recency decay of {_length}, indexed",
        lambda m, h, b, n=_length: h * decay(m, n)[b["event"].order][:, None],
        lambda d: {"w": parameter(1)},
    )

for _many in (5, 7, 8, 10, 15, 16, 20, 24, 30, 40, 48):
    clicks(
        f"idiom {_many} computed prototypes",
        lambda m, h, b: h + (h @ m.w(m.codes.tanh()).T).softmax(1) @ m.codes,
        lambda d, n=_many: {"w": nn.Linear(d, d), "codes": torch.randn(n, d)},
    )
    clicks(
        f"idiom {_many} learned prototypes",
        lambda m, h, b: h + (h @ m.codes.T).softmax(1) @ m.w(m.codes),
        lambda d, n=_many: {"w": nn.Linear(d, d), "codes": parameter(n, d)},
    )
clicks(
    "idiom 16 prototypes of a part of the clicks",
    lambda m, h, b: (
        h + scatter(h, b["event"].batch, 0, samples(b), reduce="mean")[b["event"].batch] @ m.codes.T @ m.codes
    ),
    lambda d: {"codes": parameter(16, d)},
)

# Shapes.

sessions(
    "idiom rows of sessions",
    lambda m, h, k, b: m.linear(h.reshape(-1, h.shape[2])).view_as(h),
    lambda d: {"linear": nn.Linear(d, d)},
)
sessions(
    "idiom rows of sessions, scaled",
    lambda m, h, k, b: (h.reshape(-1, h.shape[2]) * m.w + m.w).view_as(h),
    lambda d: {"w": parameter(d)},
)
sessions(
    "idiom time-major",
    lambda m, h, k, b: m.linear(h.transpose(0, 1)).transpose(0, 1),
    lambda d: {"linear": nn.Linear(d, d)},
)
sessions(
    "idiom time-major rows",
    lambda m, h, k, b: (h.transpose(0, 1).reshape(-1, h.shape[2]) @ m.w).view(h.shape[1], len(h), -1).transpose(0, 1),
    lambda d: {"w": parameter(d, d)},
)
sessions(
    "idiom time-major steps",
    lambda m, h, k, b: steps(m, h.transpose(0, 1)).transpose(0, 1),
    lambda d: {"cell": nn.GRUCell(d, d)},
)
sessions(
    "idiom channels before time",
    lambda m, h, k, b: (m.w @ h.transpose(1, 2)).transpose(1, 2),
    lambda d: {"w": parameter(d, d)},
)
sessions(
    "idiom heads",
    lambda m, h, k, b: heads(m, h, k),
    lambda d: {"qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d), "scale": parameter(2, 1, 1)},
)
sessions(
    "idiom heads before sessions",
    lambda m, h, k, b: heads_first(m, h, k),
    lambda d: {"qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d)},
)
sessions(
    "idiom mixing over time",
    lambda m, h, k, b: h + m.w[: h.shape[1], : h.shape[1]].tril() @ h,
    lambda d: {"w": parameter(60, 60)},
)
add(
    "idiom an MLP over time",
    Fixed,
    lambda m, h, k, b: h + m.net(h.transpose(1, 2)).transpose(1, 2),
    lambda d: {"net": mlp(50, 8, 50)},
)
clicks(
    "idiom two rows of one",
    lambda m, h, b: m.linear(h.view(-1, h.shape[1] // 2)).view_as(h),
    lambda d: {"linear": nn.Linear(d // 2, d // 2)},
)
clicks(
    "idiom all clicks twice",
    lambda m, h, b: sum(m.linear(torch.cat([h, h.sin()])).chunk(2)),
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks("idiom clicks and sessions together", lambda m, h, b: together(m, h, b), lambda d: {"linear": nn.Linear(d, d)})
clicks(
    "idiom only the last clicks",
    lambda m, h, b: h + m.linear(h[b["sample"].last])[b["event"].batch],
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks(
    "idiom a part of the clicks",
    lambda m, h, b: h.index_add(0, later(b), m.linear(h[later(b)])),
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks(
    "idiom the clicks by a mask",
    lambda m, h, b: h.masked_scatter((b["event"].order > 0)[:, None].expand_as(h), m.linear(h[b["event"].order > 0])),
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks("idiom clicks backwards", lambda m, h, b: m.linear(h.flip(0)).flip(0), lambda d: {"linear": nn.Linear(d, d)})
clicks(
    "idiom clicks both ways",  # whoever takes blocks for tasks gives them the weights of others
    lambda m, h, b: m.linear(h.flip(0)).flip(0) + torch.tanh(m.linear(h)),
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks(
    "idiom clicks rolled by one",
    lambda m, h, b: m.linear(h.roll(1, 0)).roll(-1, 0) * m.bias,
    lambda d: {"linear": nn.Linear(d, d), "bias": parameter(d)},
)
sessions(
    "idiom session-major and time-major",
    lambda m, h, k, b: torch.tanh(h @ m.w) + (h.transpose(0, 1) @ m.w).transpose(0, 1),
    lambda d: {"w": parameter(d, d)},
)
sessions(
    "idiom sessions in another order",
    lambda m, h, k, b: m.linear(h[lengths(b).argsort()])[lengths(b).argsort().argsort()] + torch.tanh(m.linear(h)),
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks(
    "idiom clicks sorted by length",
    lambda m, h, b: by_length(m, h, b),
    lambda d: {"linear": nn.Linear(d, d), "bias": parameter(d)},
)
clicks("idiom all pairs of one session", lambda m, h, b: pairs(m, h, b), lambda d: {"net": mlp(2 * d, d)})


def steps(m: Any, h: Tensor) -> Tensor:
    state, out = h[0], []
    for step in h:
        state = m.cell(step, state)
        out.append(state)
    return torch.stack(out)


def heads(m: Any, h: Tensor, known: Tensor) -> Tensor:
    many, longest, d = h.shape
    q, k, v = m.qkv(h).view(many, longest, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
    score = (q @ k.transpose(-1, -2) * m.scale).masked_fill(~known[:, None, None], -torch.inf)
    return m.out((score.softmax(-1) @ v).transpose(1, 2).reshape(many, longest, d))


def heads_first(m: Any, h: Tensor, known: Tensor) -> Tensor:
    many, longest, d = h.shape
    q, k, v = (part.unflatten(2, (2, -1)).permute(2, 0, 1, 3).flatten(0, 1) for part in m.qkv(h).chunk(3, -1))
    score = torch.baddbmm(torch.zeros(1), q, k.transpose(1, 2), beta=0).masked_fill(~known.repeat(2, 1)[:, None], -1e9)
    return m.out((score.softmax(-1) @ v).view(2, many, longest, -1).permute(1, 2, 0, 3).flatten(2))


def together(m: Any, h: Tensor, batch: HeteroData) -> Tensor:
    pooled = scatter(h, batch["event"].batch, 0, samples(batch), reduce="sum")
    out = m.linear(torch.cat([h, pooled]))
    return out[: len(h)] + out[len(h) :][batch["event"].batch]


def later(batch: HeteroData) -> Tensor:
    return (batch["event"].order > 0).nonzero()[:, 0]


def by_length(m: Any, h: Tensor, batch: HeteroData) -> Tensor:
    order = torch.argsort(lengths(batch)[batch["event"].batch], stable=True)
    out = torch.empty_like(h)
    out[order] = m.linear(h[order]) * m.bias
    return out


def pairs(m: Any, h: Tensor, batch: HeteroData) -> Tensor:
    same = batch["event"].batch[:, None] == batch["event"].batch
    one, other = same.nonzero().T
    return scatter(m.net(torch.cat([h[one], h[other]], 1)), one, 0, len(h), reduce="mean")


# Products.

clicks("idiom matmul", lambda m, h, b: h @ m.w, lambda d: {"w": parameter(d, d)})
clicks("idiom a weight on the left", lambda m, h, b: (m.w @ h.T).T, lambda d: {"w": parameter(d, d)})
clicks(
    "idiom a weight times a vector",
    lambda m, h, b: h * (m.w @ m.v),
    lambda d: {"w": parameter(d, d), "v": parameter(d)},
)
clicks(
    "idiom a weight times a weight",
    lambda m, h, b: h @ (m.w @ m.v),
    lambda d: {"w": parameter(d, 2), "v": parameter(2, d)},
)
clicks("idiom rows times a vector", lambda m, h, b: h * (h @ m.v)[:, None], lambda d: {"v": parameter(d)})
clicks("idiom mv", lambda m, h, b: h * torch.mv(h, m.v).tanh()[:, None], lambda d: {"v": parameter(d)})
clicks(
    "idiom addmm",
    lambda m, h, b: torch.addmm(m.v, h, m.w, beta=0.5, alpha=2.0),
    lambda d: {"w": parameter(d, d), "v": parameter(d)},
)
clicks("idiom addcmul", lambda m, h, b: torch.addcmul(h, h.sin(), m.v, value=0.7), lambda d: {"v": parameter(d)})
clicks("idiom lerp", lambda m, h, b: torch.lerp(h, h.sin(), torch.sigmoid(m.v)), lambda d: {"v": parameter(d)})
sessions(
    "idiom baddbmm",
    lambda m, h, k, b: torch.baddbmm(m.v.expand(len(h), h.shape[1], -1), h, m.w.expand(len(h), -1, -1)),
    lambda d: {"w": parameter(d, d), "v": parameter(1, 1, d)},
)
sessions(
    "idiom bmm", lambda m, h, k, b: torch.bmm(h, m.w[None].expand(len(h), -1, -1)), lambda d: {"w": parameter(d, d)}
)
clicks("idiom bilinear", lambda m, h, b: F.bilinear(h, h.cos(), m.w), lambda d: {"w": parameter(d, d, d)})
clicks("idiom tensordot", lambda m, h, b: torch.tensordot(h, m.w, dims=1), lambda d: {"w": parameter(d, d)})
clicks("idiom inner", lambda m, h, b: torch.inner(h, m.w), lambda d: {"w": parameter(d, d)})
clicks("idiom outer", lambda m, h, b: h @ torch.outer(m.v, m.u), lambda d: {"v": parameter(d), "u": parameter(d)})
clicks(
    "idiom a normalised weight", lambda m, h, b: F.linear(h, F.normalize(m.w, dim=1)), lambda d: {"w": parameter(d, d)}
)
clicks(
    "idiom a weight by its norm",
    lambda m, h, b: h @ (m.w / m.w.norm(dim=0, keepdim=True)),
    lambda d: {"w": parameter(d, d)},
)
clicks("idiom a weight's sum", lambda m, h, b: h * m.w.sum() + m.w.mean(0), lambda d: {"w": parameter(d, d)})
clicks("idiom softmax of a weight", lambda m, h, b: h @ m.w.softmax(0), lambda d: {"w": parameter(d, d)})
clicks(
    "idiom a weight in pieces",
    lambda m, h, b: (lambda a, c: h @ a + torch.tanh(h @ c))(*m.w.chunk(2, dim=1)),
    lambda d: {"w": parameter(d, 2 * d)},
)
clicks(
    "idiom weights stacked",
    lambda m, h, b: (h @ torch.stack([m.u, m.v])).mean(0),
    lambda d: {"u": parameter(d, d), "v": parameter(d, d)},
)
clicks(
    "idiom weights joined",
    lambda m, h, b: F.linear(h, torch.cat([m.u, m.v])),
    lambda d: {"u": parameter(d // 2, d), "v": parameter(d // 2, d)},
)
clicks(
    "idiom a weight masked",
    lambda m, h, b: F.linear(h, m.w * m.mask),
    lambda d: {"w": parameter(d, d), "mask": torch.ones(d, d).tril()},
)
clicks(
    "idiom a weight's diagonal",
    lambda m, h, b: h * torch.diagonal(m.w) + h @ torch.diag(m.w[0]),
    lambda d: {"w": parameter(d, d)},
)
clicks(
    "idiom matrix_exp of a weight",
    lambda m, h, b: h @ torch.linalg.matrix_exp(0.1 * m.w),
    lambda d: {"w": parameter(d, d)},
)
clicks(
    "idiom solve by a weight",
    lambda m, h, b: torch.linalg.solve(torch.eye(h.shape[1]) * 3 + m.w, h.T).T,
    lambda d: {"w": parameter(d, d)},
)
clicks(
    "idiom a low-rank change",
    lambda m, h, b: m.linear(h) + h @ m.a @ m.b,
    lambda d: {"linear": nn.Linear(d, d), "a": parameter(d, 2), "b": parameter(2, d)},
)
clicks(
    "idiom a hypernetwork",
    lambda m, h, b: (h[:, None] @ m.net(h).view(len(h), h.shape[1], -1))[:, 0],
    lambda d: {"net": nn.Linear(d, d * d)},
)
clicks(
    "idiom a gate of experts",
    lambda m, h, b: (torch.stack([e(h) for e in m.experts], 1) * m.gate(h).softmax(1)[:, :, None]).sum(1),
    lambda d: {"experts": nn.ModuleList([nn.Linear(d, d) for _ in range(3)]), "gate": nn.Linear(d, 3)},
)
clicks(
    "idiom experts in one tensor",
    lambda m, h, b: torch.einsum("ed,kdf,ek->ef", h, m.w, (h @ m.gate).softmax(1)),
    lambda d: {"w": parameter(3, d, d), "gate": parameter(d, 3)},
)
clicks(
    "idiom an expert for each click",
    lambda m, h, b: (h[:, None] @ m.w[b["event"].order % 3])[:, 0],
    lambda d: {"w": parameter(3, d, d)},
)
clicks(
    "idiom maximum with a weight",
    lambda m, h, b: torch.maximum(h, m.v) + torch.minimum(h, m.v).sin(),
    lambda d: {"v": parameter(d)},
)
clicks("idiom clamp by weights", lambda m, h, b: torch.clamp(h, min=m.v, max=m.v + 1), lambda d: {"v": parameter(d)})
clicks("idiom a comparison with a weight", lambda m, h, b: h * m.v + h * (h > m.v), lambda d: {"v": parameter(d)})
clicks(
    "idiom a weight's value by item()",
    lambda m, h, b: h * m.v * float(m.u.detach()),
    lambda d: {"v": parameter(d), "u": parameter(1)},
)
clicks(
    "idiom a branch on a weight",
    lambda m, h, b: h * m.v if m.v.sum() > 0 else h.sin() * m.v,
    lambda d: {"v": parameter(d)},
)

# Autograd.


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        return grad @ weight.t(), x.t() @ grad


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore
        return -grad


clicks("idiom a function of one's own", lambda m, h, b: Product.apply(h, m.w), lambda d: {"w": parameter(d, d)})
clicks(
    "idiom a function of one's own beside a product",
    lambda m, h, b: Product.apply(h, m.w) + torch.tanh(h @ m.w),
    lambda d: {"w": parameter(d, d)},
)
clicks(
    "idiom a reversed gradient",
    lambda m, h, b: m.linear(h) + Reversed.apply(m.linear(h)).sin(),
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks("idiom straight through", lambda m, h, b: straight(m.linear(h)), lambda d: {"linear": nn.Linear(d, d)})
clicks("idiom straight through a weight", lambda m, h, b: h @ straight(m.w), lambda d: {"w": parameter(d, d)})
clicks("idiom detach of a weight", lambda m, h, b: h @ m.w + h * m.w.detach().sum(0), lambda d: {"w": parameter(d, d)})
clicks(
    "idiom detach of a state", lambda m, h, b: m.linear(h) * m.linear(h).detach(), lambda d: {"linear": nn.Linear(d, d)}
)
clicks("idiom data of a weight", lambda m, h, b: h @ m.w + h @ m.w.data, lambda d: {"w": parameter(d, d)})
clicks("idiom no_grad", lambda m, h, b: m.linear(h) + without_grad(m.linear, h), lambda d: {"linear": nn.Linear(d, d)})
clicks(
    "idiom no_grad on a weight",
    lambda m, h, b: h @ m.w + without_grad(lambda h: h * m.w.abs().mean(), h),
    lambda d: {"w": parameter(d, d)},
)
clicks(
    "idiom a frozen weight",
    lambda m, h, b: m.last(torch.tanh(m.linear(h))),
    lambda d: {"linear": nn.Linear(d, d).requires_grad_(False), "last": nn.Linear(d, d)},
)
clicks(
    "idiom a weight not used",
    lambda m, h, b: m.linear(h),
    lambda d: {"linear": nn.Linear(d, d), "other": nn.Linear(d, d)},
)
clicks(
    "idiom an output not read",
    lambda m, h, b: (m.linear(h), m.other(h))[0],
    lambda d: {"linear": nn.Linear(d, d), "other": nn.Linear(d, d)},
)
clicks("idiom a gradient inside", lambda m, h, b: h - grad_inside(m, h), lambda d: {"energy": mlp(d, d, 1)})
clicks("idiom a hook on a state", lambda m, h, b: hooked(m.linear(h)), lambda d: {"linear": nn.Linear(d, d)})
for _how in (True, False):
    clicks(
        f"idiom checkpoint, {'reentrant' if _how else 'not reentrant'}",
        lambda m, h, b, r=_how: checkpoint(m.net, h, use_reentrant=r),
        lambda d: {"net": mlp(d, d, d)},
    )
    rows(
        f"idiom checkpoint of a convolution, {'reentrant' if _how else 'not reentrant'}",
        lambda m, x, b, r=_how: checkpoint(m.conv, x, edges(b), use_reentrant=r),
        lambda d: {"conv": pyg.SAGEConv(d, d)},
    )
clicks(
    "idiom checkpoint of a closure",
    lambda m, h, b: checkpoint(lambda h: torch.tanh(h @ m.w) @ m.w, h, use_reentrant=False),
    lambda d: {"w": parameter(d, d)},
)
clicks(
    "idiom vmap over rows",
    lambda m, h, b: torch.func.vmap(lambda row: torch.tanh(m.linear(row)))(h),
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks(
    "idiom vmap over weights",
    lambda m, h, b: torch.func.vmap(lambda w: torch.tanh(h @ w))(m.w).mean(0),
    lambda d: {"w": parameter(3, d, d)},
)
clicks(
    "idiom functional_call inside",
    lambda m, h, b: torch.func.functional_call(m.linear, {"weight": m.w}, (h,)),
    lambda d: {"linear": nn.Linear(d, d), "w": parameter(d, d)},
)
clicks(
    "idiom torch.func.grad",
    lambda m, h, b: h + torch.func.grad(lambda h: m.net(h).sum())(h),
    lambda d: {"net": mlp(d, d, 1)},
)
clicks(
    "idiom torch.func.jvp", lambda m, h, b: torch.func.jvp(m.net, (h,), (h.sin(),))[1], lambda d: {"net": mlp(d, d, d)}
)


def straight(h: Tensor) -> Tensor:
    return h + (h.sign() - h).detach()


def without_grad(call: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    with torch.no_grad():
        return call(h)


def grad_inside(m: Any, h: Tensor) -> Tensor:
    with torch.enable_grad():
        own = h if h.requires_grad else h.detach().requires_grad_()
        (slope,) = torch.autograd.grad(m.energy(own).sum(), own, create_graph=True)
    return slope


def hooked(h: Tensor) -> Tensor:
    if h.requires_grad:
        h.register_hook(lambda grad: grad * 2)
    return h


# Compiled.


@functools.cache
def scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(product_and_tanh)


def product_and_tanh(h: Tensor, weight: Tensor) -> Tensor:
    return torch.tanh(h @ weight)


@functools.cache
def traced_activation() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(scaled_tanh)


def scaled_tanh(h: Tensor, scale: Tensor) -> Tensor:
    return torch.tanh(h) * scale + scale


clicks("idiom a scripted function", lambda m, h, b: scripted()(h, m.w), lambda d: {"w": parameter(d, d)})
clicks(
    "idiom a scripted function beside a product",
    lambda m, h, b: scripted()(h, m.w) + h @ m.w,
    lambda d: {"w": parameter(d, d)},
)
clicks(
    "idiom a scripted function of states",
    lambda m, h, b: scripted()(m.linear(h), torch.eye(h.shape[1])),
    lambda d: {"linear": nn.Linear(d, d)},
)
clicks(
    "idiom a scripted scale",
    lambda m, h, b: traced_activation()(m.linear(h), m.v),
    lambda d: {"linear": nn.Linear(d, d), "v": parameter(d)},
)


def compiled_part(d: int, *, compiled: bool = True) -> nn.Module:
    net = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, d))
    return Clicks(lambda m, h, b: m.net(h), {"net": torch.compile(net, backend="eager") if compiled else net})


def compiled_encoder(d: int, *, compiled: bool = True) -> nn.Module:
    net = Clicks(lambda m, h, b: torch.tanh(m.linear(h)) * m.v, {"linear": nn.Linear(d, d), "v": parameter(d)})
    return torch.compile(net, backend="eager") if compiled else net  # pyright: ignore[reportReturnType]


for _name, _make in {"a compiled part": compiled_part, "a compiled encoder": compiled_encoder}.items():
    LAYERS[f"idiom {_name}"] = _make
    PLAIN[f"idiom {_name}"] = functools.partial(_make, compiled=False)

# Graphs.


class Passing(pyg.MessagePassing):
    """Message passing of one's own, whose keywords come in any order."""

    def __init__(self, d: int, how: str = "x") -> None:
        super().__init__(aggr="sum")
        self.how, self.linear, self.edge, self.gate = how, nn.Linear(d, d), nn.Linear(2, d), parameter(d)

    def forward(self, x: Tensor, edge_index: Tensor, w: Tensor) -> Tensor:
        if self.how == "w first":
            return self.propagate(edge_index, w=w, x=x)
        if self.how == "after":
            return self.linear(self.propagate(edge_index, w=w, x=x))
        return self.propagate(edge_index, x=x, w=w)

    def message(self, x_j: Tensor, x_i: Tensor, w: Tensor) -> Tensor:
        return torch.tanh(self.linear(x_j) + self.edge(torch.stack([w, w.sin()], 1))) * self.gate * x_i


class Updating(pyg.MessagePassing):
    """With an edge update, and a softmax over the edges that lead to a node."""

    def __init__(self, d: int) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.score, self.value, self.last = nn.Linear(2 * d, 1), nn.Linear(d, d), nn.Linear(2 * d, d)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        alpha = self.edge_updater(edge_index, x=x)
        return self.propagate(edge_index, alpha=alpha, x=x)

    def edge_update(self, x_j: Tensor, x_i: Tensor, index: Tensor, size_i: int | None) -> Tensor:
        return softmax(torch.tanh(self.score(torch.cat([x_i, x_j], 1))), index, num_nodes=size_i)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha * self.value(x_j)

    def update(self, out: Tensor, x: Tensor) -> Tensor:
        return self.last(torch.cat([out, x], 1))


for _how in ("x first", "w first", "after"):
    rows(
        f"idiom message passing, {_how}",
        lambda m, x, b: m.conv(x, edges(b), weights(x, b)),
        lambda d, how=_how: {"conv": Passing(d, how)},
    )
rows("idiom message passing with an edge update", lambda m, x, b: m.conv(x, edges(b)), lambda d: {"conv": Updating(d)})
rows(
    "idiom message passing from end to source",
    lambda m, x, b: m.conv(x, edges(b)),
    lambda d: {"conv": pyg.GraphConv(d, d, flow="target_to_source")},
)
rows(
    "idiom self-loops added",
    lambda m, x, b: m.conv(x, add_self_loops(edges(b), num_nodes=len(x))[0]),
    lambda d: {"conv": pyg.SAGEConv(d, d)},
)
rows(
    "idiom self-loops first",
    lambda m, x, b: m.conv(x, torch.cat([torch.arange(len(x))[None].repeat(2, 1), edges(b)], 1)),
    lambda d: {"conv": pyg.EdgeConv(mlp(2 * d, d), aggr="mean")},
)
rows(
    "idiom edges backwards",
    lambda m, x, b: m.conv(x, edges(b).flip(1)),
    lambda d: {"conv": pyg.EdgeConv(mlp(2 * d, d), aggr="mean")},
)
rows(
    "idiom edges by their end",
    lambda m, x, b: m.conv(x, edges(b)[:, edges(b)[1].argsort(stable=True)]),
    lambda d: {"conv": pyg.GATv2Conv(d, d)},
)
rows(
    "idiom edges of both directions",
    lambda m, x, b: m.conv(x, torch.cat([edges(b), edges(b).flip(0)], 1)),
    lambda d: {"conv": pyg.TransformerConv(d, d)},
)
rows(
    "idiom some edges",
    lambda m, x, b: m.conv(x, edges(b)[:, b["item"].n_id[edges(b)[0]] % 2 == 0]),
    lambda d: {"conv": pyg.EdgeConv(mlp(2 * d, d), aggr="sum")},
)
rows("idiom no edges", lambda m, x, b: m.conv(x, edges(b)[:, :0]), lambda d: {"conv": pyg.SAGEConv(d, d)})
rows(
    "idiom no edges, a layer on edges",
    lambda m, x, b: m.conv(x, edges(b)[:, :0]) + m.last(x),
    lambda d: {"conv": pyg.EdgeConv(mlp(2 * d, d)), "last": nn.Linear(d, d)},
)
rows("idiom a layer on edges by hand", lambda m, x, b: on_edges(m, x, b), lambda d: {"net": mlp(2 * d, d)})
rows(
    "idiom a weight of edges by hand",
    lambda m, x, b: scatter(x[edges(b)[0]] * torch.sigmoid(weights(x, b)[:, None] * m.w), edges(b)[1], 0, len(x)),
    lambda d: {"w": parameter(d)},
)
rows(
    "idiom a kind of edge by hand",
    lambda m, x, b: kind_of_edge(m, x, looped(x, b), b["item"].n_id),
    lambda d: {"kind": nn.Embedding(2, d)},
)
rows("idiom adjacency of all items", lambda m, x, b: dense_graph(m, x, b), lambda d: {"linear": nn.Linear(d, d)})
rows(
    "idiom a virtual node",
    lambda m, x, b: m.last(x + m.linear(scatter(x, owner(b), 0, samples(b)) + m.node)[owner(b)]),
    lambda d: {"node": parameter(1, d), "linear": nn.Linear(d, d), "last": nn.Linear(d, d)},
)
rows(
    "idiom a learned node for each session",
    lambda m, x, b: virtual(m, x, b),
    lambda d: {"node": parameter(1, d), "conv": pyg.SAGEConv(d, d)},
)


def kind_of_edge(m: Any, x: Tensor, both: Tensor, n_id: Tensor) -> Tensor:
    source, end = both  # never empty: a look-up of nothing has no second derivative in torch
    return scatter(x[source] * m.kind((n_id[source] + n_id[end]) % 2), end, 0, len(x))


def on_edges(m: Any, x: Tensor, batch: HeteroData) -> Tensor:
    source, end = edges(batch)
    return scatter(m.net(torch.cat([x[source], x[end]], 1)), end, 0, len(x), reduce="mean")


def dense_graph(m: Any, x: Tensor, batch: HeteroData) -> Tensor:
    matrix = x.new_zeros(len(x), len(x)).index_put(tuple(edges(batch)), weights(x, batch), accumulate=True)
    matrix = torch.where((owner(batch)[:, None] == owner(batch)), matrix, 0)
    return matrix @ m.linear(x)


def virtual(m: Any, x: Tensor, batch: HeteroData) -> Tensor:
    every = torch.cat([x, m.node.expand(samples(batch), -1)])
    at = torch.stack([owner(batch) + len(x), torch.arange(len(x))])
    return m.conv(every, torch.cat([edges(batch), at, at.flip(0)], 1))[: len(x)]


# In place, loops, constants.


def in_place(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    out = m.linear(h)
    out += m.bias
    out *= 0.5
    out[b["event"].order == 0] = 0
    return out.add_(m.bias).tanh_()


def one_by_one(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    out = []
    ptr = b["sample"].ptr.tolist()
    for begin, end in zip(ptr, ptr[1:], strict=False):
        own = h[begin:end]
        out.append((m.q(own) @ m.k(own).T).softmax(-1) @ own)
    return torch.cat(out)


def one_by_one_split(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    return torch.cat([own + m.linear(own.mean(0, keepdim=True)) for own in h.split(lengths(b).tolist())])


def nested(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    block = rnn.pad_sequence(list(h.split(lengths(b).tolist())), batch_first=True)
    return flat(m.rnn(block)[0], b)


class Constant(Encoder):
    """A plain attribute, and a buffer, used with a weight."""

    def __init__(self, d: int, size: int, *, buffer: bool) -> None:
        super().__init__(lambda *_: torch.empty(0), {"w": parameter(1), "linear": nn.Linear(d, d)})
        table = torch.sin(torch.arange(size * d, dtype=torch.get_default_dtype())).view(size, d)
        if buffer:
            self.register_buffer("table", table)
        else:
            self.table = table

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        return x[batch["event"].item] + (self.linear(self.table * 1.0) * self.w)[batch["event"].order]


clicks("idiom in place", in_place, lambda d: {"linear": nn.Linear(d, d), "bias": parameter(d)})
clicks(
    "idiom in place into zeros",
    lambda m, h, b: torch.zeros_like(h).index_add_(0, torch.arange(len(h)), m.linear(h)).mul_(m.bias),
    lambda d: {"linear": nn.Linear(d, d), "bias": parameter(d)},
)
clicks(
    "idiom in place on a part",
    lambda m, h, b: halves(m, h),
    lambda d: {"linear": nn.Linear(d, d), "bias": parameter(d // 2)},
)
clicks(
    "idiom add with alpha",
    lambda m, h, b: m.linear(h) + torch.add(h, m.bias, alpha=2),
    lambda d: {"linear": nn.Linear(d, d), "bias": parameter(d)},
)
clicks("idiom a loop over sessions", one_by_one, lambda d: {"q": nn.Linear(d, d), "k": nn.Linear(d, d)})
clicks("idiom a loop over split sessions", one_by_one_split, lambda d: {"linear": nn.Linear(d, d)})
clicks("idiom sessions by pad_sequence", nested, lambda d: {"rnn": nn.GRU(d, d, batch_first=True)})
for _size in (8, 10, 16, 20, 40, 50):
    LAYERS[f"idiom a buffer of {_size} rows"] = lambda d, n=_size: Constant(d, n, buffer=True)
    LAYERS[f"idiom a plain constant of {_size} rows"] = lambda d, n=_size: Constant(d, n, buffer=False)
add(
    "idiom attention over 50 places",
    Fixed,
    lambda m, h, k, b: (m.q(h) @ m.k(h).transpose(1, 2)).masked_fill(~k[:, None], -1e9).softmax(-1) @ h,
    lambda d: {"q": nn.Linear(d, d), "k": nn.Linear(d, d)},
)
add(
    "idiom GRU over 50 places", Fixed, lambda m, h, k, b: m.rnn(h)[0], lambda d: {"rnn": nn.GRU(d, d, batch_first=True)}
)
sessions(
    "idiom softmax over time",
    lambda m, h, k, b: h * m.score(h).masked_fill(~k[..., None], -torch.inf).softmax(1),
    lambda d: {"score": nn.Linear(d, 1)},
)
clicks(
    "idiom softmax by session",
    lambda m, h, b: h * softmax(m.score(h), b["event"].batch, num_nodes=samples(b)),
    lambda d: {"score": nn.Linear(d, 2 * (d // 2))},
)
clicks(
    "idiom time between clicks",
    lambda m, h, b: h * torch.exp(-m.w.abs() * (lengths(b)[b["event"].batch] - b["event"].order)[:, None]),
    lambda d: {"w": parameter(d)},
)
clicks(
    "idiom a complex product",
    lambda m, h, b: torch.view_as_real(
        torch.view_as_complex(h.view(len(h), -1, 2)) * torch.view_as_complex(m.w)
    ).flatten(1),
    lambda d: {"w": parameter(d // 2, 2)},
)
clicks(
    "idiom a filter of frequencies",
    lambda m, h, b: torch.fft.irfft(torch.fft.rfft(h) * m.w, n=h.shape[1]),
    lambda d: {"w": parameter(d // 2 + 1)},
)


def halves(m: Any, h: Tensor) -> Tensor:
    out = m.linear(h).clone()
    out[:, : out.shape[1] // 2] *= m.bias
    out[:, 1] += m.bias[0]
    return out


ABSENT["idiom torch.compile by inductor"] = "needs a compiler; the backend does not matter to the engine"
THREE_STEPS.update(
    {
        "conv SAGEConv",
        "torch GRU",
        "idiom checkpoint, not reentrant",
        "idiom one module under two names",
        "model AttentiveFP",
        "torch Linear",
    }
)
