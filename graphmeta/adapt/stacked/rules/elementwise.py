"""Rules of elementwise operations, of constants and of reductions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Fence, Lost, Note, Rows, Shared, tensors_in
from graphmeta.adapt.stacked.rules.base import aligned, rule
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.errors import UnsupportedOp

_ELEMENTWISE = """
abs absolute acos acosh add addcdiv addcmul angle arccos arcsin arctan arctan2 asin asinh atan atan2 atanh
bernoulli bitwise_and bitwise_not bitwise_or bitwise_xor bfloat16 bool byte ceil celu clamp clamp_max clamp_min
clip clone contiguous copy copysign cos cosh cpu cuda deg2rad digamma div divide double dropout feature_dropout
alpha_dropout elu eq erf erfc erfinv exp exp2 expm1 fill fix float float_power floor floor_divide fmax fmin fmod
frac ge gelu greater greater_equal gt half hardshrink hardsigmoid hardswish hardtanh heaviside hypot igamma
int isclose isfinite isinf isnan isneginf isposinf ldexp le leaky_relu lerp less less_equal lgamma
log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit logsigmoid long
lshift lt masked_fill maximum minimum mish mul multiply nan_to_num ne neg negative not_equal polygamma positive
pow rad2deg reciprocal relu relu6 remainder round rrelu rshift rsqrt rsub selu sgn sigmoid sign signbit silu sin
sinc sinh softplus softshrink softsign sqrt square sub subtract tan tanh tanhshrink threshold _threshold to true_divide
trunc type type_as where xlogy zero requires_grad detach fake_quantize alias one_hot special_expit special_xlogy
special_log1p special_expm1 log_sigmoid binary_cross_entropy_with_logits =.requires_grad
"""
_KEEPS_VALUES = """
clone contiguous detach alias to cpu cuda long type_as
"""
_CREATES = """
zeros ones full empty arange eye rand randn randint linspace logspace tensor as_tensor scalar_tensor zeros_like
ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones new_full new_empty
new_tensor tril_indices triu_indices randperm bartlett_window hann_window new
"""
_REDUCTIONS = """
sum nansum mean nanmean prod any all amax amin argmax argmin logsumexp std var median nanmedian max min softmax
log_softmax softmin cumsum cumprod cummax cummin logcumsumexp count_nonzero std_mean var_mean aminmax mode
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
KEEPS_VALUES = frozenset(_KEEPS_VALUES.split())
CREATES = frozenset(_CREATES.split())
_EVERY = "every"  # a reduction without a dimension reduces all of them
# name -> position of its dimension among the arguments, and its default
ALONG: dict[str, tuple[int, Any]] = {
    **dict.fromkeys(
        _REDUCTIONS.split(),
        (1, _EVERY),
    ),
    **dict.fromkeys(["norm", "linalg_norm", "linalg_vector_norm", "vector_norm"], (2, _EVERY)),
    **dict.fromkeys(["sort", "argsort", "glu"], (1, -1)),
    **dict.fromkeys(["topk", "kthvalue", "diff"], (2, -1)),
    "normalize": (2, 1), "cosine_similarity": (2, 1), "pairwise_distance": (99, -1), "roll": (2, _EVERY),
    "flip": (1, _EVERY), "gumbel_softmax": (4, -1), "vecdot": (2, -1), "linalg_vecdot": (2, -1), "msort": (99, 0),
}  # fmt: skip
_OF_PAIRS = ("cosine_similarity", "pairwise_distance", "vecdot", "linalg_vecdot")


@rule(*ELEMENTWISE)
def _elementwise(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    if not isinstance(out, Tensor):  # where(mask), as nonzero
        return Lost(f"the places that {name} has found")
    note = stack.note(args[0]) if args and isinstance(args[0], Tensor) else None
    if name in KEEPS_VALUES and note is not None:
        same = out.dtype == args[0].dtype or (out.dtype == torch.int64 and args[0].dtype == torch.int32)
        return replace(note, points=None) if type(note) is Rows and not same else note
    if name == "one_hot" and type(note) is Rows:
        return Rows(stack, note.dim, note.owner)
    if name in ("fill_", "zero_") and len(list(tensors_in(args))) == 1:
        return replace(note, points=None) if type(note) is Rows else Shared()
    if name in ("copy_", "set_") and type(note) is not Rows and isinstance(args[1], Tensor):
        return aligned(stack, [args[1]], out) if type(stack.note(args[1])) is Rows else stack.note(args[1])
    return aligned(stack, list(tensors_in((args, kwargs))), out)


@rule(*CREATES)
def _creates(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    if name in ("tensor", "as_tensor", "new_tensor", "new_full", "full_like", "full"):
        values = list(tensors_in((args, kwargs)))[int(name.startswith("new_") or name == "full_like") :]
        if any(type(stack.note(value)) is not Shared for value in values):
            return stack.note(values[0]) if values[0] is out else Lost(f"the result of {name}")
    reads_only_shape = name.startswith("new_") or name.endswith("_like")
    if not reads_only_shape and any(type(stack.note(value)) is not Shared for value in tensors_in((args, kwargs))):
        return Lost(f"the result of {name}")
    return Shared()


@rule(*_OF_PAIRS)
def _of_pairs(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    """Reductions of two tensors, broadcast to one shape first."""
    both = list(tensors_in((args, kwargs)))
    whole = torch.empty(torch.broadcast_shapes(*(x.shape for x in both)), dtype=both[0].dtype, device="meta")
    note, dims = aligned(stack, both, whole), dims_of(name, args, kwargs, whole.dim())
    if type(note) is not Rows or dims is None or note.dim in dims:
        return note if type(note) is Lost else Lost(f"{name} over the rows of tasks")
    kept = out.dim() == whole.dim()
    return Rows(stack, note.dim - (0 if kept else sum(d < note.dim for d in dims)), note.owner)


@rule(*(ALONG.keys() - set(_OF_PAIRS)))
def _along(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    if name in ("max", "min") and isinstance(given(args, kwargs, 1, "other"), Tensor):
        return aligned(stack, list(tensors_in((args, kwargs))), out)
    x = args[0]
    note = stack.note(x)
    results = (out,) if isinstance(out, Tensor) else tuple(out)
    if sum(type(stack.note(other)) is not Shared for other in tensors_in((args, kwargs))) > 1:
        return Lost(f"the result of {name} of several tensors")
    if type(note) is Fence and name == "diff" and len(args) + len(kwargs) == 1:
        return Rows(stack)
    if type(note) is not Rows:
        return Lost(f"the result of {name}")
    dims = dims_of(name.removesuffix("_"), args, kwargs, x.dim())
    if dims is None or note.dim in dims:
        return Lost(f"{name} over the rows of tasks")
    kept = [
        Rows(stack, note.dim if r.dim() == x.dim() else note.dim - sum(d < note.dim for d in dims), note.owner)
        for r in results
    ]
    return kept[0] if isinstance(out, Tensor) else tuple(kept)


def dims_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> list[int] | None:
    """The reduced dimensions, in the given order (a matrix norm distinguishes them); None for all.

    Raises:
        UnsupportedOp: ``unbiased`` by position, or an empty list of dimensions, which torch takes as none or as all.
    """
    place, default = ALONG[name]
    dim = given(args, kwargs, place, "dim", kwargs.get("dims", kwargs.get("axis", default)))
    if name == "flip" and len(args) > 2:
        dim = args[1:]
    if isinstance(dim, bool):
        raise UnsupportedOp(f"{name} with an unbiased estimate, by position")
    if dim is None or dim is _EVERY:
        return None
    dims = [d % max(rank, 1) for d in ([dim] if isinstance(dim, int) else dim)]
    if not dims:
        raise UnsupportedOp(f"{name} over an empty list of dimensions")
    return dims


@rule("rows_like")
def _rows_like(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = stack.note(args[1])
    if type(note) is not Rows or note.dim or len(out) != len(args[1]):
        return Lost("a tensor declared to be rows like another that has none")
    return Rows(stack, 0, note.owner)
