"""A training step on a quiet machine and beside another two-thread job, by how OpenMP threads wait.

    python -m benchmarks.busy [--seconds 10] [--spins 2000 4000]

For each setting, SR-GNN's step and its lower bound (all scores, cross-entropy, backward pass and fused Adam, in plain
PyTorch) are timed alternately in a process of their own, first alone, then beside a process that multiplies matrices in
two threads all the time. ``import graphmeta`` sets ``GOMP_SPINCOUNT`` unless it is set already.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from graphmeta.processors import SPINS

SETTINGS: dict[str, dict[str, str]] = {
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    f"GOMP_SPINCOUNT={SPINS} (as imported)": {"GOMP_SPINCOUNT": SPINS},
    "GOMP_SPINCOUNT=20000": {"GOMP_SPINCOUNT": "20000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "libgomp's default": {"GOMP_SPINCOUNT": "30000000000"},
}
JOB = "import torch\ntorch.set_num_threads(2)\nx = torch.randn(800, 800)\nwhile True:\n    y = x @ x\n"
NAMES = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"}


def main(arguments: list[str] | None = None) -> None:
    """Print the table, or with ``--one`` the times of this process as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--spins", type=int, nargs="+", default=[], help="further values of GOMP_SPINCOUNT")
    parser.add_argument("--one", action="store_true", help="measure in this process")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measured(options.seconds)))
        return
    print(f"{'median ms of a step (its lower bound)':36}{'alone':>18}{'beside a job':>18}{'x bound':>9}")
    further = {f"GOMP_SPINCOUNT={spins}": {"GOMP_SPINCOUNT": str(spins)} for spins in options.spins}
    for name, variables in (SETTINGS | further).items():
        quiet = apart(variables, options.seconds)
        with other_job(variables):
            busy = apart(variables, options.seconds)
        shown = [f"{step:.0f} ({bound:.0f})" for step, bound in (quiet, busy)]
        print(f"{name:36}{shown[0]:>18}{shown[1]:>18}{busy[0] / busy[1]:9.2f}", flush=True)


def measured(seconds: float) -> tuple[float, float]:
    """Median milliseconds of SR-GNN's step and of its lower bound, taken alternately for so long."""
    import torch

    from benchmarks.steps import floor, step_of

    torch.set_num_threads(2)
    arms = step_of("sr_gnn"), floor()
    times: tuple[list[float], list[float]] = ([], [])
    for arm in arms:
        arm()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times[0]) < 3:
        for kept, arm in zip(times, arms, strict=True):
            began = time.perf_counter()
            arm()
            kept.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times[0])), float(np.median(times[1]))


def apart(variables: dict[str, str], seconds: float) -> tuple[float, float]:
    """The same in a process with these environment variables."""
    command = [sys.executable, "-m", "benchmarks.busy", "--one", "--seconds", str(seconds)]
    done = subprocess.run(command, env=environment(variables), capture_output=True, text=True, check=True)
    step, bound = json.loads(done.stdout.splitlines()[-1])
    return step, bound


@contextmanager
def other_job(variables: dict[str, str]) -> Iterator[None]:
    """Within it, another process computes in two threads."""
    job = subprocess.Popen([sys.executable, "-c", JOB], env=environment(variables))
    try:
        time.sleep(5)  # until torch is loaded
        yield
    finally:
        job.kill()
        job.wait()


def environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's, without other settings of OpenMP."""
    return {name: value for name, value in os.environ.items() if name not in NAMES} | variables


if __name__ == "__main__":
    main()
