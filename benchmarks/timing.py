"""Shared by the speed benchmarks: alternating arms, random sessions, one row of the table."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphmeta.sampling.samples import Samples, sessions_without_target

Row = dict[str, Any]


def paired(ours: Callable[[], Any], other: Callable[[], Any], *, rounds: int, warm_up: int = 2) -> tuple[float, float]:
    """Median seconds of two arms, run alternately."""
    times: tuple[list[float], list[float]] = ([], [])
    for at in range(warm_up + rounds):
        for kept, arm in zip(times, (ours, other), strict=True):
            began = time.perf_counter()
            arm()
            if at >= warm_up:
                kept.append(time.perf_counter() - began)
    return float(np.median(times[0])), float(np.median(times[1]))


def sessions(count: int, num_items: int, *, seed: int = 0) -> Samples:
    """Random sessions with Diginetica's mean length (4.1 observed clicks, long tail) and a random target."""
    random = np.random.default_rng(seed)
    lengths = np.minimum(random.geometric(1 / 4.13, count), 50)
    known = sessions_without_target([random.integers(0, num_items, n) for n in lengths])
    return Samples(known.item, known.begin, known.end, random.integers(0, num_items, count), known.session)


def row(name: str, ratio: float, against: str, *, ours: float, other: float, unit: str) -> Row:
    """One row of the table."""
    return {
        "name": name,
        "ratio": round(ratio, 3),
        "against": against,
        "ours": round(ours, 1),
        "other": round(other, 1),
        "unit": unit,
    }


def peak_mb() -> float:
    """The most memory that this process has had, in MB.

    On Linux by VmHWM, which begins anew with the program: ``ru_maxrss`` begins with that of the process it was started
    from.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform != "darwin" else 2**20)
