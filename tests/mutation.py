"""A mutation run: small changes of the code, one at a time, each of which a test should notice.

    python -m tests.mutation [--number 60] [--seed 0] [--jobs 2] [--only PART]    (or: make mutants)

Mutants are sampled in equal numbers from the areas of :data:`~tests.mutants.AREAS`, without messages, annotations and
docstrings. The tests of their modules (:data:`TESTS`) run once without a mutant, which gives the functions that each
test calls and its seconds. A mutant then runs, in a forked process, the tests that call its function, the quickest
first, and if none fails all tests of its module; the first to fail must pass without the mutant. The files on disk do
not change. A mutant that no test notices survives; those in ``tests/equivalent_mutants.txt`` behave as the original.
Exit code 1 if fewer than 95 in 100 of the others are killed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.machinery
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tests.mutants import ROOT, Mutant, mutants, sample

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


def files_of(path: str) -> list[str]:
    """The test files of a module."""
    key = max((key for key in TESTS if path.startswith(key)), key=len)
    return [f"tests/{one}" for one in TESTS[key]]


def tested(path: str, code: str | None, tests: list[str], log: str, record: str | None = None) -> None:
    """In a process of its own: run tests in this order, with this code for a file; exits with the code of pytest.

    Args:
        record: a file to write the seconds of each test to, and the functions that it calls; all tests then run.
    """
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
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", "--no-header", "--tb=line", "-rfE"]
    recorder = None if record is None else Recorder()
    plugins = [InOrder(tests)] if recorder is None else [recorder]
    rc = int(pytest.main([*options, *([] if recorder else ["-x"]), *tests], plugins=plugins))
    if recorder is not None and record is not None:
        Path(record).write_text(json.dumps(recorder.found))
    os._exit(rc)


class InOrder:
    """A plugin of pytest: tests run in the order of their names in a list; those of whole files stay as they are."""

    def __init__(self, names: Iterable[str]) -> None:
        self.place = {name: place for place, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list) -> None:
        items.sort(key=lambda item: self.place.get(item.nodeid, 0))


class Recorder:
    """A plugin of pytest: ``found[test] = [seconds, functions of the library that it calls]`` of the passed tests."""

    def __init__(self) -> None:
        self.found: dict[str, list] = {}
        self.called: set[str] = set()
        self.seconds = 0.0
        self.inside = f"{ROOT / 'graphmeta'}{os.sep}"

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:  # noqa: ARG002
        self.called, self.seconds = set(), 0.0
        sys.settrace(self.trace)

    def trace(self, frame: Any, event: str, arg: Any) -> None:  # noqa: ARG002
        code = frame.f_code
        if code.co_filename.startswith(self.inside):
            self.called.add(function(code.co_filename, code.co_qualname.replace(".<locals>", "")))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds += report.duration
        if report.when == "call" and report.passed:
            self.found[report.nodeid] = [self.seconds, sorted(self.called)]

    def pytest_runtest_logfinish(self) -> None:
        sys.settrace(None)


def function(path: str | Path, name: str) -> str:
    """The key of a function, as the recorder writes it."""
    return f"{Path(path).relative_to(ROOT).as_posix()} {name}"


def forked(*arguments: Any, seconds: float) -> tuple[int | None, list[str]]:
    """:func:`tested` in a forked process: its exit code, None if it took too long, and the lines that it printed."""
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    path, code, tests, *record = arguments
    target = partial(tested, path, code, tests, str(log), *record)
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join(seconds)
    late = process.is_alive()
    if late:
        process.kill()
        process.join()
    lines = log.read_text(errors="replace").splitlines()
    log.unlink()
    return None if late else process.exitcode, lines


def recorded(files: Iterable[str], pool: ThreadPoolExecutor, seconds: float) -> dict[str, list]:
    """Seconds and called functions of each test of these files that passes."""

    def one(file: str) -> dict[str, list]:
        record = Path(tempfile.mkstemp(suffix=".json")[1])
        forked("", None, [file], str(record), seconds=seconds)
        found = json.loads(record.read_text() or "{}")
        record.unlink()
        return found

    return {name: value for found in pool.map(one, files) for name, value in found.items()}


def outcome(path: str, code: str | None, tests: list[str], *, seconds: float) -> tuple[str, list[str]]:
    """``survived``, ``killed`` or ``timeout``, and the tests that failed."""
    status, lines = forked(path, code, tests, seconds=seconds)
    named = [line.split(" - ")[0] for line in lines]
    failed = [line.split(" ", 1)[1] for line in named if line.startswith(("FAILED tests/", "ERROR tests/"))]
    return "timeout" if status is None else "survived" if status == 0 else "killed", failed


def result(one: Mutant, code: str, calls: dict[str, list], seconds: float) -> tuple[str, str]:
    """The outcome, and the test that failed; ``broken`` if it fails without the mutant too, or none is named."""
    own = function(ROOT / one.path, one.where)
    quickest = sorted((spent, name) for name, (spent, called) in calls.items() if own in called)
    found, failed = "survived", []
    for tests in ([name for _, name in quickest], files_of(one.path)):
        if tests and found == "survived":
            found, failed = outcome(one.path, code, tests, seconds=seconds)
    if found == "killed" and (not failed or outcome(one.path, None, failed, seconds=seconds)[0] != "survived"):
        return "broken", " ".join(failed)
    return found, " ".join(failed)


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
    # Imported once, for all: a fork has them for nothing.
    import pandas  # noqa: F401
    import torch
    import torch_geometric  # noqa: F401

    torch.set_num_threads(1)
    with ThreadPoolExecutor(options.jobs) as pool:
        began = time.perf_counter()
        different = [one for one in chosen if f"{one.path} {one.name}" not in same]
        calls = recorded(sorted({file for one in different for file in files_of(one.path)}), pool, options.seconds)
        print(f"{len(calls)} tests without a mutant: {time.perf_counter() - began:.0f} s", flush=True)
        kinds = list(pool.map(partial(report, calls=calls, seconds=options.seconds), different))
    count = {kind: kinds.count(kind) for kind in ("killed", "timeout", "survived", "broken")}
    count["equivalent"] = len(chosen) - len(different)
    print(f"{len(chosen)} mutants: " + ", ".join(f"{number} {kind}" for kind, number in count.items()))
    return int(count["killed"] + count["timeout"] < 0.95 * len(different))


def report(one: Mutant, calls: dict[str, list], seconds: float) -> str:
    """Run a mutant and print its line; returns the outcome."""
    began = time.perf_counter()
    code = next(make() for mutant, make in mutants(one.path) if mutant == one)
    found, by = result(one, code, calls, seconds)
    print(f"{found:10} {time.perf_counter() - began:5.0f} s  {one}  {by}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
