"""A mutation run: small changes of the code, one at a time, each of which a test should notice.

    python -m tests.mutation [--number 60] [--seed 0] [--jobs 2] [--only PART]    (or: make mutants)

Mutants are sampled in equal numbers from the areas of :data:`~tests.mutants.AREAS`, without messages, annotations and
docstrings. The tests of their modules (:data:`TESTS`) are collected once. A mutant runs in a forked process in which
its function is replaced: the tests of its module, in the order of the list, until one fails, which takes seconds; all
of them if it survives. A mutant outside of functions, such as a default, is imported anew instead. The files on disk do
not change. Those in ``tests/equivalent_mutants.txt`` behave as the original. Exit code 1 if fewer than 95 in 100 others
are killed.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import importlib.machinery
import inspect
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from tests.mutants import ROOT, Mutant, mutants, sample

STACK = ["adapt/test_inner.py", "adapt/test_calls.py", "adapt/test_matrix.py", "adapt/test_cosine_table.py"]
STACK += ["adapt/test_guard.py", "adapt/test_sweep.py", "adapt/test_alone.py", "test_threads.py"]
TESTS = {  # by path; the longest that matches
    "graphmeta/adapt": ["adapt/test_adaptation.py", *STACK, "oracles", "test_user_tasks.py", "test_state.py"],
    "graphmeta/adapt/stacked": [*STACK, "adapt/test_adaptation.py", "adapt/test_torch_scatter.py"],
    "graphmeta/adapt/starts": ["adapt/test_start.py", "oracles", "test_user_tasks.py", "adapt/test_adaptation.py"],
    "graphmeta/adapt/starts/generated.py": ["published/test_cold_user.py", "adapt/test_adaptation.py"],
    "graphmeta/adapt/bias_step.py": ["test_bias_step.py"],
    "graphmeta/nn/mean_softmax.py": ["test_bias_step.py"],
    "graphmeta/adapt/support.py": [
        "test_user_tasks.py",
        "test_empty_sessions.py",
        "test_known_sessions.py",
        "published/test_cold_user.py",
    ],
    "graphmeta/adapt/budget.py": ["adapt/test_adaptation.py", "adapt/test_calls.py"],
    "graphmeta/adapt/co_adaptation.py": ["published/test_meta_hin.py", "published/test_meta_hin_rating.py", "oracles"],
    "graphmeta/sampling": ["test_tasks.py", "test_batch.py", "test_system.py", "test_evaluate.py", "test_train.py"],
    "graphmeta/sampling/tasks.py": ["test_tasks.py", "test_bias_step.py", "test_user_tasks.py"],
    "graphmeta/sampling/queries.py": ["test_system.py", "test_front_door.py"],
    "graphmeta/sampling/best.py": ["inference/test_filters.py"],
    "graphmeta/inference/filters.py": ["inference/test_filters.py"],
    "graphmeta/inference/shapley.py": ["inference/test_explain.py"],
    "graphmeta/sampling/subgraph.py": ["test_subgraph.py", "test_graph_encoders.py", "test_extended.py"],
    "graphmeta/sampling/neighbourhood.py": ["test_subgraph.py", "test_graph_encoders.py", "published/test_graph.py"],
    "graphmeta/sampling/ended.py": ["test_subgraph.py"],
    "graphmeta/sampling/task_layout.py": ["test_subgraph.py", "test_tasks.py", "test_batch.py", "adapt/test_matrix.py"],
    "graphmeta/sampling/order.py": ["test_tasks.py", "test_click_batches.py", "test_batch.py"],
    "graphmeta/sampling/few_shot.py": ["test_tasks.py", "test_ratings.py", "published/test_cold_user.py"],
    "graphmeta/sampling/histories.py": ["test_tasks.py", "test_user_tasks.py", "retrain/test_stream.py"],
    "graphmeta/sampling/user_histories.py": ["test_user_tasks.py", "test_user_baselines.py", "nn/test_personal.py"],
    "graphmeta/sampling/given_histories.py": ["test_user_tasks.py", "test_user_baselines.py"],
    "graphmeta/sampling/stored_histories.py": ["test_user_tasks.py", "test_storage.py"],
    "graphmeta/evaluation": [
        "test_evaluate.py",
        "test_evaluate_tasks.py",
        "test_metrics.py",
        "test_ties.py",
        "test_contracts.py",
    ],
    "graphmeta/evaluation/audit": ["test_audit.py"],
    "graphmeta/evaluation/metrics.py": ["test_metrics.py", "test_ratings.py", "test_evaluate_tasks.py"],
    "graphmeta/evaluation/queries.py": ["test_user_tasks.py", "test_known_sessions.py", "test_evaluate.py"],
    "graphmeta/evaluation/ratings.py": ["test_ratings.py"],
    "graphmeta/evaluation/compare.py": ["test_report.py", "test_known_sessions.py"],
    "graphmeta/evaluation/protocol.py": ["test_report.py", "test_job.py", "test_cli.py"],
    "graphmeta/evaluation/examples.py": ["test_known_sessions.py", "test_report.py", "test_cli.py"],
    "graphmeta/evaluation/cold_start.py": ["test_scenarios.py"],
    "graphmeta/evaluation/next_basket.py": ["test_next_basket.py"],
    "graphmeta/evaluation/adaptation_curves.py": ["test_curves.py"],
    "graphmeta/data/splits.py": [
        "test_splits.py",
        "retrain/test_stream.py",
        "test_train.py",
        "test_scan.py",
    ],
}
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.txt"
OPTIONS = ["-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", "--no-header", "--tb=line", "-rfE"]


def files_of(path: str) -> list[str]:
    """The test files of a module."""
    key = max((key for key in TESTS if path.startswith(key)), key=len)
    return [f"tests/{one}" for one in TESTS[key]]


def codes(code: CodeType) -> Iterator[CodeType]:
    """The code object and those inside it, in a fixed order."""
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from codes(one)


def is_function(code: CodeType) -> bool:
    """Whether it is run by calls, and not with what it stands in, as a class body and a comprehension are."""
    return bool(code.co_flags & inspect.CO_OPTIMIZED) and not code.co_name.endswith(("comp>", "genexpr>"))


def functions(code: CodeType) -> Iterator[CodeType]:
    """The functions of a module and of its classes, without those inside functions."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from [one] if is_function(one) else functions(one)


def content(code: CodeType, *, called: bool = True) -> tuple:
    """What two code objects with the same effect have in common; with ``called``, including functions inside."""
    inside = [one for one in code.co_consts if called or not (isinstance(one, CodeType) and is_function(one))]
    parts = [content(one, called=called) if isinstance(one, CodeType) else repr(one) for one in inside]
    return code.co_code, code.co_names, parts


def changed_codes(path: str, source: str) -> list[tuple[CodeType, CodeType]]:
    """The functions of a file that differ in ``source``, and what they become; none if another part differs."""
    file = str(ROOT / path)
    here, plain, other = (
        compile(text, file, "exec")
        for text in ((ROOT / path).read_text(), ast.unparse(ast.parse((ROOT / path).read_text())), source)
    )
    if content(plain, called=False) != content(other, called=False):
        return []
    changed: list[tuple[CodeType, CodeType]] = []
    for own, same, new in zip(functions(here), functions(plain), functions(other), strict=True):
        if content(same) != content(new):
            inner = [*codes(own)], [*codes(new)]
            changed += zip(*inner, strict=True) if len(inner[0]) == len(inner[1]) else [(own, new)]
    return changed


def replace_functions(path: str, changes: list[tuple[CodeType, CodeType]]) -> None:
    """Put the new code into all functions that have the old one, in this process."""
    importlib.import_module(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    new = {(old.co_qualname, old.co_firstlineno): code for old, code in changes}
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename == str(ROOT / path):
            code = new.get((one.__code__.co_qualname, one.__code__.co_firstlineno))
            if code is not None:
                one.__code__ = code


def forked(work: Callable[[], Any]) -> tuple[int, Path]:
    """Run in a forked process, without output: its id, and the file that will have the result as JSON."""
    file = Path(tempfile.mkstemp(suffix=".json")[1])
    child = os.fork()
    if child == 0:
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            file.write_text(json.dumps(work()))
        except BaseException:
            file.write_text(json.dumps(["broken", traceback.format_exc()]))
        finally:
            os._exit(0)
    return child, file


def tested_anew(path: str, source: str) -> list[str]:
    """In a process without the library: the test that fails if it is imported with this code."""
    assert not any(name.startswith("graphmeta") for name in sys.modules)
    plain, target, failed = importlib.machinery.SourceFileLoader.get_code, str(ROOT / path), Failed()

    def get_code(loader, name):  # noqa: ANN001, ANN202
        return compile(ast.parse(source), target, "exec") if loader.path == target else plain(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    code = pytest.main([*OPTIONS, "-x", *files_of(path)], plugins=[failed])
    return failed.names or (["no test is named"] if code else [])


class Failed:
    """A plugin of pytest: the names of the tests that fail."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.names.append(report.nodeid)


class Mutation:
    """A plugin of pytest: collects tests, and instead of running them runs the mutants."""

    def __init__(self, chosen: list[Mutant], jobs: int, seconds: float) -> None:
        self.chosen, self.jobs, self.seconds = chosen, jobs, seconds
        self.kinds: list[str] = []
        self.failed = Failed()

    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings  # pytest rewrites plugins that it imports itself

        phases = (Phase.explicit, Phase.generate)  # a failing example is not made smaller
        settings.register_profile("mutation", settings.get_profile("graphmeta"), phases=phases)
        settings.load_profile("mutation")

    def pytest_collection_finish(self, session: Any) -> None:
        session.config.pluginmanager.register(self.failed)

    def pytest_runtestloop(self, session: Any) -> bool:
        running: dict[int, tuple[Mutant, Path, float]] = {}
        waiting = list(self.chosen)
        while waiting or running:
            while waiting and len(running) < self.jobs:
                one = waiting.pop(0)
                child, file = forked(lambda one=one: self.result(one, session.items))
                running[child] = one, file, time.monotonic()
            time.sleep(0.1)
            for child, (one, file, began) in list(running.items()):
                if late := time.monotonic() - began > self.seconds:
                    os.kill(child, signal.SIGKILL)
                if os.waitpid(child, 0 if late else os.WNOHANG)[0]:
                    del running[child]
                    kind, by = ("timeout", "") if late else json.loads(file.read_text() or '["broken", ""]')
                    file.unlink()
                    self.kinds.append(kind)
                    print(f"{kind:10} {time.monotonic() - began:5.0f} s  {one}  {by}", flush=True)
        return True

    def result(self, one: Mutant, items: list) -> tuple[str, str]:
        """In a forked process: ``survived`` or ``killed``, and the test that failed; it passes without the mutant."""
        changes = changed_codes(one.path, source_of(one))
        place = {name: at for at, name in enumerate(files_of(one.path))}
        if not changes:
            return anew(one)
        tests = [item for item in items if file_of(item) in place]
        tests.sort(key=lambda item: place[file_of(item)])
        child, file = forked(lambda: self.run(one.path, changes, tests))
        os.waitpid(child, 0)
        number = json.loads(file.read_text())
        file.unlink()
        if not isinstance(number, int):
            return tuple(number)
        if number < 0:
            return "survived", f"{len(tests)} tests"
        return "broken" if self.run(one.path, [], [tests[number]]) >= 0 else "killed", tests[number].nodeid

    def run(self, path: str, changes: list[tuple[CodeType, CodeType]], tests: list) -> int:
        """The place of the first test that fails, -1 if none does."""
        replace_functions(path, changes)
        for at, (item, then) in enumerate(zip(tests, [*tests[1:], None], strict=True)):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=then)
            if self.failed.names:
                return at
        return -1


def file_of(item: Any) -> str:
    """The test file of a collected test, as in :data:`TESTS`; a folder if that lists it."""
    name = item.nodeid.partition("::")[0]
    return "tests/oracles" if name.startswith("tests/oracles/") else name


def anew(one: Mutant) -> tuple[str, str]:
    """The result of :func:`tested_anew` in a new interpreter."""
    import subprocess

    program = (
        "import sys, json; from tests.mutation import tested_anew; found = tested_anew(sys.argv[1], sys.stdin.read())"
    )
    program += "; open(sys.argv[2], 'w').write(json.dumps(found))"
    out = Path(tempfile.mkstemp(suffix=".json")[1])
    command = [sys.executable, "-c", program, one.path, str(out)]
    subprocess.run(command, input=source_of(one).encode(), cwd=ROOT, capture_output=True, check=False)
    failed = json.loads(out.read_text() or '["the tests end"]')
    out.unlink()
    return ("killed", failed[0]) if failed else ("survived", "all tests of the module")


def source_of(one: Mutant) -> str:
    """The code of its file."""
    return next(make() for mutant, make in mutants(one.path) if mutant == one)


def main() -> int:
    """Run the mutants; prints a line for each."""
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
    chosen.reverse()  # the tests of the adaptation take longest
    different = [one for one in chosen if f"{one.path} {one.name}" not in same]
    os.chdir(ROOT)
    run = Mutation(different, options.jobs, options.seconds)
    pytest.main(
        [*OPTIONS, "-s", *dict.fromkeys(file for one in different for file in files_of(one.path))], plugins=[run]
    )
    count = {kind: run.kinds.count(kind) for kind in ("killed", "timeout", "survived", "broken")}
    count["equivalent"] = len(chosen) - len(different)
    print(f"{len(chosen)} mutants: " + ", ".join(f"{number} {kind}" for kind, number in count.items()))
    return int(count["killed"] + count["timeout"] < 0.95 * len(different))


if __name__ == "__main__":
    sys.exit(main())
