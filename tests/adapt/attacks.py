"""The catalogue's last part: encoders written to mislead an engine that guesses, each within the contract."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import wrap_torch_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import HeteroData
from torch_geometric.utils import to_dense_batch

from graphmeta.sampling.batch_rows import NEXT
from tests.adapt.idioms import ABSENT, EVAL_ONLY, ITEMS, LAYERS, PLAIN, THREE_STEPS, clicks, sessions
from tests.adapt.layers import flat, padded

__all__ = ["ABSENT", "EVAL_ONLY", "ITEMS", "LAYERS", "PLAIN", "THREE_STEPS"]


def linear(d: int) -> dict[str, Any]:
    return {"linear": nn.Linear(d, d)}


# A module that is found in other places than its parent's list of modules.


class Slotted:
    __slots__ = ("layer",)

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer


class Around:
    """An object that holds an object that holds a layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.inner = Slotted(layer)


class Held(nn.Module):
    def __init__(self, d: int, how: str) -> None:
        super().__init__()
        self.linear, self.other = nn.Linear(d, d), nn.Linear(d, d)
        layer = self.linear
        self.held: Any = {
            "deque": lambda: deque([layer]),
            "weakref": lambda: weakref.ref(layer),
            "slots": lambda: Slotted(layer),
            "holder in a holder": lambda: Around(layer),
            "key of a dictionary": lambda: {layer: 1},
            "default argument": lambda: lambda h, own=layer: own(h),
            "keyword default": lambda: keyword_default(layer),
            "set": lambda: {layer},
        }[how]()
        self.how = how

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        h, held = self.other(x[batch["event"].item]), self.held
        if self.how in ("deque", "key of a dictionary", "set"):
            return next(iter(held))(h)
        if self.how == "weakref":
            return held()(h)
        if self.how == "slots":
            return held.layer(h)
        return held.inner.layer(h) if self.how == "holder in a holder" else held(h)


def keyword_default(layer: nn.Module) -> Any:
    def call(h: Tensor, *, own: nn.Module = layer) -> Tensor:
        return own(h)

    return call


for _how in ("deque", "weakref", "slots", "holder in a holder", "key of a dictionary", "default argument",
             "keyword default", "set"):  # fmt: skip
    LAYERS[f"attack a module in a {_how}"] = lambda d, how=_how: Held(d, how)


class Hooked(nn.Module):
    """An adapter that hangs on a layer by a hook, and what a hook keeps for forward."""

    def __init__(self, d: int, how: str) -> None:
        super().__init__()
        self.how, self.linear, self.adapter = how, nn.Linear(d, d), nn.Linear(d, d)
        adapter = self.adapter
        if how == "closure":
            self.linear.register_forward_hook(lambda module, inputs, out: out + adapter(inputs[0]))
        elif how == "method":
            self.linear.register_forward_hook(self.keep)
        else:
            self.linear.register_forward_pre_hook(lambda module, inputs: (torch.tanh(adapter(inputs[0])),))

    def keep(self, module: nn.Module, inputs: Any, out: Tensor) -> None:
        self.kept = self.adapter(out)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        out = self.linear(x[batch["event"].item])
        return out + self.kept if self.how == "method" else out


for _how in ("closure", "method", "before"):
    LAYERS[f"attack a hook, {_how}"] = lambda d, how=_how: Hooked(d, how)


# Rows that are written into rows in another order, and read back from there.


def packed(m: Any, h: Tensor, b: HeteroData, how: str) -> Tensor:
    """Clicks by their place first, as packed sequences have them: a layout across tasks."""
    order = b["event"].order
    rank = torch.argsort(torch.argsort(order, stable=True), stable=True)
    places = torch.argsort(rank)
    if how == "into a copy":
        z = h.clone()
        z[rank] = h
    elif how == "index_put":
        z = torch.index_put(h * 0, (rank,), h)
    elif how == "by a slice":
        z = h.clone()
        z[:] = h[places]
    else:
        z = h.clone()
        z.view(-1, h.shape[1]).copy_(h[places])
    return torch.tanh(m.linear(z))[rank]


for _how in ("into a copy", "index_put", "by a slice", "through a view"):
    clicks(f"attack packed clicks, {_how}", lambda m, h, b, how=_how: packed(m, h, b, how), linear)


# Operations whose rows stand elsewhere than a rule by analogy would say.


def inner(m: Any, h: Tensor, k: Tensor, b: HeteroData) -> Tensor:
    scores = torch.inner(m.codes, h)  # [K, S, L]
    return m.linear(h) + m.out(scores.permute(1, 2, 0))


for _size in (4, 5, 8, 10):
    sessions(
        f"attack inner products with {_size} codes",
        inner,
        lambda d, n=_size: linear(d) | {"codes": nn.Parameter(torch.randn(n, d)), "out": nn.Linear(n, d)},
    )

sessions(
    "attack windows, time first",
    lambda m, h, k, b: h + m.linear(
        nn.functional.pad(h.transpose(0, 1), (0, 0, 0, 0, 2, 0)).unfold(0, 3, 1).mean(-1)
    ).transpose(0, 1),
    linear,
)  # fmt: skip
clicks(
    "attack quantiles",
    lambda m, h, b: m.linear(torch.quantile(h, torch.tensor([0.25, 0.5], dtype=h.dtype), dim=1).t() @ m.mix),
    lambda d: linear(d) | {"mix": nn.Parameter(torch.randn(2, d))},
)


class Complex(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(d, d, dtype=torch.complex128) for _ in range(2))

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        h = x[batch["event"].item]
        return self.second(torch.tanh(self.first(torch.complex(h, h.sin())))).abs()


LAYERS["attack complex layers"] = Complex


# A weight's own operations, in their less usual forms.

_FORMS = {
    "index_fill": lambda w: w.index_fill(0, torch.tensor([1]), 0.0),
    "std without correction": lambda w: w * w.std(False),
    "var with correction": lambda w: w / (1 + w.var(True)),
    "cat by axis": lambda w: torch.cat([w, w.sin()], axis=1)[:, ::2],
    "maximum of rows": lambda w: w - w.max(0).values,
    "sum by axis": lambda w: w - w.sum(axis=0),
}
for _name, _form in _FORMS.items():
    clicks(
        f"attack a weight's {_name}",
        lambda m, h, b, form=_form: torch.tanh(h @ form(m.w)),
        lambda d: {"w": nn.Parameter(torch.randn(d, d))},
    )


class _Named:
    @staticmethod
    @wrap_torch_function(lambda x, w: (x, w))
    def linear(x: Tensor, w: Tensor) -> Tensor:
        """Somebody's own function of a name that torch has too."""
        return 2 * torch.tanh(x) @ w


clicks(
    "attack a function called linear",
    lambda m, h, b: _Named.linear(h, m.w),
    lambda d: {"w": nn.Parameter(torch.randn(d, d))},
)


def dense(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    """PyG's way to padded sessions, and back."""
    block, known = to_dense_batch(h, b["event"].batch, batch_size=b["sample"].num_nodes)
    weight = torch.softmax((block @ m.linear(block).transpose(1, 2)).masked_fill(~known[:, None], -torch.inf), 2)
    return (weight @ block)[b["event"].batch, b["event"].order]


clicks("attack to_dense_batch", dense, linear)


# As many tokens, constants or columns as there are rows: 6 of each in some batches of the sweep.


def tokens(d: int) -> dict[str, Any]:
    return linear(d) | {"tok": nn.Parameter(torch.randn(6, d)), "w": nn.Parameter(torch.randn(d, d))}


class Positions(nn.Module):
    """Constants ``[6, D]``, cast to the kind of the clicks and projected."""

    def __init__(self, d: int, how: str) -> None:
        super().__init__()
        self.linear, self.how = nn.Linear(d, d), how
        self.register_buffer("table", torch.randn(6, d))

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        h = x[batch["event"].item]
        table = getattr(self.table, self.how)(h)
        return torch.tanh(h + self.linear(table)[batch["event"].order])


for _how in ("to", "type_as"):
    LAYERS[f"attack constants cast by {_how}"] = lambda d, how=_how: Positions(d, how)

_COUNTED = {
    "tokens joined to items": lambda m, x, b: torch.cat([m.tok, x])[b["event"].order] + x[b["event"].item],
    "items joined to tokens": lambda m, x, b: torch.cat([x, m.tok])[len(x) + b["event"].order] + x[b["event"].item],
    "tokens stacked on items": lambda m, x, b: torch.vstack([m.tok, x])[b["event"].order] + x[b["event"].item],
}


class Joined(nn.Module):
    def __init__(self, d: int, call: Any) -> None:
        super().__init__()
        self.call, self.tok = call, nn.Parameter(torch.randn(6, d))

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        return torch.tanh(self.call(self, x, batch))


for _name, _call in _COUNTED.items():
    LAYERS[f"attack {_name}"] = lambda d, call=_call: Joined(d, call)

_CAST = {
    "tokens by to": lambda m, h, b: h + m.tok.to(h)[b["event"].order],
    "tokens by type_as": lambda m, h, b: h + m.tok.type_as(h)[b["event"].order],
    "a matrix by to": lambda m, h, b: h @ m.w.to(h),
    "a matrix by type_as": lambda m, h, b: h @ m.w.type_as(h),
    "clicks by to of a token": lambda m, h, b: m.linear(h.to(m.tok)) + h.type_as(m.tok),
    "a repeated token": lambda m, h, b: torch.cat([h, m.tok[:1].repeat(len(h), 1)], 1)[:, 3:9] @ m.w,
    "an expanded token": lambda m, h, b: torch.cat([h, m.tok[0].expand(len(h), -1)], 1)[:, 3:9] @ m.w,
    "norm of columns": lambda m, h, b: h * torch.linalg.norm(m.w, 1, dim=(1, 0)),
    "norm of rows": lambda m, h, b: h * torch.linalg.norm(m.w, float("inf"), dim=(-1, -2)),
    "sum over nothing": lambda m, h, b: h * m.w.sum(()),
    "mean over nothing": lambda m, h, b: h * m.w.mean([]),
    "columns scattered": lambda m, h, b: m.linear(torch.zeros_like(h).scatter(1, h.argsort(1), h)),
    "columns scattered into more rows": lambda m, h, b: wide(m, h),
    "columns gathered": lambda m, h, b: m.linear(h.gather(1, h.argsort(1))),
    "in place with a weight": lambda m, h, b: h.clone().add_(m.w[0], alpha=0.5).mul_(m.w[1, 1]),
    "where of a mask": lambda m, h, b: h.index_add(0, (at := torch.where(h[:, 0] > 0)[0]), m.linear(h[at])),
    "a branch on a weight": lambda m, h, b: m.linear(h) if m.w.sum() > 0 else h,
    "a number of a weight": lambda m, h, b: m.linear(h) * float(m.w.detach().norm()),
    "a written index": lambda m, h, b: written_index(m, h),
    "a written mask": lambda m, h, b: written_mask(m, h, b),
}
for _name, _call in _CAST.items():
    clicks(f"attack {_name}", lambda m, h, b, call=_call: torch.tanh(call(m, h, b)), tokens)


def wide(m: Any, h: Tensor) -> Tensor:
    z = torch.tanh(m.linear(h.new_zeros(2 * len(h), h.shape[1]).scatter(1, h.argsort(1), h)))
    return z[: len(h)] + z[len(h) :]


def written_index(m: Any, h: Tensor) -> Tensor:
    """Rows taken by an index that is written into before their task is asked for."""
    index = torch.arange(len(h))
    found = h.detach()[index]
    index.copy_(index.flip(0))
    return h + m.linear(found)


def written_mask(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    mask = b["event"].order == 0
    first, rest = h.detach()[mask], h.detach()[~mask]
    mask.logical_not_()
    out = torch.zeros_like(h)
    out[~mask], out[mask] = m.linear(first), m.linear(rest)
    return h + out


# What is the same for all rows of a task, and so may be taken from any of them: never from another task's.


def beside_a_layer(call: Callable[..., Tensor]) -> Callable[[Any, Tensor, Any], Tensor]:
    """A layer's output, plus a product of what ``call`` makes of one value for all clicks of a task."""
    return lambda m, h, b: torch.tanh(m.linear(h) + call(m, h, b, one_for_all(m, h)) @ m.w)


def one_for_all(m: Any, h: Tensor) -> Tensor:
    """The same row for all clicks, of a learned vector alone."""
    return h * 0 + m.w[0]


def turned(h: Tensor) -> Tensor:
    """Row numbers, from the last to the first."""
    return len(h) - 1 - torch.arange(len(h))


def reversed_rows(b: HeteroData) -> Tensor:
    """Each click with the number of the one that is as far from the other end: rows of the batch, pointing anywhere."""
    last = b["event"].num_nodes - 1
    return b["event"].order * 0 + (last - torch.arange(last + 1))


def into_next(v: Tensor) -> Tensor:
    out = v.clone()
    out[1:] = v[:-1]
    return out


def in_pairs(v: Tensor) -> Tensor:
    """The mean of each row and the next."""
    return torch.cat([v, v[:1]]).unfold(0, 2, 1).mean(-1)


def one_session(v: Tensor) -> Tensor:
    """All rows as the places of a single session of a layer."""
    return v[None]


_MOVED = {
    "rolled": lambda m, h, b, v: v.roll(1, 0),
    "flipped": lambda m, h, b, v: v.flip(0),
    "sorted": lambda m, h, b, v: v.sort(0).values,
    "taken from the other end": lambda m, h, b, v: v[turned(h)],
    "selected from the other end": lambda m, h, b, v: v.index_select(0, reversed_rows(b)),
    "indexed from the other end": lambda m, h, b, v: v[reversed_rows(b)],
    "indexed from the other end, by two": lambda m, h, b, v: v[reversed_rows(b)[:, None], torch.arange(v.shape[1])],
    "gathered from the other end": lambda m, h, b, v: v.gather(0, reversed_rows(b)[:, None].expand_as(v)),
    "gathered from the other end by numbers": lambda m, h, b, v: v.gather(0, turned(h)[:, None].expand_as(v)),
    "taken along": lambda m, h, b, v: v.take_along_dim(turned(h)[:, None], 0),
    "embedded": lambda m, h, b, v: torch.nn.functional.embedding(reversed_rows(b), v),
    "cut and joined": lambda m, h, b, v: torch.cat([v[1:], v[:1]]),
    "padded": lambda m, h, b, v: torch.nn.functional.pad(v, (0, 0, 1, 0))[1:] + v[:1],
    "written one further": lambda m, h, b, v: into_next(v),
    "index_copy backwards": lambda m, h, b, v: torch.zeros_like(v).index_copy(0, turned(h), v),
    "index_put backwards": lambda m, h, b, v: torch.zeros_like(v).index_put((reversed_rows(b),), v),
    "in pairs": lambda m, h, b, v: in_pairs(v),
    "cummax": lambda m, h, b, v: v.cummax(0).values,
    "the largest": lambda m, h, b, v: v.amax(0),
    "the median": lambda m, h, b, v: v.median(0).values.expand_as(h),
    "permuted": lambda m, h, b, v: torch.eye(len(h))[turned(h)] @ v,
    "permuted by einsum": lambda m, h, b, v: torch.einsum("ij,jd->id", torch.eye(len(h))[turned(h)], v),
    "transposed": lambda m, h, b, v: v.T.roll(1, 1).T,
    "flat": lambda m, h, b, v: v.flatten().roll(v.shape[1]).view_as(v),
    "unbound": lambda m, h, b, v: torch.stack([*v.unbind(0)[1:], v[0]]),
    "split": lambda m, h, b, v: torch.cat(v.split(1)[::-1]),
    "a state of a cell": lambda m, h, b, v: torch.gru_cell(h, v.roll(1, 0), *cell_weights(h)),
    "a state of a layer": lambda m, h, b, v: torch.gru(
        h[:, None], v.roll(1, 0)[None], cell_weights(h), True, 1, 0.0, False, False, True
    )[0][:, 0],
    "keys": lambda m, h, b, v: attended(h, v.roll(1, 0)),
    "the bilinear": lambda m, h, b, v: torch.nn.functional.bilinear(h, v.roll(1, 0), h.new_ones(6, 6, 6)),
    "a batch of products": lambda m, h, b, v: torch.bmm(h[:, None], v.roll(1, 0)[:, :, None])[:, 0].expand_as(h),
    "addcmul": lambda m, h, b, v: torch.addcmul(h, v.roll(1, 0), m.w[1]),
    "lerp": lambda m, h, b, v: torch.lerp(h, v.roll(1, 0), m.w[1]),
    "where": lambda m, h, b, v: torch.where(h > 0, v.roll(1, 0), m.w[1]),
    "joined with a token": lambda m, h, b, v: torch.cat([h, v.roll(1, 0), m.w[1].expand(len(h), -1)], 1)[:, 3:9],
    "added in place": lambda m, h, b, v: h.clone().add_(v.roll(1, 0)),
    "copied": lambda m, h, b, v: torch.empty_like(h).copy_(v.roll(1, 0)),
    "a batch norm": lambda m, h, b, v: torch.nn.functional.batch_norm(
        v[:, :, None].expand(-1, -1, 2), None, None, training=True
    )[..., 0],
}
for _name, _call in _MOVED.items():
    clicks(
        f"attack one value for all, {_name}",
        beside_a_layer(_call),
        tokens,
    )
    clicks(
        f"attack one value for all, {_name}, last",
        lambda m, h, b, call=_call: torch.tanh(h @ m.w + call(m, h, b, one_for_all(m, h))),
        tokens,
    )


# Per-task weights in places where no operation on a tensor is seen to read them.


def through_views(v: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    """Every row moved one further by writes into views, then a write into the whole."""
    out = torch.zeros_like(v)
    out[1:].copy_(v[:-1])
    out[:1].copy_(v[-1:])
    write(out)
    return out


def code(v: Tensor) -> Tensor:
    """A whole number of each row, that weights decide: 0 to 4."""
    return (v[:, 0].detach() * 1e4).round().long() % 5


def zeroed(at: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    """Row numbers of the batch, written over with another's."""
    at = at.clone()
    write(at)
    return at


def of_items(m: Any, h: Tensor, b: HeteroData, at: Tensor) -> Tensor:
    """The same value for all items, read at these row numbers."""
    return (item_sums(h, b) * 0 + m.w[0])[at]


def buffered(m: Any, v: Tensor) -> Tensor:
    m.scratch[: len(v)].copy_(v.detach())
    return m.scratch[: len(v)].flip(0)


def squeezed(m: Any, h: Tensor) -> Tensor:
    out = h[None] * 1.0
    out.squeeze_(0)
    return out * m.w[0, 0]


def item_means(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    """The mean of an item's clicks, which every item of a batch has."""
    event, size = b["event"], b["item"].num_nodes
    total = h.new_zeros(size, h.shape[1]).index_add(0, event.item, m.linear(h))
    return (total / torch.bincount(event.item, minlength=size)[:, None])[event.item]


def item_directions(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    event = b["event"]
    total = h.new_zeros(b["item"].num_nodes, h.shape[1]).index_add(0, event.item, m.linear(h))
    return (total / total.norm(dim=1, keepdim=True))[event.item]


def hooked(m: Any, h: Tensor) -> Tensor:
    u = m.linear(h)
    if u.requires_grad:
        u.register_hook(lambda g: 2 * g)
    return u


_HIDDEN = {
    **{
        f"written through views, then {name}": lambda m, h, b, v, write=write: through_views(v, write)
        for name, write in {
            "mul_": lambda z: z.mul_(1.5),
            "tanh_": lambda z: z.tanh_(),
            "setitem": lambda z: z.__setitem__((slice(None), 0), 1.0),
            "a new shape": lambda z: z.unsqueeze_(0).squeeze_(0),
            "foreach": lambda z: torch._foreach_mul_([z], 2.0),
        }.items()
    },
    **{
        f"row numbers, {name}": lambda m, h, b, v, write=write: of_items(m, h, b, zeroed(b["event"].item, write))
        for name, write in {
            "zero_": lambda at: at.zero_(),
            "fill_": lambda at: at.fill_(0),
            "setitem": lambda at: at.__setitem__(slice(2, None), 0),
            "index_fill_": lambda at: at.index_fill_(0, torch.arange(len(at)), 0),
            "a mask": lambda at: at.__setitem__(torch.ones(len(at), dtype=torch.bool), 0),
        }.items()
    },
    "row numbers, as bool": lambda m, h, b, v: of_items(m, h, b, b["event"].item.to(torch.bool).to(torch.long)),
    "row numbers, index_fill": lambda m, h, b, v: of_items(
        m, h, b, b["event"].item.index_fill(0, torch.arange(len(h)), 0)
    ),
    "row numbers, tril": lambda m, h, b, v: of_items(m, h, b, b["event"].item[:, None, None].tril(-1)[:, 0, 0]),
    "row numbers backwards": lambda m, h, b, v: of_items(m, h, b, b["event"].item[reversed_rows(b)]),
    "row numbers below 0": lambda m, h, b, v: torch.where(
        (b["event"].order > 0)[:, None], m.linear(h)[torch.arange(len(h)) - 1], 0.0
    ),
    "a number": lambda m, h, b, v: h * float(v[0, 0]),
    "an item": lambda m, h, b, v: h * v[0, 0].item(),
    "a list": lambda m, h, b, v: h + torch.tensor(v[0].tolist(), dtype=h.dtype),
    "an array": lambda m, h, b, v: h + torch.from_numpy(v.detach().numpy()[0].copy()),
    "a branch": lambda m, h, b, v: h * 2 if code(v)[0] > 2 else h,
    "a branch on any": lambda m, h, b, v: h * 2 if (v > 0.3).any() else h,
    "a branch on equal": lambda m, h, b, v: h * 2 if torch.equal(code(v)[:1], torch.zeros(1).long()) else h,
    "a column": lambda m, h, b, v: h[:, int(code(v)[0])][:, None].expand_as(h),
    "an index of a column": lambda m, h, b, v: h[:, code(v)[0]][:, None].expand_as(h),
    "a slice": lambda m, h, b, v: h[:, : code(v)[0] + 1].sum(1, keepdim=True).expand_as(h),
    "a range": lambda m, h, b, v: h * sum(range(code(v)[0] + 2)),
    "arange": lambda m, h, b, v: h * torch.arange(code(v)[0] + 1).sum(),
    "the size of nonzero": lambda m, h, b, v: h * (len((v[:1] > 0).nonzero()) + 1),
    "the size of a mask": lambda m, h, b, v: h * (len(v[0][v[0] > 0]) + 1),
    "the size of unique": lambda m, h, b, v: h * torch.unique(code(v)).numel(),
    "the size of one_hot": lambda m, h, b, v: h * torch.nn.functional.one_hot(code(v)[:1]).shape[1],
    "the size of bincount": lambda m, h, b, v: h * len(torch.bincount(code(v)[:1])),
    "two indices": lambda m, h, b, v: m.table[b["event"].order, code(v)[turned(h)]][:, None],
    "two written indices": lambda m, h, b, v: torch.zeros_like(h).index_put(
        (torch.arange(len(h)), code(v)[turned(h)]), torch.tensor(0.5, dtype=h.dtype)
    ),
    "a buffer": lambda m, h, b, v: buffered(m, v),
    "a squeezed copy": lambda m, h, b, v: squeezed(m, h),
    "means of items": lambda m, h, b, v: item_means(m, h, b),
    "directions of items": lambda m, h, b, v: item_directions(m, h, b),
    "a hook on a gradient": lambda m, h, b, v: hooked(m, h),
    "the first row of none": lambda m, h, b, v: m.linear(h[:1] * 0).expand_as(h),
    "a mean of none": lambda m, h, b, v: m.linear(h * 0).mean(0).expand_as(h),
    "sums of squares of weights": lambda m, h, b, v: h * sum(p.square().sum() for p in m.linear.parameters()),
}


class NormOfAll(torch.autograd.Function):
    """Forward passes its rows on; backward reads those of all tasks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * grads[0]


def sessions_of(b: HeteroData, rows: Tensor, at: Tensor) -> Tensor:
    """Sums of rows by session, read back at each click."""
    size = b["sample"].num_nodes
    return rows.new_zeros(size, rows.shape[1]).index_add(0, at, rows)[b["event"].batch]


def masked(b: HeteroData, z: Tensor) -> Tensor:
    z = z.clone()
    z[b["event"].order < 0] = 0.0
    return z


def recurrent_cell_state(m: Any, h: Tensor, v: Tensor) -> Tensor:
    d = h.shape[1]
    one = torch.linspace(-1, 1, 4 * d * d, dtype=h.dtype).reshape(4 * d, d)
    weights = [one, one.flip(0), h.new_zeros(4 * d), h.new_ones(4 * d)]
    first = torch.tanh(h @ m.w)[:, None]
    return torch.lstm(first, (h[None], v[turned(h)][None]), weights, True, 1, 0.0, False, False, True)[0][:, 0]


def session_items(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    """The mean over a session's items, which every session with clicks has."""
    owner, size = b["item"].batch, b["sample"].num_nodes
    x = m.linear(item_sums(h, b))
    total = x.new_zeros(size, x.shape[1]).index_add(0, owner, x)
    return (total / torch.bincount(owner, minlength=size)[:, None])[b["event"].batch]


def item_sums(h: Tensor, b: HeteroData) -> Tensor:
    return h.new_zeros(b["item"].num_nodes, h.shape[1]).index_add(0, b["event"].item, h)


def incoming(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    """The mean over incoming edges, for clicks that are not the first."""
    source, end = b[NEXT].edge_index
    size = b["item"].num_nodes
    x = m.linear(item_sums(h, b))
    total = x.new_zeros(size, x.shape[1]).index_add(0, end, x[source])
    later = b["event"].order > 0
    mean = total[b["event"].item[later]] / torch.bincount(end, minlength=size)[b["event"].item[later]][:, None]
    return torch.zeros_like(h).index_put((later.nonzero()[:, 0],), mean)


_HIDDEN |= {
    "packed rows summed by their session": lambda m, h, b, v: sessions_of(
        b, (h * 0 + 1) * m.tok[0], b["event"].batch[b["event"].order.argsort(stable=True)]
    ),
    "rows summed by another session": lambda m, h, b, v: sessions_of(b, v, b["event"].batch[turned(h)]),
    "the state of a cell": lambda m, h, b, v: recurrent_cell_state(m, h, v),
    "a function of one's own": lambda m, h, b, v: NormOfAll.apply(m.linear(h)),
    "the size of arange": lambda m, h, b, v: h * len(torch.arange(code(v)[0] + 1)),
    "the size of zeros": lambda m, h, b, v: h * (h.new_zeros(code(v)[0] + 1, 2).shape[0]),
    "the size of narrow": lambda m, h, b, v: h * h.narrow(1, 0, code(v)[0] + 1).shape[1],
    "the size of topk": lambda m, h, b, v: h * h.topk(code(v)[0] + 1, 1).values.shape[1],
    "the size of where": lambda m, h, b, v: h * (len(torch.where(v[:1] > 0)[0]) + 1),
    "the size of repeat_interleave": lambda m, h, b, v: h * (len(torch.ones(1).repeat_interleave(code(v)[:1])) + 1),
    "a mask in a list": lambda m, h, b, v: h * (len(v[0][[v[0] > 0]]) + 1),
    "a kernel": lambda m, h, b, v: torch.nn.functional.conv1d(
        h[:, :, None].expand(-1, -1, 2), v[:, 0, None, None].expand(-1, 6, 1)
    ).mean((1, 2))[:, None],
    "a difference": lambda m, h, b, v: torch.diff(h, dim=1, prepend=v[turned(h)][:, :1]),
    "written by a mask": lambda m, h, b, v: masked(b, v[turned(h)]),
    "means of a session's items": lambda m, h, b, v: session_items(m, h, b),
    "means over incoming edges": lambda m, h, b, v: incoming(m, h, b),
}


def tables(d: int) -> dict[str, Any]:
    parts = {"table": torch.randn(60, 6), "scratch": torch.zeros(1000, d), "flat": torch.eye(6).to_sparse()}
    return tokens(d) | parts | {"none": nn.Parameter(torch.empty(0))}


for _name, _call in _HIDDEN.items():
    clicks(
        f"attack hidden, {_name}",
        lambda m, h, b, call=_call: torch.tanh(m.linear(h) + call(m, h, b, one_for_all(m, h))),
        tables,
    )


def cell_weights(h: Tensor) -> list[Tensor]:
    """Constant weights of a GRU cell."""
    width = h.shape[1]
    one = torch.linspace(-1, 1, 3 * width * width, dtype=h.dtype).reshape(3 * width, width)
    return [one, one.flip(0), h.new_zeros(3 * width), h.new_ones(3 * width)]


def attended(h: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(h[:, None], v[:, None], v[:, None])[:, 0]


# Names, signatures and places by which an operation looks like another, or is seen by nobody.


@torch.library.custom_op("attacks::relu", mutates_args=())
def op_relu(x: Tensor) -> Tensor:
    """Somebody's own operator of a name that torch has too: the rows backwards."""
    return x.flip(0).clone()


op_relu.register_autograd(lambda ctx, g: g.flip(0))


@torch.library.custom_op("attacks::keep", mutates_args=("into",))
def op_keep(x: Tensor, into: Tensor) -> None:
    into.copy_(x)


@torch.library.custom_op("attacks::linear", mutates_args=())
def op_linear(x: Tensor, w: Tensor) -> Tensor:
    return 2 * x @ w


def _linear_backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
    x, w = ctx.saved_tensors
    return 2 * g @ w.t(), 2 * x.t() @ g


op_linear.register_autograd(_linear_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


class BackwardsTanh(TorchDispatchMode):
    """Turns the rows round beneath torch functions."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return out.flip(0) if func is torch.ops.aten.tanh.default else out


def dispatched(v: Tensor) -> Tensor:
    with torch.no_grad(), BackwardsTanh():
        return v.tanh()


def inferred(m: Any, h: Tensor) -> Tensor:
    with torch.inference_mode():
        gate = torch.sigmoid(m.linear(h))
    return gate.clone()


def by_out(like: Tensor, call: Callable[..., Any]) -> Tensor:
    """What an operation writes into a tensor of its own."""
    into = torch.zeros(like.shape)
    with torch.no_grad():
        call(into)
    return into


def with_data(at: Tensor) -> Tensor:
    at = at.clone()
    at.data = torch.zeros_like(at)
    return at


def kept_by_all(m: Any, v: Tensor, call: Callable[..., Any]) -> Tensor:
    call(v.detach()[0], m.table[0, :6])
    return m.table[0, :6].clone().expand_as(v)


def small_mask(m: Any, h: Tensor, b: HeteroData) -> Tensor:
    later = (b["event"].order > 0).to(torch.uint8)
    part = m.linear(h[later])
    out = torch.zeros_like(h)
    out[later] = part
    return out


def frozen(layer: nn.Module, h: Tensor) -> Tensor:
    with torch.set_grad_enabled(layer.weight.requires_grad):
        return torch.tanh(layer(h))


def no_learning(m: Any, h: Tensor) -> Tensor:
    m.linear.requires_grad_(False)
    return m.linear(h)


def eye(h: Tensor) -> Tensor:
    return torch.eye(len(h))[turned(h)]


_DISGUISED = {
    "an operator called relu": lambda m, h, b, v: torch.ops.attacks.relu(v),
    "an operator called linear": lambda m, h, b, v: torch.ops.attacks.linear(h, m.w),
    "an operator of aten": lambda m, h, b, v: torch.ops.aten.flip(v, [0]),
    "an operator that writes": lambda m, h, b, v: kept_by_all(m, v, torch.ops.attacks.keep),
    "a list that is written into": lambda m, h, b, v: kept_by_all(
        m, v, lambda x, into: torch._foreach_copy_([into], [x])
    ),
    "torch.embedding": lambda m, h, b, v: torch.embedding(v, reversed_rows(b)),
    "torch.embedding by keyword": lambda m, h, b, v: torch.embedding(weight=v, indices=turned(h)),
    "torch.batch_norm": lambda m, h, b, v: torch.batch_norm(
        h, m.w[0], m.w[1], torch.zeros(6), torch.ones(6), False, 0.1, 1e-5, False
    ),
    "a reflected product": lambda m, h, b, v: m.w.__rmatmul__(h[:, :, None] * h[:, None]).sum(1),
    "a mode beneath": lambda m, h, b, v: dispatched(v),
    "inference mode": lambda m, h, b, v: inferred(m, h),
    "row numbers by view(dtype=)": lambda m, h, b, v: of_items(
        m, h, b, b["event"].item.view(dtype=torch.int32)[1::2].long()
    ),
    "row numbers with other data": lambda m, h, b, v: of_items(m, h, b, with_data(b["event"].item)),
    "out= of a product": lambda m, h, b, v: h * by_out(h, lambda z: torch.mm(h, m.w, out=z)),
    "out= of a look-up": lambda m, h, b, v: (
        h * by_out(h, lambda z: torch.index_select(m.tok, 0, b["event"].order % 6, out=z))
    ),
    "out= of joined weights": lambda m, h, b, v: h @ by_out(m.w, lambda z: torch.cat([m.w[3:], m.w[:3]], out=z)),
    "out= of an exponential": lambda m, h, b, v: h @ by_out(m.w, lambda z: torch.exp(m.w, out=z)),
    "out= of addmm": lambda m, h, b, v: h * by_out(h, lambda z: torch.addmm(h, h, m.w, out=z)),
    "out= of a pair": lambda m, h, b, v: by_out(
        m.w[0], lambda z: torch.max(v, 0, out=(z, torch.zeros(6, dtype=torch.long)))
    ).expand_as(h),
    "a weight copied": lambda m, h, b, v: h @ by_out(m.w, lambda z: z.copy_(m.w)),
    "whether a weight learns": lambda m, h, b, v: m.linear(h) if m.w.requires_grad else m.linear(h).detach(),
    "whether a derived weight learns": lambda m, h, b, v: (
        m.linear(h) if m.w.sum().requires_grad else m.linear(h).detach()
    ),
    "gradients where a weight learns": lambda m, h, b, v: frozen(m.linear, h),
    "a leaf": lambda m, h, b, v: m.linear(h).detach() if m.linear(h).is_leaf else m.linear(h),
    "a weight's node": lambda m, h, b, v: m.linear(h) if m.w.sum().grad_fn else m.linear(h).detach(),
    "a weight's strides": lambda m, h, b, v: h @ (m.w if m.w.t().stride() == m.w.stride() else m.w.sin()),
    "a weight's contiguity": lambda m, h, b, v: h @ (m.w if m.w.t().is_contiguous() else m.w.sin()),
    "a weight's memory": lambda m, h, b, v: h @ (m.w if m.w.data_ptr() == m.linear.weight.data_ptr() else m.w.sin()),
    "a weight's storage": lambda m, h, b, v: h * (m.w.untyped_storage().nbytes() / 288),
    "a weight's base": lambda m, h, b, v: h @ (m.w if m.w[:3]._base is not None else m.w.sin()),
    "whether a weight is a view": lambda m, h, b, v: h @ (m.w if m.w[:3]._is_view() else m.w.sin()),
    "a weight's text": lambda m, h, b, v: h * (1 + ("Task" in repr(m.w))),
    "addmm by keyword": lambda m, h, b, v: torch.addmm(input=m.w[0], mat1=h, mat2=m.w),
    "addmm of rows by keyword": lambda m, h, b, v: torch.addmm(input=h * 0, mat1=eye(h), mat2=v),
    "baddbmm by keyword": lambda m, h, b, v: torch.baddbmm(
        h[:, None], batch1=h[:, None], batch2=m.w.expand(len(h), -1, -1)
    )[:, 0],
    "addmv by keyword": lambda m, h, b, v: h * torch.addmv(h[:, 0], mat=h, vec=m.w[0])[:, None],
    "dot by keyword": lambda m, h, b, v: h * torch.dot(m.w[0], tensor=m.w[1]),
    "view by keyword": lambda m, h, b, v: h @ m.w.view(-1).view(size=(6, 6)),
    "scatter by keyword": lambda m, h, b, v: torch.zeros_like(v).scatter(
        dim=0, index=turned(h)[:, None].expand_as(v), src=v
    ),
    "std of all": lambda m, h, b, v: m.linear(h) + 0 * torch.ones(6).std(True),
    "a mask of small integers": lambda m, h, b, v: small_mask(m, h, b),
    "cosines to constants": lambda m, h, b, v: torch.nn.functional.cosine_similarity(
        m.linear(h), torch.linspace(-1, 1, 36).reshape(6, 1, 6), dim=-1
    ).t(),
    "a layer frozen inside": lambda m, h, b, v: no_learning(m, h),
}
for _name, _call in _DISGUISED.items():
    clicks(
        f"attack disguised, {_name}",
        beside_a_layer(_call),
        tables,
    )

clicks(
    "attack disguised, a cell by keyword",
    lambda m, h, b: torch.gru_cell(
        h,
        hx=h.sin(),
        w_ih=m.cell.weight_ih,
        w_hh=m.cell.weight_hh,
        b_ih=m.cell.bias_ih,
        b_hh=m.cell.bias_hh,
    ),
    lambda d: {"cell": nn.GRUCell(d, d)},
)


class Grouped(nn.Module):
    """Two heads of queries for each head of keys, in sessions of a fixed length."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(d, 4 * d), nn.Linear(d, 2 * d), nn.Linear(d, 2 * d)
        self.out = nn.Linear(4 * d, d)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        dense, known = padded(x[batch["event"].item], batch, 50)
        q, k, v = (
            layer(dense).unflatten(2, (-1, dense.shape[2])).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        heard = torch.nn.functional.scaled_dot_product_attention(
            query=q, key=k, value=v, attn_mask=known[:, None, None], enable_gqa=True
        )
        return flat(self.out(heard.transpose(1, 2).flatten(2)), batch)


LAYERS["attack disguised, grouped queries"] = Grouped


class Keeper(nn.Module):
    """Keeps what its weights made, for the next call."""

    def __init__(self, d: int, what: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.what = nn.Linear(d, d), what
        self.register_buffer("kept", torch.zeros(d))

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        out = self.linear(x[batch["event"].item])
        self.kept = self.what(out.detach(), self.linear.weight.detach())
        return torch.tanh(out)


_KEPT = {
    "a mean": lambda out, w: out.mean(0),
    "a row": lambda out, w: out[0],
    "a norm of a weight": lambda out, w: w.norm(),
}
for _name, _what in _KEPT.items():
    LAYERS[f"attack disguised, {_name} in a buffer"] = lambda d, what=_what: Keeper(d, what)
