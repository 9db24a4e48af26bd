"""A mutation run: small changes of the code, one at a time, each of which a test should notice.

    python -m tests.mutation [--number 60] [--seed 0] [--jobs 2] [--only PART]    (or: make mutants)

Mutants are sampled in equal numbers from the areas of :data:`AREAS`, without messages, annotations and docstrings. Each
runs the tests of its module (:data:`TESTS`) in a forked process until one fails, which must pass without the mutant;
the files on disk do not change. One that no test notices survives; those in ``tests/equivalent_mutants.txt`` behave as
the original. Exit code 1 if fewer than 95 in 100 of the others are killed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.machinery
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
STACK = ["adapt/test_inner.py", "adapt/test_calls.py", "adapt/test_matrix.py", "adapt/test_cosine_table.py"]
STACK += ["adapt/test_guard.py", "adapt/test_sweep.py", "adapt/test_alone.py", "test_threads.py"]
TESTS = {  # by path; the longest that matches
    "graphmeta/adapt": ["adapt/test_adaptation.py", *STACK, "oracles", "test_user_tasks.py", "test_state.py"],
    "graphmeta/adapt/stacked": [*STACK, "adapt/test_adaptation.py", "adapt/test_torch_scatter.py"],
    "graphmeta/adapt/starts": ["adapt/test_start.py", "oracles", "test_user_tasks.py", "adapt/test_adaptation.py"],
    "graphmeta/adapt/starts/generated.py": ["published/test_cold_user.py", "adapt/test_adaptation.py"],
    "graphmeta/adapt/support.py": ["test_user_tasks.py", "test_known_sessions.py", "published/test_cold_user.py"],
    "graphmeta/adapt/budget.py": ["adapt/test_adaptation.py", "adapt/test_calls.py"],
    "graphmeta/adapt/co_adaptation.py": ["published/test_mamo.py", "published/test_mamo_rating.py", "oracles"],
    "graphmeta/sampling": ["test_tasks.py", "test_batch.py", "test_system.py", "test_evaluate.py", "test_train.py"],
    "graphmeta/sampling/queries.py": ["test_system.py", "test_front_door.py"],
    "graphmeta/sampling/best.py": ["inference/test_filters.py"],
    "graphmeta/inference/filters.py": ["inference/test_filters.py"],
    "graphmeta/inference/shapley.py": ["inference/test_explain.py"],
    "graphmeta/sampling/subgraph.py": ["test_subgraph.py", "test_graph_encoders.py", "test_extended.py"],
    "graphmeta/sampling/neighbourhood.py": ["test_subgraph.py", "test_graph_encoders.py", "published/test_graph.py"],
    "graphmeta/sampling/ended.py": ["test_subgraph.py"],
    "graphmeta/sampling/order.py": ["test_tasks.py", "test_click_batches.py", "test_batch.py"],
    "graphmeta/sampling/few_shot.py": ["test_tasks.py", "test_ratings.py", "published/test_cold_user.py"],
    "graphmeta/sampling/histories.py": ["test_tasks.py", "test_user_tasks.py", "retrain/test_stream.py"],
    "graphmeta/sampling/user_histories.py": ["test_user_tasks.py", "test_user_baselines.py", "nn/test_personal.py"],
    "graphmeta/sampling/given_histories.py": ["test_user_tasks.py", "test_user_baselines.py"],
    "graphmeta/sampling/stored_histories.py": ["test_user_tasks.py", "test_storage.py"],
    "graphmeta/evaluation": ["test_evaluate.py", "test_evaluate_tasks.py", "test_metrics.py", "test_contracts.py"],
    "graphmeta/evaluation/metrics.py": ["test_metrics.py", "test_ratings.py", "test_evaluate_tasks.py"],
    "graphmeta/evaluation/ratings.py": ["test_ratings.py"],
    "graphmeta/evaluation/compare.py": ["test_report.py", "test_known_sessions.py"],
    "graphmeta/evaluation/protocol.py": ["test_report.py", "test_job.py", "test_cli.py"],
    "graphmeta/evaluation/examples.py": ["test_known_sessions.py", "test_report.py", "test_cli.py"],
    "graphmeta/evaluation/cold_start.py": ["test_scenarios.py"],
    "graphmeta/evaluation/next_basket.py": ["test_next_basket.py"],
    "graphmeta/evaluation/adaptation_curves.py": ["test_curves.py"],
    "graphmeta/data/splits.py": ["test_splits.py", "retrain/test_stream.py", "test_train.py"],
}
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.txt"
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

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.name}"

    @property
    def name(self) -> str:
        """Without the line, which moves."""
        return f"{self.where}: {self.before} -> {self.after}"


def mutants(path: str) -> Iterator[tuple[Mutant, Callable[[], str]]]:
    """All mutants of a file, with what makes their code."""
    tree = ast.parse((ROOT / path).read_text())
    place = 0
    for trail, node in list(walked(tree, ())):
        for after in changed(node, trail):
            mutant = Mutant(path, node.lineno, where(trail), text(node), text(after), place)
            place += 1
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


def tests_of(path: str) -> list[str]:
    """The tests that run for a module."""
    key = max((key for key in TESTS if path.startswith(key)), key=len)
    return [f"tests/{one}" for one in TESTS[key]]


def tested(path: str, code: str | None, tests: list[str], log: str) -> None:
    """In a process of its own: run tests with this code for a file; exits with the code of pytest."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    plain = importlib.machinery.SourceFileLoader.get_code
    target = str(ROOT / path)

    def get_code(loader, name):  # noqa: ANN001, ANN202
        return compile(ast.parse(code), target, "exec") if code and loader.path == target else plain(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    import pytest

    os.chdir(ROOT)
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", "--no-header", "--tb=line", "-rfE"]
    os._exit(int(pytest.main([*options, *tests])))


def outcome(path: str, code: str | None, tests: list[str], *, seconds: float) -> tuple[str, list[str]]:
    """``survived``, ``killed`` or ``timeout``, and the tests that failed."""
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    process = multiprocessing.get_context("fork").Process(target=tested, args=(path, code, tests, str(log)))
    process.start()
    process.join(seconds)
    late = process.is_alive()
    if late:
        process.kill()
        process.join()
    lines = [line.split(" - ")[0] for line in log.read_text(errors="replace").splitlines()]
    log.unlink()
    failed = [line.split(" ", 1)[1] for line in lines if line.startswith(("FAILED tests/", "ERROR tests/"))]
    return "timeout" if late else "survived" if process.exitcode == 0 else "killed", failed


def result(one: Mutant, code: str, seconds: float) -> tuple[str, str]:
    """The outcome, and the test that failed; ``broken`` if it fails without the mutant too, or none is named."""
    found, failed = outcome(one.path, code, tests_of(one.path), seconds=seconds)
    if found == "killed" and (not failed or outcome(one.path, None, failed, seconds=seconds)[0] != "survived"):
        return "broken", " ".join(failed)
    return found, " ".join(failed)


def main() -> int:
    """Run the mutants; prints a line for each that survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=60, help="mutants in all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--only", help="mutants whose line has this text")
    parser.add_argument("--seconds", type=float, default=1200, help="limit for the tests of a mutant")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    options = parser.parse_args()
    chosen = sample(options.number, options.seed, options.only)
    if options.list:
        print(*chosen, sep="\n")
        return 0
    same = {line.split("\t")[0] for line in EQUIVALENT.read_text().splitlines()} if EQUIVALENT.exists() else set()
    # Imported once, for all: a fork has them for nothing.
    import pandas  # noqa: F401
    import torch
    import torch_geometric  # noqa: F401

    torch.set_num_threads(1)

    def run(one: Mutant) -> str:
        if f"{one.path} {one.name}" in same:
            return "equivalent"
        began = time.perf_counter()
        code = next(make() for mutant, make in mutants(one.path) if mutant == one)
        found, by = result(one, code, options.seconds)
        print(f"{found:10} {time.perf_counter() - began:5.0f} s  {one}  {by}", flush=True)
        return found

    with ThreadPoolExecutor(options.jobs) as pool:
        kinds = list(pool.map(run, chosen))
    count = {kind: kinds.count(kind) for kind in ("killed", "timeout", "survived", "equivalent", "broken")}
    print(f"{len(kinds)} mutants: " + ", ".join(f"{number} {kind}" for kind, number in count.items()))
    killed = count["killed"] + count["timeout"]
    return int(killed < 0.95 * (len(kinds) - count["equivalent"]))


if __name__ == "__main__":
    sys.exit(main())
