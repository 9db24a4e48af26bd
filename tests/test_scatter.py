"""With torch-scatter installed everything is as without: the tests of the parts in an environment of their own.

The environment is built once, in ``.cache/scatter-venv`` (about five minutes on two cores), and used again for as long
as ``constraints.txt`` stays the same.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".cache" / "scatter-venv"
PYTHON = PLACE / ("Scripts" if os.name == "nt" else "bin") / "python"
SCATTER = "torch-scatter==2.1.2"
INSTALL = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def ran(*command: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [PYTHON, *command], cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=False
    )


def needed(*command: str, **variables: str) -> None:
    """Run it, and skip the test if it fails."""
    done = ran(*command, **variables)
    if done.returncode:
        pytest.skip(f"{' '.join(command[:3])} … failed, so there is no torch-scatter: {done.stderr.strip()[-500:]}")


@pytest.fixture(scope="module")
def environment() -> None:
    """An environment with the tested versions and torch-scatter."""
    stamp, wanted = PLACE / "constraints", hashlib.sha256((ROOT / "constraints.txt").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        if shutil.which("g++") is None and shutil.which("c++") is None:
            pytest.skip("no C++ compiler, and torch-scatter is a source package")
        shutil.rmtree(PLACE, ignore_errors=True)
        venv.create(PLACE, with_pip=True)
        needed(*INSTALL, "-c", "constraints.txt", "-e", ".[cli,plots,text,tune,test]", "setuptools")
        needed(*INSTALL, "--no-build-isolation", "--no-deps", SCATTER, MAX_JOBS="2", FORCE_ONLY_CPU="1")
        stamp.write_text(wanted)
    needed("-c", "import torch_scatter")


@pytest.mark.slow  # 2 minutes, and what building takes
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform == "win32", reason="built on Linux and macOS alone")
def test_the_parts_pass_their_tests_with_torch_scatter(environment: None) -> None:
    done = ran("-m", "pytest", "-q", "-p", "no:xdist", "-rs", "tests/adapt", "tests/nn", "tests/oracles")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "torch_scatter" not in done.stdout, done.stdout  # which nothing has missed
