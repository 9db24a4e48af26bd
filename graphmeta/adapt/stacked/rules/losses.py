"""Rules of losses: one number per row."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Lost, Note, Rows, Shared
from graphmeta.adapt.stacked.rules.base import rule
from graphmeta.adapt.stacked.rules.indexing import taken
from graphmeta.adapt.stacked.rules.writing import scattered
from graphmeta.adapt.stacked.stack import Stack


@rule("cross_entropy", "nll_loss")
def _losses(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    """``reduction="none"`` of scores ``[S, C]``: one loss per row."""
    x, target = args[0], given(args, kwargs, 1, "target")
    note, other = stack.note(x), stack.note(target)
    if type(note) is not Rows or note.dim or type(other) is not Rows or other.dim or len(target) != len(x):
        return Lost("a loss")
    return Rows(stack, 0, stack.merged(x, note, target, other)) if out.shape == x.shape[:1] else Lost("a loss")


@rule("score_cross_entropy")
def _of_products(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    if type(stack.note(args[1])) is not Shared:
        return Lost("a loss")
    return loss_note(stack, args[0], kwargs.get("real"), kwargs.get("extra"))


@rule("sampled_cross_entropy")
def _of_sampled(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    query, own, sampled = args[:3]
    if stack.met(own) or type(stack.note(sampled.vectors)) is not Shared:
        return Lost("a sampled softmax over vectors of tasks")
    return loss_note(stack, query, kwargs.get("real"), kwargs.get("extra"))


def loss_note(stack: Stack, query: Tensor, real: Tensor | None, extra: tuple[Tensor, Tensor, Tensor] | None) -> Note:
    """The note of one loss per query, or per real one; a score term belongs to the task of its query."""
    note = stack.note(query)
    if type(note) is not Rows or note.dim:
        return Lost("a loss")
    if extra is not None:
        row, column, value = extra
        if any(stack.met(x) and type(stack.note(x)) is not Shared for x in (row, column)):
            return Lost("score terms at places where per-task weights decide")
        lost = stack.note(value)
        if type(lost) is Lost and stack.met(value):
            return lost
        note = scattered(stack, query, note, 0, row, value, put=1)
    return note if real is None or type(note) is not Rows else taken(stack, query, note, real, 0)


@rule("products_at")
def _at(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    query, candidates, row, column = args
    return score_note(stack, query, row, column) if type(stack.note(candidates)) is Shared else Lost("products")


def score_note(stack: Stack, query: Tensor, row: Tensor, column: Tensor, *, strict: bool = False) -> Note:
    """The note of ``query[row] · candidates[column]``; ``strict`` with a table per task."""
    note = stack.note(query)
    if type(note) is not Rows or note.dim or (stack.met(column) and type(stack.note(column)) is not Shared):
        return Lost("products at places where per-task weights decide")
    of = stack.note(row)
    if type(of) is Rows and strict:  # a query is scored against its own task's table
        return Rows(stack, of.dim, stack.pointed(query, note, row, row, of, strict=True))
    return taken(stack, query, note, row, 0)


@rule("attended_cross_entropy", "attended_scores_in_blocks")
def _of_attended(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = stack.note(args[0][0])
    return Rows(stack, 0, note.owner) if type(note) is Rows and not note.dim else Lost("a loss")
