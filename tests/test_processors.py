"""Threads that wait briefly, and no more of them than a quota allows; set before torch is loaded."""

import os
import subprocess
import sys

import pytest

from graphmeta.processors import SPINS, cpus, prepare

NAMES = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
V1 = {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}


def mounted(folder, files, group="0::/\n"):
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in [*texts.items(), ("proc/self/cgroup", group)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    ("files", "group", "expected"),
    [
        ({}, "0::/\n", None),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 0.5),
        ({"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n"}, "0::/a/b\n", 3.0),
        ({"other/cpu.max": "50000 100000\n"}, "0::/a/b\n", None),
        (V1, "3:cpu,cpuacct:/\n0::/\n", 1.5),
        (V1 | {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, "3:cpu:/a\n", 1.5),
        ({"cpu.max": "damaged\n"}, "0::/\n", None),
    ],
)
def test_quota_of_the_control_group_and_of_those_around_it(tmp_path, files, group, expected):
    assert cpus(mounted(tmp_path, files, group)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": SPINS, "OMP_NUM_THREADS": "1"}),
        (
            {"GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "3"},
            {"GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "3"},
        ),
        ({"OMP_WAIT_POLICY": "passive"}, {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}),
    ],
)
def test_the_users_environment_comes_first(monkeypatch, given, expected):
    environment = dict(given)
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr("graphmeta.processors.cpus", lambda: 0.5)
    prepare()
    assert environment == expected


def test_without_a_quota_torch_chooses_the_number_of_threads(monkeypatch):
    environment = {}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr("graphmeta.processors.cpus", lambda: None)
    prepare()
    assert "OMP_NUM_THREADS" not in environment


def test_import_of_the_library_sets_it_before_torch_is_loaded():
    code = "import sys, os, graphmeta; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SPINS, "False"]
