"""Decompositions of torch's fused operations, with derivatives of every order and per-task weights.

Fused attention has no second derivative, and cuDNN's recurrent layers have none, nor a first one in eval mode. Within
:class:`ExactDerivatives` attention is computed as product, softmax and product, and on a GPU recurrent layers by their
equations (packed sequences: by PyTorch's native kernels). The stacked engine uses the same functions where weights
differ by task.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from graphmeta.adapt.stacked.arguments import by_position
from graphmeta.adapt.stacked.guard import LOOK_UPS, Guard
from graphmeta.adapt.stacked.notes import ALWAYS, HANDLERS, PASSED, name_of, readable, tensors_in, written_by
from graphmeta.adapt.stacked.operations.base import in_parts
from graphmeta.adapt.stacked.operations.recurrent import CELLS, RECURRENT, plain_sequence, recurrent, without_cudnn
from graphmeta.adapt.stacked.operations.segments import SEGMENTS
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.errors import Remedy, UnsupportedOp

Mode = TorchFunctionMode


class ExactDerivatives(TorchFunctionMode):
    """Within it, fused operations are decomposed where their derivative is needed and does not exist otherwise.

    Args:
        again: whether second derivatives are needed; if not, only recurrent layers on a GPU are decomposed.
        parts: whether any operation is decomposed.
        guard: checks reads and writes of the recommender's code.
    """

    def __init__(self, *, again: bool = True, parts: bool = True, guard: Guard | None = None) -> None:
        super().__init__()
        self.again, self.parts, self.guard = again, parts, guard

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if kwargs:
            args, kwargs = by_position(func, args, kwargs)
        if self.guard is not None and name not in PASSED:
            self.guard.reach(args, kwargs)
            if name in LOOK_UPS:
                self.guard.renormalised(name, args, kwargs)
            places = written_by(func)
            if places or kwargs.get("out") is not None:
                for into in tensors_in(([args[n] for n in places if n < len(args)], kwargs.get("out"))):
                    self.guard.write(readable(name), into)
        function = _PARTS.get(name) if self.parts else None
        if function is None or not (self.again or name in RECURRENT):
            return func(*args, **kwargs)
        if not _supported(name, args, kwargs):
            return without_cudnn(func, args, kwargs) if name in RECURRENT else func(*args, **kwargs)
        with self:
            return function(self, *args, **kwargs)


def _supported(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the decomposition supports this form of the operation, and is needed."""
    if name == "multi_head_attention_forward":
        return args[0].dim() == 3 and kwargs.get("static_k") is None and len(args) <= 22
    if name in RECURRENT:
        return args[0].is_cuda and plain_sequence(args) is None
    if name in SEGMENTS:
        return len(args) > 1 and args[1].dim() == 1 and (len(args) < 3 or args[2] is None) and not kwargs
    return True


def attention(  # noqa: PLR0913  torch's own signature
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
    """``softmax(q kᵀ · scale + mask) v``, zero where all keys of a query are masked: ``[…, L, E]`` -> ``[…, L, E]``."""
    if enable_gqa:  # several heads of queries for each head of keys
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
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


def multi_head_attention(  # noqa: PLR0913  torch's own signature
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


_PARTS: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head_attention,
    **{name: recurrent(name) for name in RECURRENT},
    **SEGMENTS,
}


def _where_needed(name: str) -> Callable[..., Any]:
    """The handler that decomposes an operation if its derivative is needed, else calls torch's."""
    parts = in_parts(_PARTS[name])

    def handler(stack: Stack, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        needed = args[0].is_cuda if name in RECURRENT else stack.exact or name == "multi_head_attention_forward"
        if needed and _supported(name, args, kwargs):
            return parts(stack, func, args, kwargs)
        out = without_cudnn(func, args, kwargs) if name in RECURRENT else func(*args, **kwargs)
        stack.follow(name, args, kwargs, out)
        return out

    return handler


HANDLERS.update({name: in_parts(function) for name, function in (_PARTS | CELLS).items()})
ALWAYS.update({name: _where_needed(name) for name in _PARTS})


def _derivative_inside(stack: Stack, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Refuse derivatives inside the recommender: low-rank steps need the tensors made of a weight outside of them."""
    raise UnsupportedOp(f"torch.autograd ({name_of(func)}) inside of the recommender", Remedy.DERIVATIVE)


ALWAYS.update({"grad": _derivative_inside, "backward": _derivative_inside})
