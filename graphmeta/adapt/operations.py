"""What per-task weights do when they meet an operation: one handler for each that is known.

Importing this module registers them; :mod:`graphmeta.adapt.engine` does. A handler gets the function and its
arguments, of which at least one is a :class:`~graphmeta.adapt.weight.TaskWeight`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.matrix import TaskMatrix
from graphmeta.adapt.weight import Handler, TaskLayout, TaskWeight, align, handles, product
from graphmeta.errors import UnsupportedOp


def _layout(*values: Any) -> TaskLayout:
    return next(v.tasks for v in values if isinstance(v, TaskWeight))


def _of_rows(handler: Handler) -> Handler:
    """A handler whose first argument must be rows of activations: weights may follow, none may come first."""

    @wraps(handler)
    def checked(func: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(input, TaskWeight):
            raise UnsupportedOp(f"{func.__name__} of a per-task weight")
        return handler(func, input, *args, **kwargs)

    return checked


@handles(F.linear)
@_of_rows
def _linear(func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if isinstance(weight, TaskMatrix) and not weight.tasks.on_edges(input):
        out = weight.linear(input)
        return out.clone() if bias is None else out + bias  # a module may write into what it gets
    if isinstance(weight, TaskWeight):
        out = product(input, weight.stacked.transpose(-1, -2), weight.tasks)
    else:
        out = F.linear(input, weight)
    return out if bias is None else out + bias


_RIGHT = (Tensor.__rmatmul__,)


@handles(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.mv, *_RIGHT)
def _matmul(func: Any, input: Tensor, other: Tensor) -> Tensor:
    left, right = (other, input) if func in _RIGHT else (input, other)
    if isinstance(left, TaskWeight) and isinstance(right, TaskWeight) and left.dim() == right.dim() == 2:
        return TaskWeight(left.stacked @ right.stacked, left.tasks)
    if isinstance(left, TaskWeight):
        raise UnsupportedOp("a per-task weight on the left of a product")
    assert isinstance(right, TaskWeight)
    return product(left, right.stacked, right.tasks)


@handles(torch.addmm, Tensor.addmm)
def _addmm(func: Any, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * torch.matmul(mat1, mat2)


_BINARY = {
    torch.add: torch.add, Tensor.add: torch.add, Tensor.__add__: torch.add, Tensor.__radd__: torch.add,
    Tensor.__iadd__: torch.add, torch.sub: torch.sub, Tensor.sub: torch.sub, Tensor.__sub__: torch.sub,
    Tensor.__isub__: torch.sub, torch.mul: torch.mul, Tensor.mul: torch.mul, Tensor.__mul__: torch.mul,
    Tensor.__rmul__: torch.mul, Tensor.__imul__: torch.mul, torch.div: torch.div, Tensor.div: torch.div,
    Tensor.__truediv__: torch.div, torch.true_divide: torch.div,
    Tensor.__rsub__: lambda a, b: torch.sub(b, a), torch.rsub: lambda a, b: torch.sub(b, a),
    Tensor.__rtruediv__: lambda a, b: torch.div(b, a), Tensor.__pow__: torch.pow, Tensor.pow: torch.pow,
    torch.pow: torch.pow,
}  # fmt: skip


@handles(*_BINARY)
def _binary(func: Any, a: Any, b: Any, *, alpha: float = 1) -> Tensor:
    tasks, op = _layout(a, b), _BINARY[func]
    if alpha != 1:
        raise UnsupportedOp(f"{func.__name__} with alpha on a per-task weight")
    plain = b if isinstance(a, TaskWeight) else a
    if isinstance(plain, TaskWeight):
        return TaskWeight(op(*_same_rank(a.stacked, b.stacked)), tasks)
    own = a if isinstance(a, TaskWeight) else b
    if not isinstance(plain, Tensor) or not tasks.has_rows(plain):
        return TaskWeight(_with_shared(op, a, b), tasks)
    w, x = align(own.stacked, plain, tasks)
    out = op(w, x) if own is a else op(x, w)
    return out if tasks.on_edges(plain) else out.reshape(-1, *out.shape[2:])


def _same_rank(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    rank = max(a.dim(), b.dim())
    return tuple(t.reshape(t.shape[0], *(1,) * (rank - t.dim()), *t.shape[1:]) for t in (a, b))  # pyright: ignore


def _with_shared(op: Callable[..., Tensor], a: Any, b: Any) -> Tensor:
    """A per-task weight with a number or with a shared tensor of no higher rank."""
    own, plain = (a, b) if isinstance(a, TaskWeight) else (b, a)
    if isinstance(plain, Tensor) and plain.dim() > own.stacked.dim() - 1:
        raise UnsupportedOp(f"a per-task weight {tuple(own.shape)} with a tensor {tuple(plain.shape)}")
    return op(own.stacked, plain) if own is a else op(plain, own.stacked)


@handles(
    torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh, torch.relu, Tensor.relu, F.relu, torch.exp, Tensor.exp,
    torch.neg, Tensor.neg, Tensor.__neg__, torch.abs, Tensor.abs, torch.sqrt, Tensor.sqrt, torch.log, Tensor.log,
    F.softplus, F.leaky_relu, F.gelu, F.elu, F.silu, Tensor.clone, torch.clone, Tensor.contiguous, Tensor.float,
    Tensor.double, Tensor.to, Tensor.clamp, torch.clamp, torch.square, Tensor.square,
)  # fmt: skip
def _elementwise(func: Any, weight: TaskWeight, *args: Any, **kwargs: Any) -> Tensor:
    return TaskWeight(func(weight.stacked, *args, **kwargs), weight.tasks)


@handles(F.softmax, torch.softmax, Tensor.softmax)
def _softmax(func: Any, weight: TaskWeight, dim: int, *, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    if dtype is not None:
        raise UnsupportedOp("softmax in another dtype of a per-task weight")
    return TaskWeight(torch.softmax(weight.stacked, _shift(dim)), weight.tasks)


def _shift(dim: int) -> int:
    """The dimension of the stacked tensor that is ``dim`` of the weight."""
    return dim if dim < 0 else dim + 1


@handles(Tensor.t, torch.t, Tensor.transpose, torch.transpose)
def _transpose(func: Any, weight: TaskWeight, dim0: int = -2, dim1: int = -1) -> Tensor:
    if weight.stacked.dim() < 3:
        return weight
    return TaskWeight(weight.stacked.transpose(_shift(dim0), _shift(dim1)), weight.tasks)


@handles(Tensor.T.__get__, Tensor.mT.__get__)  # pyright: ignore[reportAttributeAccessIssue]
def _property_t(func: Any, weight: TaskWeight, *unused: Any) -> Tensor:
    if weight.stacked.dim() != 3:
        raise UnsupportedOp("transpose of a per-task weight that is no matrix")
    return TaskWeight(weight.stacked.transpose(-1, -2), weight.tasks)


@handles(Tensor.view, Tensor.reshape, torch.reshape)
def _reshape(func: Any, weight: TaskWeight, *shape: Any) -> Tensor:
    wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list, torch.Size)) else shape
    return TaskWeight(weight.stacked.reshape(weight.stacked.shape[0], *wanted), weight.tasks)


@handles(Tensor.unsqueeze, torch.unsqueeze, Tensor.squeeze, torch.squeeze)
def _one_dim(func: Any, weight: TaskWeight, dim: int) -> Tensor:
    return TaskWeight(func(weight.stacked, _shift(dim)), weight.tasks)


@handles(Tensor.chunk, torch.chunk, Tensor.split, torch.split, Tensor.unbind, torch.unbind)
def _pieces(func: Any, weight: TaskWeight, *args: Any, dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(TaskWeight(part, weight.tasks) for part in func(weight.stacked, *args, dim=_shift(dim)))


@handles(Tensor.__getitem__)
def _getitem(func: Any, weight: Any, index: Any) -> Tensor:
    if not isinstance(weight, TaskWeight):
        raise UnsupportedOp("indexing by a per-task weight")
    if isinstance(index, Tensor):
        return _embedding(func, index, weight)
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, (int, slice)) or part is None or part is Ellipsis for part in parts):
        raise UnsupportedOp("mixed indexing of a per-task weight")
    return TaskWeight(weight.stacked[(slice(None), *parts)], weight.tasks)


@handles(F.embedding)
@_of_rows
def _embedding(
    func: Any,
    input: Tensor,
    weight: TaskWeight,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    if input.dtype == torch.bool or padding_idx is not None or max_norm is not None or scale_grad_by_freq or sparse:
        raise UnsupportedOp("a boolean index or an option of embedding on a per-task weight")
    blocks, size = weight.tasks.blocks(input), weight.stacked.shape[1]
    if blocks.numel() and not (int(blocks.min()) >= 0 and int(blocks.max()) < size):
        raise UnsupportedOp("a negative or too large index into a per-task weight")
    offset = torch.arange(blocks.shape[0], device=input.device) * size
    index = (blocks + offset.reshape(-1, *(1,) * (blocks.dim() - 1))).reshape(-1)
    return weight.stacked.flatten(0, 1).index_select(0, index).reshape(*input.shape, *weight.stacked.shape[2:])


@handles(torch.index_select, Tensor.index_select)
def _index_select(func: Any, input: TaskWeight, dim: int, index: Tensor) -> Tensor:
    if dim != 0:
        raise UnsupportedOp("index_select along another dimension than 0 of a per-task weight")
    return _embedding(func, index, input)


@handles(F.layer_norm)
@_of_rows
def _layer_norm(
    func: Any,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    out = F.layer_norm(input, normalized_shape, eps=eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@handles(F.rms_norm)
@_of_rows
def _rms_norm(func: Any, input: Tensor, normalized_shape: Any, weight: Tensor, eps: float | None = None) -> Tensor:
    return F.rms_norm(input, normalized_shape, eps=eps) * weight


@handles(F.dropout)
def _dropout(func: Any, input: TaskWeight, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if training and p > 0:
        raise UnsupportedOp("dropout on a per-task weight")
    return input


@handles(torch.gru_cell)
@_of_rows
def _gru_cell(
    func: Any,
    x: Tensor,
    h: Tensor,
    w_x: Tensor,
    w_h: Tensor,
    b_x: Tensor | None = None,
    b_h: Tensor | None = None,
) -> Tensor:
    return gru_step(F.linear(x, w_x, b_x), F.linear(h, w_h, b_h), h)


def gru_step(from_input: Tensor, from_state: Tensor, state: Tensor) -> Tensor:
    """One GRU step from the projected input and state ``[…, 3·D]`` (reset, update, new), as ``torch.nn.GRUCell``."""
    (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_state.chunk(3, -1)
    update = torch.sigmoid(xz + hz)
    new = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return new + update * (state - new)


@handles(torch.lstm_cell)
@_of_rows
def _lstm_cell(
    func: Any,
    x: Tensor,
    state: Any,
    w_x: Tensor,
    w_h: Tensor,
    b_x: Tensor | None = None,
    b_h: Tensor | None = None,
) -> Any:
    return lstm_step(F.linear(x, w_x, b_x) + F.linear(state[0], w_h, b_h), state[1])


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM step from the summed gates ``[…, 4·D]`` (input, forget, cell, output), as ``torch.nn.LSTMCell``."""
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


@handles(torch.gru, torch.lstm)
@_of_rows
def _recurrent(
    func: Any, input: Tensor, state: Any, weights: list[Tensor], has_biases: bool, num_layers: int, dropout: float,
    training: bool, bidirectional: bool, batch_first: bool = False,
) -> Any:  # fmt: skip
    if not batch_first or bidirectional or (dropout and training) or isinstance(batch_first, Tensor):
        raise UnsupportedOp("an adapted recurrent layer that is packed, bidirectional, sequence-first or has dropout")
    per_layer, x, ends = (4 if has_biases else 2), input, []
    for layer in range(num_layers):
        own = [*weights[layer * per_layer : (layer + 1) * per_layer], None, None][:4]
        first = state[layer] if func is torch.gru else (state[0][layer], state[1][layer])
        x, end = _run_layer(x, first, own)
        ends.append(end)
    if func is torch.gru:
        return x, torch.stack(ends)
    return x, torch.stack([h for h, _ in ends]), torch.stack([c for _, c in ends])


def _run_layer(x: Tensor, state: Any, own: list[Any]) -> tuple[Tensor, Any]:
    """One recurrent layer over ``[S, L, D]``; a pair as the state means LSTM."""
    projected, out = F.linear(x, own[0], own[2]), []
    for step in projected.unbind(1):
        if isinstance(state, tuple):
            state = lstm_step(step + F.linear(state[0], own[1], own[3]), state[1])
            out.append(state[0])
        else:
            state = gru_step(step, F.linear(state, own[1], own[3]), state)
            out.append(state)
    return torch.stack(out, 1), state
