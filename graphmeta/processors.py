"""How many threads torch starts, and how they wait: set before torch is loaded, unless the user has set it."""

from __future__ import annotations

import math
import os
from pathlib import Path

SPINS = "3000"  # rounds that an OpenMP thread waits actively before it sleeps (see docs/benchmarks.md)


def prepare() -> None:
    """Set ``GOMP_SPINCOUNT`` and, below a CPU quota, ``OMP_NUM_THREADS``, unless the environment has them.

    Threads that wait actively for each other make a step several times slower on a busy machine; with short waits it
    stays near what its products alone take there. libgomp reads both variables when torch is loaded, so there is no
    effect after ``import torch``. Where ``OMP_WAIT_POLICY`` is set, it decides how threads wait.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    quota = cpus()
    if quota is not None and quota < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(math.floor(quota), 1)))


def cpus(root: str = "/") -> float | None:
    """CPUs that the quota of this process's control group, or of one around it, allows; None without a quota.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    found = [quota for folder in _groups(Path(root)) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def _groups(root: Path) -> list[Path]:
    """The folders of the process's control group and of those around it, of both versions of control groups."""
    mounted = root / "sys/fs/cgroup"
    folders = [mounted / "cpu"]
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            top = mounted / "cpu" if controllers else mounted
            own = top / path.lstrip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(top))]
    return folders


def _quota(folder: Path) -> float | None:
    """CPUs that one control group allows, by ``cpu.max`` (version 2) or ``cpu.cfs_quota_us`` (version 1)."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return float(quota) / float(period)
    return None
