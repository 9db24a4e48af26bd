"""Fused operations of torch in terms of smaller ones, of which every derivative exists and every part can adapt.

Fused attention has no second derivative, and cuDNN's recurrent layers have none, nor a first one in eval mode. Within
:class:`ExactDerivatives` attention is a product, a softmax and a product, and on a GPU recurrent layers are their
equations (packed sequences: PyTorch's own kernels). The stacked engine uses the same functions where weights differ by
task.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from graphmeta.adapt.stacked.notes import ALWAYS, HANDLERS, Rows, name_of
from graphmeta.adapt.stacked.stack import Stack, TaskValue
from graphmeta.errors import UnsupportedOp

Mode = TorchFunctionMode


class ExactDerivatives(TorchFunctionMode):
    """Within it, what is fused is computed in parts wherever that is what it takes to differentiate it again.

    Args:
        again: whether it is differentiated again; if not, only recurrent layers on a GPU are computed in parts.
    """

    def __init__(self, *, again: bool = True) -> None:
        super().__init__()
        self.again = again

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        function = _PARTS.get(name)
        if function is None or not (self.again or name in _RECURRENT):
            return func(*args, **kwargs)
        if not _readable(name, args, kwargs):
            return _without_cudnn(func, args, kwargs) if name in _RECURRENT else func(*args, **kwargs)
        with self:
            return function(self, *args, **kwargs)


def _readable(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the parts know this form of the operation, and are needed."""
    if name == "multi_head_attention_forward":
        return args[0].dim() == 3 and kwargs.get("static_k") is None and len(args) <= 22
    if name == "scaled_dot_product_attention":
        return not kwargs.get("enable_gqa", False)
    if name in _RECURRENT:
        return args[0].is_cuda and _plain_sequence(args) is None
    if name in _SEGMENTS:
        return len(args) > 1 and args[1].dim() == 1 and (len(args) < 3 or args[2] is None) and not kwargs
    return True


def _without_cudnn(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A recurrent layer by PyTorch's own kernels, which have every derivative."""
    if not args[0].is_cuda:
        return func(*args, **kwargs)
    with _CUDNN:  # the switch is the process's: one thread at a time
        before = torch._C._get_cudnn_enabled()
        torch._C._set_cudnn_enabled(False)
        try:
            return func(*args, **kwargs)
        finally:
            torch._C._set_cudnn_enabled(before)


_CUDNN = Lock()


def attention(
    mode: Mode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(q kᵀ · scale + mask) v``, zero where a query may attend nothing: ``[…, L, E]`` -> ``[…, L, E]``."""
    if enable_gqa:
        raise UnsupportedOp("grouped-query attention")
    weight = _attention_weights(query, key, attn_mask, is_causal=is_causal, scale=scale)
    return torch.matmul(F.dropout(weight, dropout_p) if dropout_p > 0 else weight, value)


def _attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, *, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scale is None else scale), key.transpose(-1, -2))
    if is_causal:
        length, width = scores.shape[-2:]
        ahead = torch.ones(length, width, dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(ahead, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        nothing = (scores == -math.inf).all(-1, keepdim=True)
        return torch.softmax(scores.masked_fill(nothing, 0.0), -1).masked_fill(nothing, 0.0)
    return torch.softmax(scores, -1)


def multi_head_attention(
    mode: Mode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``torch.nn.functional.multi_head_attention_forward``: ``[L, B, E]`` -> ``[L, B, E]`` and ``[B, L, S]``."""
    if static_k is not None or static_v is not None:
        raise UnsupportedOp("multi-head attention with static keys")
    if query.dim() != 3:
        raise UnsupportedOp("multi-head attention without a batch dimension")
    projections = (q_proj_weight, k_proj_weight, v_proj_weight)
    if not use_separate_proj_weight:
        assert in_proj_weight is not None
        projections = in_proj_weight.chunk(3)
    of_query, of_key, of_value = projections
    assert of_query is not None and of_key is not None and of_value is not None
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, w, b) for x, w, b in zip((query, key, value), (of_query, of_key, of_value), biases, strict=True)
    )
    extra = 0
    if bias_k is not None and bias_v is not None:
        k, v, extra = (*(torch.cat([x, b.expand(1, x.shape[1], -1)]) for x, b in ((k, bias_k), (v, bias_v))), 1)
    if add_zero_attn:
        k, v, extra = (*(torch.cat([x, torch.zeros_like(x[:1])]) for x in (k, v)), extra + 1)
    q, k, v = (x.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for x in (q, k, v))  # [B, H, L, E / H]
    if extra:
        attn_mask, key_padding_mask = (
            None if m is None else F.pad(m, (0, extra)) for m in (attn_mask, key_padding_mask)
        )
    mask = _merged_mask(attn_mask, key_padding_mask, q, num_heads)
    weight = _attention_weights(q, k, mask)
    weight = F.dropout(weight, dropout_p) if training and dropout_p > 0 else weight
    attended = torch.matmul(weight, v).permute(2, 0, 1, 3).flatten(2)
    out = F.linear(attended, out_proj_weight, out_proj_bias)
    if not need_weights:
        return out, None
    return out, weight.mean(1) if average_attn_weights else weight


def _merged_mask(mask: Tensor | None, padding: Tensor | None, q: Tensor, heads: int) -> Tensor | None:
    """Both masks as one that is added to the scores ``[B, H, L, S]``."""
    merged = None
    if mask is not None:
        merged = _added(mask, q.dtype)
        merged = merged.unflatten(0, (-1, heads)) if merged.dim() == 3 else merged
    if padding is not None:
        padding = _added(padding, q.dtype)[:, None, None, :]
        merged = padding if merged is None else merged + padding
    return merged


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask


# recurrent layers --------------------------------------------------------------------------------------------------


def gru_step(from_input: Tensor, from_state: Tensor, state: Tensor) -> Tensor:
    """One GRU step from the projected input and state ``[…, 3·D]`` (reset, update, new), as ``torch.nn.GRUCell``."""
    (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_state.chunk(3, -1)
    update = torch.sigmoid(xz + hz)
    new = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return new + update * (state - new)


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM step from the summed gates ``[…, 4·D]`` (input, forget, cell, output), as ``torch.nn.LSTMCell``."""
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def gru_cell(
    mode: Mode, x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None
) -> Tensor:
    """``torch.gru_cell``: ``[S, D]`` and ``[S, H]`` -> ``[S, H]``."""
    h = _beside(mode, h, x)
    return gru_step(F.linear(x, w_x, b_x), F.linear(h, w_h, b_h), h)


def lstm_cell(
    mode: Mode, x: Tensor, state: Any, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``torch.lstm_cell``: ``[S, D]`` and two of ``[S, H]`` -> two of ``[S, H]``."""
    h, c = (_beside(mode, part, x) for part in state)
    return lstm_step(F.linear(x, w_x, b_x) + F.linear(h, w_h, b_h), c)


def rnn_cell(activation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """``torch.rnn_tanh_cell`` or ``rnn_relu_cell``."""

    def step(
        mode: Mode, x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None
    ) -> Tensor:
        return activation(F.linear(x, w_x, b_x) + F.linear(_beside(mode, h, x), w_h, b_h))

    return step


def _beside(mode: Mode, h: Tensor, x: Tensor) -> Tensor:
    """A state with one row for each row of ``x``, whose rows belong to the same tasks whatever it was made of."""
    if isinstance(mode, Stack) and not isinstance(h, TaskValue):
        own, other = mode.note(x), mode.note(h)
        if type(own) is Rows and type(other) is not Rows:
            return mode.mark(h.view_as(h), Rows(mode, h.dim() - (x.dim() - own.dim), own.owner))
    return h


def _plain_sequence(args: tuple[Any, ...]) -> str | None:
    """Why these arguments of a recurrent layer are not those of one padded sequence; None if they are."""
    if len(args) != 9 or not isinstance(args[2], (list, tuple)):
        return "packed"
    return None if args[0].dim() == 3 else "without a batch dimension"


def recurrent(name: str) -> Callable[..., Any]:
    """``torch.gru``, ``lstm``, ``rnn_tanh`` or ``rnn_relu`` over a padded block ``[S, L, D]`` (or ``[L, S, D]``)."""

    def run(mode: Mode, *args: Any, **kwargs: Any) -> Any:
        reason = "called by keywords" if kwargs else _plain_sequence(args)
        if reason is not None:
            raise UnsupportedOp(f"a recurrent layer ({name}) that is {reason}")
        x, state, weights, biased, layers, dropout, training, bidirectional, batch_first = args
        sides, time = 1 + bool(bidirectional), 1 if batch_first else 0
        each = len(weights) // (layers * sides)
        ends: list[Any] = []
        for layer in range(layers):
            outs = []
            for side in range(sides):
                at = layer * sides + side
                own = list(weights[at * each : (at + 1) * each])
                first = tuple(part[at] for part in state) if name == "lstm" else state[at]
                out, end = _run_layer(mode, name, x, first, _Layer(own, biased), time, backwards=side == 1)
                outs.append(out)
                ends.append(end)
            x = outs[0] if sides == 1 else torch.cat(outs, -1)
            if dropout and training and layer < layers - 1:
                x = F.dropout(x, dropout)
        if name == "lstm":
            return x, torch.stack([h for h, _ in ends]), torch.stack([c for _, c in ends])
        return x, torch.stack(ends)

    return run


class _Layer:
    """The weights of one direction of one recurrent layer, in torch's order."""

    def __init__(self, weights: list[Tensor], biased: bool) -> None:
        self.w_x, self.w_h = weights[:2]
        self.b_x, self.b_h = weights[2:4] if biased else (None, None)
        rest = weights[4 if biased else 2 :]
        self.project = rest[0] if rest else None


def _run_layer(
    mode: Mode, name: str, x: Tensor, state: Any, layer: _Layer, time: int, *, backwards: bool
) -> tuple[Tensor, Any]:
    projected = F.linear(x, layer.w_x, layer.b_x).unbind(time)
    out = []
    state = (
        tuple(_beside(mode, s, projected[0]) for s in state) if name == "lstm" else _beside(mode, state, projected[0])
    )
    for step in reversed(projected) if backwards else projected:
        if name == "lstm":
            h, c = lstm_step(step + F.linear(state[0], layer.w_h, layer.b_h), state[1])
            state = (h if layer.project is None else F.linear(h, layer.project)), c
            out.append(state[0])
            continue
        from_state = F.linear(state, layer.w_h, layer.b_h)
        if name == "gru":
            state = gru_step(step, from_state, state)
        else:
            state = (torch.tanh if name == "rnn_tanh" else torch.relu)(step + from_state)
        out.append(state)
    return torch.stack(out[::-1] if backwards else out, time), state


# torch-scatter -----------------------------------------------------------------------------------------------------


def segment_sum(mode: Mode, x: Tensor, ptr: Tensor, out: Tensor | None = None) -> Tensor:
    """torch-scatter's sum over ``x[ptr[s]:ptr[s + 1]]``, whose own second derivative is wrong: ``[E, …] -> [S, …]``."""
    owner = torch.searchsorted(ptr, torch.arange(len(x), device=x.device), right=True)  # 0 and the last: of none
    return torch.zeros(len(ptr) + 1, *x.shape[1:], dtype=x.dtype, device=x.device).index_add(0, owner, x)[1:-1]


def segment_mean(mode: Mode, x: Tensor, ptr: Tensor, out: Tensor | None = None) -> Tensor:
    """The mean, zero of none."""
    size = ptr.diff().clamp(min=1).to(x.dtype)
    return segment_sum(mode, x, ptr) / size.reshape(-1, *(1,) * (x.dim() - 1))


_SEGMENTS = {"segment_sum_csr": segment_sum, "segment_mean_csr": segment_mean}
_RECURRENT = ("gru", "lstm", "rnn_tanh", "rnn_relu")
_PARTS: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head_attention,
    **{name: recurrent(name) for name in _RECURRENT},
    **_SEGMENTS,
}
_CELLS: dict[str, Callable[..., Any]] = {
    "gru_cell": gru_cell,
    "lstm_cell": lstm_cell,
    "rnn_tanh_cell": rnn_cell(torch.tanh),
    "rnn_relu_cell": rnn_cell(torch.relu),
}


def _in_parts(function: Callable[..., Any]) -> Callable[..., Any]:
    def handler(stack: Stack, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with stack:
            return function(stack, *args, **kwargs)

    return handler


def _where_needed(name: str) -> Callable[..., Any]:
    """In parts if a derivative asks for it; else as torch does it."""
    parts = _in_parts(_PARTS[name])

    def handler(stack: Stack, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        needed = args[0].is_cuda if name in _RECURRENT else stack.exact or name == "multi_head_attention_forward"
        if needed and _readable(name, args, kwargs):
            return parts(stack, func, args, kwargs)
        out = _without_cudnn(func, args, kwargs) if name in _RECURRENT else func(*args, **kwargs)
        stack.follow(name, args, kwargs, out)
        return out

    return handler


HANDLERS.update({name: _in_parts(function) for name, function in (_PARTS | _CELLS).items()})
ALWAYS.update({name: _where_needed(name) for name in _PARTS})


def _derivative_inside(stack: Stack, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The low-rank steps know a weight by what was made of it, and a derivative within the call is made otherwise."""
    raise UnsupportedOp(f"torch.autograd ({name_of(func)}) inside of the recommender")


ALWAYS.update({"grad": _derivative_inside, "backward": _derivative_inside})
