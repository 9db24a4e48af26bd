"""Settings that hold for every test."""

import functools
import os
from collections import Counter, defaultdict

# One thread: the tests' tensors are tiny, and two threads that wait for each other on a busy machine take minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

import graphmeta.datasets  # noqa: E402
from graphmeta.datasets import session_logs as datasets  # noqa: E402
from graphmeta.published.catalogue import CATALOGUE  # noqa: E402
from tests.kinds import KINDS, covering, values_of  # noqa: E402

# A shared two-core machine is slow at times: no deadline for one example, and the same 50 examples every run.
settings.register_profile("graphmeta", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("graphmeta")

# Read once: it takes a second, a log cannot be assigned to, and many tests ask for it.
datasets.complete_journey = functools.cache(datasets.complete_journey)
graphmeta.datasets.complete_journey = datasets.complete_journey


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    """Mark as slow what ``first``, ``covering`` and ``by_kind`` leave to `make slow`."""
    cases, seen = defaultdict(list), Counter()
    for item in items:
        if not hasattr(item, "callspec") or item.get_closest_marker("slow"):
            continue
        if item.get_closest_marker("by_kind") and item.callspec.params["name"] in CATALOGUE.keys() - KINDS:
            item.add_marker(pytest.mark.slow)
        elif mark := item.get_closest_marker("first"):
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            if seen[name] > mark.args[0]:
                item.add_marker(pytest.mark.slow)
        elif mark := item.get_closest_marker("covering"):
            of = mark.kwargs.get("of")
            cases[item.nodeid.partition("[")[0]].append((item, of(**item.callspec.params) if of else values_of(item)))
    for same in cases.values():
        chosen = covering([values for _, values in same])
        for number, (item, _) in enumerate(same):
            if number not in chosen:
                item.add_marker(pytest.mark.slow)


@pytest.fixture
def float64():
    """Within it, new tensors have 64 bits, so that an oracle can be compared to the last digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
