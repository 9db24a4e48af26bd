"""Small changes of the code, see tests/mutation.py: which there are, and a sample of them."""

from __future__ import annotations

import ast
import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
AREAS = {
    "adapt": ["graphmeta/adapt"],
    "sampling": ["graphmeta/sampling"],
    "evaluation": ["graphmeta/evaluation"],
    "splits": ["graphmeta/data/splits.py"],
}
COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARED |= {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}
CALCULATED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
CALCULATED |= {ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
DROPPED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Delete)
ANNOTATIONS = {"annotation", "returns", "type_params"}
SILENT = {"stacklevel"}  # keywords of no consequence for results


@dataclass(frozen=True)
class Mutant:
    """One change: file, line, qualified name of the function, and the text before and after it."""

    path: str
    line: int
    where: str
    before: str
    after: str
    place: int  # number of the change in its file
    number: int = 1  # among the changes of this function that read alike

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.name}"

    @property
    def name(self) -> str:
        """Without the line, which moves: ``where: before -> after``, ``#2`` for the second that reads alike."""
        same = f" #{self.number}" if self.number > 1 else ""
        return f"{self.where}: {self.before} -> {self.after}{same}"


def mutants(path: str) -> Iterator[tuple[Mutant, Callable[[], str]]]:
    """All mutants of a file, with what makes their code."""
    tree = ast.parse((ROOT / path).read_text())
    alike: Counter[tuple[str, str, str]] = Counter()
    for trail, node in list(walked(tree, ())):
        for after in changed(node, trail):
            reads = where(trail), text(node), text(after)
            mutant = Mutant(path, node.lineno, *reads, alike.total(), alike[reads] + 1)
            alike[reads] += 1
            yield mutant, partial(with_change, tree, node, after)


def walked(node: ast.AST, trail: tuple[tuple[ast.AST, str, int | None], ...]) -> Iterator[tuple[tuple, ast.AST]]:
    """All nodes with the way to them, without annotations, messages and docstrings."""
    if trail:
        yield trail, node
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom) or is_for_types(node):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.warn", "say"):
        return
    for name, value in ast.iter_fields(node):
        if name in ANNOTATIONS or (isinstance(node, ast.keyword) and node.arg in SILENT) or name == "decorator_list":
            continue
        for at, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(child, ast.AST):
                yield from walked(child, (*trail, (node, name, at)))


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def changed(node: ast.AST, trail: tuple) -> Iterator[ast.AST]:
    """The node with one change each."""
    match node:
        case ast.Compare(left, [op], [right]) if type(op) in COMPARED:
            yield ast.Compare(left, [COMPARED[type(op)]()], [right])
        case ast.BinOp(left, op, right) if type(op) in CALCULATED and trail[-1][0].__class__ is not ast.AnnAssign:
            yield ast.BinOp(left, CALCULATED[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Expr(ast.Constant()):
            return
        case _ if isinstance(node, DROPPED) and "warn" not in ast.unparse(node):
            yield ast.Pass()


def with_change(tree: ast.Module, node: ast.AST, after: ast.AST) -> str:
    """The code of the tree in which ``after`` stands for ``node``."""
    memo = {id(node): ast.copy_location(copy.deepcopy(after), node)}
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(tree, memo)))


def where(trail: tuple) -> str:
    kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    return ".".join(node.name for node, _, _ in trail if isinstance(node, kinds)) or "module"


def text(node: ast.AST) -> str:
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())[:100]


def sample(number: int, seed: int, only: str | None = None) -> list[Mutant]:
    """Mutants of each area, the same number of each."""
    chosen: list[Mutant] = []
    for area, places in AREAS.items():
        files = [
            p for place in places for p in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
        ]
        every = [one for file in sorted(files) for one, _ in mutants(file.relative_to(ROOT).as_posix())]
        found = random.Random(f"{seed} {area}").sample(every, number // len(AREAS))
        chosen += [one for one in found if only is None or only in str(one)]
    return chosen
