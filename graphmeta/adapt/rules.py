"""Whose rows the results of plain operations hold, given their arguments': one rule for each kind of operation.

A rule gets ``(stack, name, args, kwargs, result)`` and returns the note of the result, or one for each of several.
What has no rule is :class:`~graphmeta.adapt.ownership.Lost`: never wrong, only refused where it meets a per-task weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.ownership import RULES, Fence, Lost, Note, Owner, Rows, Rule, Shared, Stack, Term, tensors_in

ELEMENTWISE = frozenset(
    "abs absolute acos acosh add addcdiv addcmul angle arccos arcsin arctan arctan2 asin asinh atan atan2 atanh "
    "bernoulli bitwise_and bitwise_not bitwise_or bitwise_xor bfloat16 bool byte ceil celu clamp clamp_max clamp_min "
    "clip clone contiguous copy copysign cos cosh cpu cuda deg2rad digamma div divide double dropout feature_dropout "
    "alpha_dropout elu eq erf erfc erfinv exp exp2 expm1 fill fix float float_power floor floor_divide fmax fmin fmod "
    "frac ge gelu greater greater_equal gt half hardshrink hardsigmoid hardswish hardtanh heaviside hypot "
    "igamma index_fill int isclose isfinite isinf isnan isneginf isposinf ldexp le leaky_relu lerp less less_equal "
    "lgamma log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit "
    "logsigmoid long lshift lt masked_fill maximum minimum mish mul multiply nan_to_num ne neg negative not_equal "
    "polygamma positive pow rad2deg reciprocal relu relu6 remainder round rrelu rshift rsqrt rsub selu sgn "
    "sigmoid sign signbit silu sin sinc sinh softplus softshrink softsign sqrt square sub subtract tan tanh tanhshrink "
    "threshold to true_divide trunc type type_as where xlogy zero requires_grad detach fake_quantize alias one_hot "
    "special_expit special_xlogy special_log1p special_expm1 threshold_ log_sigmoid clamp_ erf_ nan_to_num_ "
    "binary_cross_entropy_with_logits hardtanh_ leaky_relu_ elu_ relu_ rrelu_".split()
)  # fmt: skip
KEEPS_VALUES = frozenset(
    "clone contiguous detach alias to cpu cuda long view reshape expand unsqueeze squeeze flatten".split()
)
CREATES = frozenset(
    "zeros ones full empty arange eye rand randn randint linspace logspace tensor as_tensor scalar_tensor zeros_like "
    "ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones new_full new_empty new_tensor "
    "tril_indices triu_indices randperm normal bartlett_window hann_window new".split()
)
_EVERY = "every"  # a reduction without a dimension goes over all of them
# name -> where its dimension stands among the positional arguments, and what it is if not given
ALONG: dict[str, tuple[int, Any]] = {
    **dict.fromkeys(
        "sum nansum mean nanmean prod any all amax amin argmax argmin logsumexp std var median nanmedian max min "
        "softmax log_softmax softmin cumsum cumprod cummax cummin logcumsumexp count_nonzero std_mean var_mean aminmax "
        "mode gumbel_softmax".split(),
        (1, _EVERY),
    ),
    **dict.fromkeys("norm linalg_norm linalg_vector_norm vector_norm renorm".split(), (2, _EVERY)),
    **dict.fromkeys("sort argsort glu".split(), (1, -1)),
    **dict.fromkeys("topk kthvalue diff".split(), (2, -1)),
    "normalize": (2, 1), "cosine_similarity": (2, 1), "pairwise_distance": (99, -1), "roll": (2, _EVERY),
    "flip": (1, _EVERY), "cross": (2, -1), "vecdot": (2, -1), "linalg_vecdot": (2, -1), "unfold": (1, _EVERY),
    "quantile": (2, _EVERY), "msort": (99, 0),
}  # fmt: skip


def rule(*names: str) -> Any:
    """Register the rule of these operations."""

    def register(own: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, own))
        return own

    return register


def given(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: Any = None) -> Any:
    """An argument by its place or its name."""
    return args[place] if len(args) > place else kwargs.get(name, default)


def aligned(stack: Stack, tensors: Sequence[Tensor], out: Tensor) -> Note:
    """The note of an elementwise, broadcasting operation: all rows must stand at one place counted from the right."""
    first: tuple[Tensor, Rows] | None = None
    lost: Note | None = None
    for x in tensors:
        note = stack.note(x)
        if type(note) is not Rows:
            lost = note if type(note) in (Lost, Fence) else lost
        elif first is None:
            first = x, note
        elif x.dim() - note.dim != first[0].dim() - first[1].dim or x.shape[note.dim] != first[0].shape[first[1].dim]:
            return Lost("rows of tasks along two dimensions at once")
        else:
            first = first[0], Rows(stack, first[1].dim, stack.merged(*first, x, note))
    if first is None:
        return lost if type(lost) is Lost else Lost("arithmetic on pointers to events")
    x, note = first
    dim = out.dim() - (x.dim() - note.dim)
    if dim < 0 or out.shape[dim] != x.shape[note.dim]:
        return Lost("rows that an operation has repeated")
    return Rows(stack, dim, note.owner)


@rule(*ELEMENTWISE)
def _elementwise(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = stack.note(args[0]) if args and isinstance(args[0], Tensor) else None
    if name in KEEPS_VALUES and note is not None:
        return note
    if name == "one_hot" and type(note) is Rows:
        return Rows(stack, note.dim, note.owner)
    if name in ("fill_", "zero_"):
        return note if type(note) is Rows else Shared(out._version)
    if name in ("copy_", "set_") and type(note) is not Rows and isinstance(args[1], Tensor):
        return aligned(stack, [args[1]], out) if type(stack.note(args[1])) is Rows else stack.note(args[1])
    return aligned(stack, list(tensors_in((args, kwargs))), out)


@rule(*CREATES)
def _creates(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    return Shared(out._version)


@rule(*ALONG)
def _along(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    if name in ("max", "min") and isinstance(given(args, kwargs, 1, "other"), Tensor):
        return aligned(stack, list(tensors_in((args, kwargs))), out)
    x = args[0] if args else kwargs["input"]
    note = stack.note(x)
    results = (out,) if isinstance(out, Tensor) else tuple(out)
    if name in ("cosine_similarity", "pairwise_distance", "cross", "vecdot", "linalg_vecdot"):
        others = list(tensors_in((args, kwargs)))
        note = aligned(stack, others, others[0])
    if type(note) is Fence and name == "diff":
        return Rows(stack)
    if type(note) is not Rows:
        return Lost(f"the result of {name}")
    dims = dims_of(name, args, kwargs, x.dim())
    if dims is None or note.dim in dims:
        return Lost(f"{name} over the rows of tasks")
    kept = [
        Rows(stack, note.dim if r.dim() == x.dim() else note.dim - sum(d < note.dim for d in dims), note.owner)
        for r in results
    ]
    return kept[0] if isinstance(out, Tensor) else tuple(kept)


def dims_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> set[int] | None:
    """The dimensions that a reduction goes over; None for all of them."""
    place, default = ALONG[name]
    dim = given(args, kwargs, place, "dim", kwargs.get("dims", kwargs.get("axis", default)))
    if name == "flip" and len(args) > 2:
        dim = args[1:]
    if dim is None or dim is _EVERY:
        return None
    return {d % max(rank, 1) for d in ([dim] if isinstance(dim, int) else dim)}


@rule("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "ravel", "_unsafe_view")
def _reshapes(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x = args[0]
    note = stack.note(x)
    if type(note) is not Rows:
        return note
    if len(args) > 1 and isinstance(args[1], torch.dtype):
        return Lost("a view in another dtype")
    dim, size = note.dim, x.shape[note.dim]
    if tuple(out.shape[:dim]) != tuple(x.shape[:dim]):
        before, after = x.shape[:dim].numel(), 1
        dim = 0
        while dim < out.dim() and after < before:
            after, dim = after * out.shape[dim], dim + 1
        if after != before:
            return Lost("a reshape across the rows of tasks")
    while dim < out.dim() - 1 and out.shape[dim] == 1 and size != 1:
        dim += 1
    if dim >= out.dim():
        return Lost("a reshape across the rows of tasks")
    if note.in_blocks:
        # Blocks are runs of memory: T equal runs stay T equal runs.
        if out.shape[dim] % stack.num_tasks:
            return Lost("a reshape across the rows of tasks")
        return Rows(stack, dim, note.owner, note.points)
    if out.shape[dim] == size:
        return Rows(stack, dim, note.owner, note.points)
    if out.shape[dim] % max(size, 1) == 0:
        each = out.shape[dim] // max(size, 1)
        owner = stack.derived(note, lambda: stack.task_of(x, note).repeat_interleave(each))
        return Rows(stack, dim, owner, note.points)
    return Lost("a reshape across the rows of tasks")


@rule("unsqueeze")
def _unsqueeze(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note, at = stack.note(args[0]), given(args, kwargs, 1, "dim") % out.dim()
    return _moved(note, note.dim + (at <= note.dim)) if type(note) is Rows else note


def _moved(note: Rows, dim: int) -> Rows:
    return Rows(note.stack, dim, note.owner, note.points)


@rule("squeeze")
def _squeeze(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note = args[0], stack.note(args[0])
    if type(note) is not Rows:
        return note
    dim = given(args, kwargs, 1, "dim")
    dims = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = [d % x.dim() for d in dims if x.shape[d] == 1]
    if note.dim in gone:
        return Lost("squeeze of the rows of tasks")
    return _moved(note, note.dim - sum(d < note.dim for d in gone))


@rule("transpose", "swapaxes", "swapdims", "t", ".T", ".mT", "movedim", "moveaxis", "permute")
def _permutes(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note = args[0], stack.note(args[0])
    if type(note) is not Rows:
        return note
    return _moved(note, permutation(name, args, kwargs, x.dim()).index(note.dim))


def permutation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> list[int]:
    """Which old dimension each new one is."""
    order = list(range(rank))
    if name in (".T", "t"):
        return order[::-1]
    if name == "permute":
        dims = given(args, kwargs, 1, "dims")
        return [d % rank for d in (dims if isinstance(dims, (tuple, list)) else args[1:])]
    if name in ("movedim", "moveaxis"):
        source, target = given(args, kwargs, 1, "source"), given(args, kwargs, 2, "destination")
        source, target = ([d] if isinstance(d, int) else list(d) for d in (source, target))
        marked = torch.empty([0] * rank).movedim(source, target)  # checks the arguments
        assert marked.dim() == rank
        left = [d for d in order if d not in {s % rank for s in source}]
        placed = {t % rank: s % rank for s, t in zip(source, target, strict=True)}
        return [placed[d] if d in placed else left.pop(0) for d in order]
    if name == ".mT":
        one, other = rank - 2, rank - 1
    else:
        one = given(args, kwargs, 1, "dim0", kwargs.get("axis0")) % rank
        other = given(args, kwargs, 2, "dim1", kwargs.get("axis1")) % rank
    order[one], order[other] = order[other], order[one]
    return order


@rule("expand", "expand_as", "broadcast_to")
def _expands(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note = args[0], stack.note(args[0])
    if type(note) is not Rows:
        return note
    dim = out.dim() - (x.dim() - note.dim)
    return _moved(note, dim) if out.shape[dim] == x.shape[note.dim] else Lost("rows that expand has repeated")


@rule("repeat", "tile")
def _repeats(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note = args[0], stack.note(args[0])
    if type(note) is not Rows:
        return note
    dim = out.dim() - (x.dim() - note.dim)
    return (
        Rows(stack, dim, note.owner) if out.shape[dim] == x.shape[note.dim] else Lost("rows that repeat has repeated")
    )


@rule("repeat_interleave")
def _interleaves(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note, many = args[0], stack.note(args[0]), given(args, kwargs, 1, "repeats")
    dim = given(args, kwargs, 2, "dim")
    if type(note) is not Rows or dim is None and x.dim() != 1 or many is None:
        return Lost("the result of repeat_interleave")
    if (dim or 0) % x.dim() != note.dim:
        return Rows(stack, note.dim, note.owner) if not isinstance(many, Tensor) else Lost("repeat_interleave")
    if note.in_blocks and not (isinstance(many, Tensor) and many.numel() > 1):
        return Rows(stack, note.dim, note.owner, note.points)
    owner = stack.derived(note, lambda: stack.task_of(x, note).repeat_interleave(many))
    return Rows(stack, note.dim, owner, note.points)


@rule("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")
def _splits(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    x, note = args[0], stack.note(args[0])
    dim = given(args, kwargs, 2, "dim", 0) % x.dim()
    if type(note) is not Rows or note.dim == dim and len(out) > 1:
        return tuple(Lost(f"{name} of the rows of tasks") for _ in out)
    return tuple(note for _ in out)


@rule("unbind", "iter")
def _unbinds(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    x, note = args[0], stack.note(args[0])
    dim = given(args, kwargs, 1, "dim", 0) % x.dim()
    if type(note) is not Rows or note.dim == dim:
        return tuple(Lost("single rows of tasks") for _ in out)
    return tuple(_moved(note, note.dim - (dim < note.dim)) for _ in out)


@rule("select", "narrow")
def _selects(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note, dim = args[0], stack.note(args[0]), given(args, kwargs, 1, "dim") % args[0].dim()
    if type(note) is not Rows or note.dim == dim:
        return Lost(f"{name} of the rows of tasks")
    return _moved(note, note.dim - (name == "select" and dim < note.dim))


@rule("cat", "concat", "concatenate", "hstack", "vstack")
def _cats(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    parts = [part for part in given(args, kwargs, 0, "tensors") if part.dim() == out.dim()]
    dim = given(args, kwargs, 1, "dim", kwargs.get("axis", {"hstack": min(1, out.dim() - 1)}.get(name, 0))) % out.dim()
    notes = [stack.note(part) for part in parts]
    rows = [(part, note) for part, note in zip(parts, notes, strict=True) if type(note) is Rows]
    if not rows or rows[0][1].dim != dim:
        return aligned(stack, parts, parts[0]) if rows else Lost(f"the result of {name}")
    if len(rows) < len(parts) or any(note.dim != dim for _, note in rows):
        return Lost(f"{name} of rows of tasks and of other rows")
    terms = tuple(term for _, note in rows for term in note.terms)
    owner = Owner(lambda: torch.cat([stack.task_of(part, note) for part, note in rows]), terms)
    points = {note.points for _, note in rows}
    return Rows(stack, dim, owner if len(rows) > 1 else rows[0][1].owner, points.pop() if len(points) == 1 else None)


@rule("stack")
def _stacks(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    parts, dim = given(args, kwargs, 0, "tensors"), given(args, kwargs, 1, "dim", 0) % out.dim()
    note = aligned(stack, parts, parts[0])
    return _moved(note, note.dim + (dim <= note.dim)) if type(note) is Rows else note


# indexing ------------------------------------------------------------------------------------------------------


def taken(stack: Stack, x: Tensor, note: Note, index: Tensor, dim: int, shift: int = 0) -> Note:
    """The note of ``x`` with dimension ``dim`` replaced by those of ``index``: rows are where the index has them."""
    of_index = stack.note(index)
    if type(note) is Rows and note.dim != dim:
        if type(of_index) is Rows:
            return Lost("rows of tasks along two dimensions at once")
        return Rows(stack, note.dim + (index.dim() - 1 if note.dim > dim else 0), note.owner, note.points)
    points = note.points if type(note) is Rows else None
    if type(of_index) is Rows:
        return Rows(stack, dim + of_index.dim + shift, of_index.owner, points)
    if type(note) is Rows and index.dim() == 1:
        return Rows(stack, dim, stack.owner_by_value(index, x, note), points)
    return Lost("rows looked up by an index of which nothing is known") if type(note) is Rows else note


@rule("index_select")
def _index_selects(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, index = args[0], given(args, kwargs, 2, "index")
    return taken(stack, x, stack.note(x), index, given(args, kwargs, 1, "dim") % max(x.dim(), 1))


@rule("embedding")
def _embeds(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    table = given(args, kwargs, 1, "weight")
    return taken(stack, table, stack.note(table), given(args, kwargs, 0, "input"), 0)


@rule("gather", "take_along_dim")
def _gathers(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, dim, index = args[0], given(args, kwargs, 1, "dim"), given(args, kwargs, 2, "index", kwargs.get("indices"))
    if name == "take_along_dim":
        index, dim = given(args, kwargs, 1, "indices"), given(args, kwargs, 2, "dim")
    note, of_index = stack.note(x), stack.note(index)
    if type(of_index) is Rows:
        return Rows(stack, of_index.dim, of_index.owner)
    if type(note) is Rows and dim % x.dim() != note.dim and out.shape[note.dim] == x.shape[note.dim]:
        return Rows(stack, note.dim, note.owner)
    return Lost(f"the result of {name}")


@rule("getitem")
def _getitem(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, index = args
    note = stack.note(x)
    if type(note) is Fence:
        begins = isinstance(index, slice) and index in (slice(1, None, None), slice(None, -1, None))
        return Rows(stack) if begins else Lost("some of the pointers to events")
    return indexed(stack, x, note, index if isinstance(index, tuple) else (index,), out)


def indexed(stack: Stack, x: Tensor, note: Note, index: tuple[Any, ...], out: Tensor) -> Note:
    """The note of ``x[index]``."""
    parts = expanded(index, x.dim())
    advanced = [part for part in parts if isinstance(part, (Tensor, list))]
    if any(isinstance(part, list) for part in advanced):
        return Lost("indexing by a list")
    masks = [part for part in advanced if part.dtype == torch.bool]
    if masks:
        return _masked(stack, x, note, parts, masks[0]) if len(advanced) == 1 else Lost("indexing by several masks")
    dim, made, found, place = 0, 0, None, None  # the dimension of x, of the result, the rows' place, the first index's
    for part in parts:
        if part is None:
            made += 1
            continue
        if isinstance(part, Tensor):
            place = made if place is None else place
        elif isinstance(part, slice):
            if type(note) is Rows and note.dim == dim:
                found = made, part
            made += 1
        elif type(note) is Rows and note.dim == dim:
            return Lost("a single row of tasks")
        dim += 1
    if not advanced:
        if type(note) is not Rows or found is None:
            return note
        return _sliced(stack, x, note, *found)
    apart = _apart(parts)
    place = 0 if apart or place is None else place
    rank = max(part.dim() for part in advanced)
    rows = [(part, n) for part in advanced if type(n := stack.note(part)) is Rows]
    if rows:
        part, of_index = rows[0]
        if found is not None:
            return Lost("rows of tasks along two dimensions at once")
        by_index = type(note) is Rows and note.points is not None and len(advanced) == 1
        return Rows(
            stack, place + rank - (part.dim() - of_index.dim), of_index.owner, note.points if by_index else None
        )
    if found is not None:
        return Lost("rows of tasks beside an index") if apart else _beside(stack, x, note, found, place, rank)
    if type(note) is Rows and len(advanced) == 1 and rank == 1:
        return Rows(stack, place, stack.owner_by_value(advanced[0], x, note), note.points)
    return note if type(note) is not Rows else Lost("rows looked up by an index of which nothing is known")


def _beside(stack: Stack, x: Tensor, note: Note, found: tuple[int, slice], place: int, rank: int) -> Note:
    """Rows kept whole beside dimensions that an index picks from."""
    made, part = found
    assert type(note) is Rows
    kept = _sliced(stack, x, note, made + (rank if made >= place else 0), part)
    return Rows(stack, kept.dim, kept.owner) if type(kept) is Rows else kept


def _sliced(stack: Stack, x: Tensor, note: Rows, dim: int, part: slice) -> Note:
    size = x.shape[note.dim]
    if part.indices(size) == (0, size, 1):
        return Rows(stack, dim, note.owner, note.points)
    return Rows(stack, dim, stack.derived(note, lambda: stack.task_of(x, note)[part]), note.points)


def _masked(stack: Stack, x: Tensor, note: Note, parts: list[Any], mask: Tensor) -> Note:
    of_mask = stack.note(mask)
    before = next(number for number, part in enumerate(parts) if part is mask)
    if any(not isinstance(part, slice) or part != slice(None) for part in parts if part is not mask) or before:
        return Lost("a mask beside other indices")
    if type(note) is Rows and note.dim < mask.dim():
        source, own = x, note
    elif type(of_mask) is Rows:
        source, own = mask, of_mask
    else:
        return Lost("rows chosen by a mask")
    shape = [1] * mask.dim()
    shape[own.dim] = -1
    owner = stack.derived(own, lambda: stack.task_of(source, own).reshape(shape).expand(mask.shape)[mask])
    return Rows(stack, 0, owner, note.points if type(note) is Rows else None)


def expanded(index: tuple[Any, ...], rank: int) -> list[Any]:
    """An index with ``...`` written out, one entry a dimension (a mask of n dimensions stands for n)."""
    used = sum(
        part.dim() if isinstance(part, Tensor) and part.dtype == torch.bool else part is not None
        for part in index
        if part is not Ellipsis
    )
    spare = [slice(None)] * (rank - used)
    if any(part is Ellipsis for part in index):
        at = next(number for number, part in enumerate(index) if part is Ellipsis)
        return [*index[:at], *spare, *index[at + 1 :]]
    return [*index, *spare]


def _apart(parts: list[Any]) -> bool:
    """Whether a dimension stands between the tensors of an index, which moves theirs to the front."""
    places = [number for number, part in enumerate(parts) if isinstance(part, Tensor)]
    return any(part is None or isinstance(part, slice) for part in parts[places[0] : places[-1]])


# writing to rows by their numbers --------------------------------------------------------------------------------


def scattered(stack: Stack, out: Tensor, base: Note, dim: int, index: Tensor, source: Any) -> Note:
    """The note of ``out``, whose rows ``index`` along ``dim`` took in those of ``source``.

    Into as many rows as a store has, or a multiple of it, every source row should go to a block of its own task: known
    of a batch's own indices, and otherwise a check. Any other row belongs to the task whose rows it took in.
    """
    if type(base) is Rows and base.dim != dim:
        return base if out.shape[base.dim] else Lost("a scatter")
    of_index, of_source = stack.note(index), stack.note(source) if isinstance(source, Tensor) else Shared(0)
    if type(base) is Rows and not base.in_blocks:
        return base
    sources = [
        (x, note)
        for x, note in ((source, of_source), (index, of_index))
        if type(note) is Rows and note.dim == (dim if x.dim() > dim else 0)
    ]
    size = out.shape[dim]
    if not sources:
        if type(of_source) is Rows and of_source.dim != dim:
            return Rows(stack, of_source.dim, of_source.owner) if type(base) is not Lost else Lost("a scatter")
        return base if type(base) is Rows else Lost("a scatter whose rows are of no known task")
    if type(base) is Lost:
        return Lost("a scatter into rows of which nothing is known")
    x, note = sources[0]
    per_task = size // stack.num_tasks
    trusted = type(of_index) is Rows and of_index.points == per_task and size % stack.num_tasks == 0
    if len(sources) == 2:
        note = Rows(stack, note.dim, stack.merged(*sources[0], *sources[1]))
    if trusted and note.in_blocks:
        return Rows(stack, dim, note.owner)
    at = index if index.dim() == 1 else index.movedim(dim, 0).flatten(1)[:, 0]
    if len(at) != x.shape[note.dim]:
        return Lost("a scatter of rows by another number of indices")
    if stack.like_a_store(size):

        def inside() -> None:
            own = at // max(per_task, 1) == stack.task_of(x, note)
            stack.check(own, "a scatter writes rows of one task to another's")

        return Rows(stack, dim, Owner(None, (*note.terms, Term(inside))))

    def owners() -> Tensor:
        task = stack.task_of(x, note)
        found = torch.full((size,), -1, device=at.device).index_copy(0, at, task)
        stack.check(found[at] == task, "a scatter writes rows of several tasks to one")
        stack.check(found >= 0, "a scatter leaves rows of no task")
        return found.clamp(min=0)

    return Rows(stack, dim, stack.derived(note, owners))


@rule("index_add", "index_copy", "index_reduce", "scatter", "scatter_add", "scatter_reduce", "index_fill")
def _scatters(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    source = given(args, kwargs, 3, "source", kwargs.get("src", kwargs.get("value")))
    dim = given(args, kwargs, 1, "dim") % max(out.dim(), 1)
    return scattered(stack, out, stack.note(args[0]), dim, given(args, kwargs, 2, "index"), source)


@rule("index_put")
def _puts(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    indices, values = given(args, kwargs, 1, "indices"), given(args, kwargs, 2, "values")
    return _written(stack, args[0], stack.note(args[0]), tuple(indices), values, out)


@rule("setitem")
def _setitem(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, index, value = args
    return _written(stack, x, stack.note(x), index if isinstance(index, tuple) else (index,), value, x)


def _written(stack: Stack, x: Tensor, base: Note, index: tuple[Any, ...], value: Any, out: Tensor) -> Note:
    own = stack.note(value) if isinstance(value, Tensor) else Shared(0)
    parts = expanded(index, out.dim())
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if type(base) is Rows:
        return base  # a row of a task stays one, whatever is written into it
    if type(own) is not Rows and not any(type(stack.note(part)) is Rows for part in tensors):
        return Shared(out._version) if type(own) is Shared and type(base) is Shared else Lost("written elements")
    if tensors and isinstance(parts[0], Tensor):
        first = parts[0]
        if first.dtype == torch.bool:
            of_mask = stack.note(first)
            if type(of_mask) is not Rows or len(tensors) > 1:
                return Lost("elements written through a mask")
            if type(own) is not Rows:
                return Rows(stack, of_mask.dim, of_mask.owner)
            written = _masked(stack, x, base, parts, first)
            assert type(written) is Rows
            terms = stack.merged(value, own, value, written)
            owner = None if of_mask.in_blocks else (lambda: stack.task_of(first, of_mask))
            return Rows(stack, of_mask.dim, Owner(owner, terms.terms if terms is not None else ()))
        return scattered(stack, out, base, 0, first, value)
    if tensors or type(own) is not Rows:
        return Lost("written elements")
    kept = [dim for dim, part in enumerate(p for p in parts if p is not None) if isinstance(part, slice)]
    at = len(kept) - (value.dim() - own.dim)
    if at < 0 or [p for p in parts if p is not None][kept[at]] != slice(None):
        return Lost("some rows of tasks written among others")
    return Rows(stack, kept[at], own.owner)


# products --------------------------------------------------------------------------------------------------------


@rule("matmul", "mm", "bmm", "mv", "rmatmul", "dot", "linalg_matmul", "inner")
def _matmuls(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    a, b = args[0], given(args, kwargs, 1, "other", kwargs.get("mat2", kwargs.get("vec")))
    return product_note(stack, *((b, a) if name == "rmatmul" else (a, b)), out)


def product_note(stack: Stack, a: Tensor, b: Tensor, out: Tensor) -> Note:
    """The note of ``a @ b``."""
    found = []
    for x, contracted in ((a, -1), (b, -2 if b.dim() > 1 else -1)):
        note = stack.note(x)
        if type(note) is Rows:
            right = x.dim() - note.dim
            if right == -contracted:
                return Lost("a product over the rows of tasks")
            if right == 2 and b.dim() == 1:
                right = 1
            elif right == 1 and a.dim() == 1:
                right = 1
            elif right > 2 and (b.dim() == 1 or a.dim() == 1):
                right -= 1
            found.append((right, x, note))
    if not found:
        return Lost("the result of a product")
    if len(found) == 2:
        if found[0][0] != found[1][0]:
            return Lost("rows of tasks along two dimensions at once")
        owner = stack.merged(*found[0][1:], *found[1][1:])
    else:
        owner = found[0][2].owner
    return Rows(stack, out.dim() - found[0][0], owner)


@rule("linear")
def _linears(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x = given(args, kwargs, 0, "input")
    note, weight = stack.note(x), stack.note(given(args, kwargs, 1, "weight"))
    bias = given(args, kwargs, 2, "bias")
    if type(weight) is not Shared or (bias is not None and type(stack.note(bias)) is not Shared):
        return Lost("a linear layer whose weight is no parameter")
    if type(note) is not Rows or note.dim == x.dim() - 1:
        return Lost("a linear layer over the rows of tasks")
    return Rows(stack, note.dim, note.owner)


@rule("addmm", "addbmm", "baddbmm", "addmv")
def _adds_product(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = product_note(stack, args[1], args[2], out) if name != "addbmm" else Lost("the result of addbmm")
    base = stack.note(args[0])
    if type(note) is Rows and type(base) is Rows:
        if args[0].dim() - base.dim != out.dim() - note.dim:
            return Lost("rows of tasks along two dimensions at once")
        return Rows(stack, note.dim, stack.merged(args[0], base, out, note))
    return note


@rule("einsum")
def _einsums(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    equation, operands = args[0], list(args[1:])
    if not isinstance(equation, str) or "." in equation:
        return Lost("an einsum with an ellipsis")
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    letters, result = einsum_letters(equation, operands)
    return einsum_note(stack, letters, result, operands)


def einsum_letters(equation: str, operands: Sequence[Tensor]) -> tuple[list[str], str]:
    """The letters of each operand, and of the result."""
    given_letters, _, result = equation.replace(" ", "").partition("->")
    letters = given_letters.split(",")
    if "->" not in equation:
        every = given_letters.replace(",", "")
        result = "".join(sorted(letter for letter in set(every) if every.count(letter) == 1))
    return letters, result


def einsum_note(stack: Stack, letters: Sequence[str], result: str, operands: Sequence[Tensor]) -> Note:
    """The note of an einsum's result: its rows run along one letter."""
    rows = [(word[n.dim], x, n) for word, x in zip(letters, operands, strict=True) if type(n := stack.note(x)) is Rows]
    if not rows or len({letter for letter, _, _ in rows}) > 1 or rows[0][0] not in result:
        return Lost("an einsum over the rows of tasks")
    letter, first, note = rows[0]
    for _, x, other in rows[1:]:
        note = Rows(stack, note.dim, stack.merged(first, note, x, other))
    return Rows(stack, result.index(letter), note.owner)


@rule(
    "conv1d", "conv2d", "conv3d", "max_pool1d", "avg_pool1d", "adaptive_max_pool1d", "adaptive_avg_pool1d",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "batch_norm", "instance_norm", "group_norm", "interpolate",
    "gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell", "bilinear", "prelu", "local_response_norm",
)  # fmt: skip
def _of_batches(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """What works on each entry of the first dimension by itself, or (batch norm) keeps them in their places."""
    x = args[0]
    note, batched = stack.note(x), {"1d": 3, "2d": 4, "3d": 5}.get(name[-2:], 2)
    results = (out,) if isinstance(out, Tensor) else tuple(out)
    good = type(note) is Rows and note.dim == 0 and x.dim() >= batched
    notes = tuple(Rows(stack, 0, note.owner) if good else Lost(f"the result of {name}") for _ in results)  # pyright: ignore
    return notes[0] if isinstance(out, Tensor) else notes


@rule("layer_norm", "rms_norm")
def _norms(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note, shape = stack.note(args[0]), given(args, kwargs, 1, "normalized_shape")
    if type(note) is not Rows or note.dim >= args[0].dim() - len(shape):
        return Lost(f"{name} over the rows of tasks")
    return Rows(stack, note.dim, note.owner)


@rule("pad")
def _pads(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note, pad = stack.note(args[0]), given(args, kwargs, 1, "pad")
    if type(note) is not Rows or note.dim >= args[0].dim() - len(pad) // 2:
        return Lost("padded rows of tasks")
    return Rows(stack, note.dim, note.owner)


@rule("tril", "triu")
def _triangles(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = stack.note(args[0])
    return note if type(note) is Rows and note.dim < out.dim() - 2 else Lost(f"{name} of rows of tasks")


@rule("gru", "lstm", "rnn_tanh", "rnn_relu")
def _recurrent(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    x = args[0]
    note = stack.note(x)
    if len(args) != 9 or isinstance(args[1], Tensor) and isinstance(args[2], Tensor) or type(note) is not Rows:
        return tuple(Lost(f"the result of a packed {name}") for _ in out)
    batch_dim = 0 if args[8] else 1
    if note.dim != batch_dim or x.dim() != 3:
        return tuple(Lost(f"{name} over the rows of tasks") for _ in out)
    return (Rows(stack, batch_dim, note.owner), *(Rows(stack, 1, note.owner) for _ in out[1:]))


@rule("scaled_dot_product_attention")
def _attends(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = stack.note(args[0])
    if type(note) is not Rows or note.dim >= out.dim() - 2:
        return Lost("attention across the rows of tasks")
    return Rows(stack, note.dim, note.owner)


@rule("cdist")
def _cdists(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    return product_note(stack, args[0], args[1].transpose(-1, -2) if args[1].dim() > 1 else args[1], out)


@rule("bincount")
def _bincounts(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    """Counts of rows that are pointed at are a scatter of ones."""
    return scattered(stack, out, Shared(0), 0, args[0], given(args, kwargs, 1, "weights"))


@rule("rows_like")
def _rows_like(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = stack.note(args[1])
    if type(note) is not Rows or note.dim or len(out) != len(args[1]):
        return Lost("a tensor declared to be rows like another that has none")
    return Rows(stack, 0, note.owner)


@rule("score_cross_entropy", "attended_cross_entropy", "cross_entropy", "nll_loss")
def _losses(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    return Lost("a loss")
