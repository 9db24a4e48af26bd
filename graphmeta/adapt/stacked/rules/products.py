"""Rules of products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Lost, Note, Rows, Shared
from graphmeta.adapt.stacked.rules.base import rule
from graphmeta.adapt.stacked.stack import Stack


@rule("matmul", "mm", "bmm", "mv", "rmatmul", "dot", "linalg_matmul")
def _matmuls(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    a, b = args
    return product_note(stack, *((b, a) if name == "rmatmul" else (a, b)), out)


def product_note(stack: Stack, a: Tensor, b: Tensor, out: Tensor) -> Note:
    """The note of ``a @ b``."""
    found, lost = [], None
    for x, contracted in ((a, -1), (b, -2 if b.dim() > 1 else -1)):
        note = stack.note(x)
        if type(note) is Rows:
            right = x.dim() - note.dim
            if right == -contracted:
                return Lost("a product over the rows of tasks")
            if right == 2 and b.dim() == 1 or right == 1 and a.dim() == 1:
                right = 1
            elif right > 2 and (b.dim() == 1 or a.dim() == 1):
                right -= 1
            found.append((right, x, note))
        elif type(note) is not Shared:
            lost = note if type(note) is Lost else Lost("a product with pointers to events")
    if lost is not None or not found:
        return lost or Lost("the result of a product")
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
    if any(type(stack.note(x)) not in (Rows, Shared) for x in operands):
        return Lost("an einsum with a tensor of which nothing is known")
    letter, first, note = rows[0]
    for _, x, other in rows[1:]:
        first, note = stack.together(first, note, x, other)
    return Rows(stack, result.index(letter), note.owner)


@rule("cdist")
def _cdists(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    return product_note(stack, args[0], args[1].transpose(-1, -2) if args[1].dim() > 1 else args[1], out)
