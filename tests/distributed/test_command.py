"""``torchrun -m graphmeta fit``: a process that is killed ends the others with one line, and one process resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphmeta.cli.commands import main
from graphmeta.testing import fake_log

SECONDS = 400  # importing torch three times takes minutes on a busy machine


def command(out: Path) -> list[str]:
    columns = ["--session", "session", "--item", "item", "--time", "time"]
    return ["fit", "clicks.csv", *columns, "--system", "sr_gnn", "--epochs", "12", "--width", "8", "--out", str(out)]


def rank_of(process: Path, parent: int) -> str | None:
    """The rank of a process that torchrun has started; None for others."""
    try:
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        variables = dict(one.split("=", 1) for one in (process / "environ").read_text().split("\0") if "=" in one)
    except (OSError, ValueError):
        return None
    return variables.get("RANK") if int(status["PPid"]) == parent else None


def kill(rank: str, parent: int) -> None:
    """Kill a rank of the torchrun process ``parent``."""
    processes = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    (found,) = [path for path in processes if rank_of(path, parent) == rank]
    os.kill(int(found.name), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_a_killed_process_ends_the_others_with_one_line_and_one_process_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fake_log(sessions=150, items=40).to_frame().to_csv("clicks.csv", index=False)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "graphmeta"]
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    with Path("stderr").open("w") as stderr:
        process = subprocess.Popen([*torchrun, *command(Path("out"))], env=place, stderr=stderr, stdout=stderr)
        until = time.monotonic() + SECONDS
        while not Path("out/checkpoint/request.json").exists() and time.monotonic() < until:
            time.sleep(0.01)
        kill("1", process.pid)
        assert process.wait(SECONDS) == 1
    text = Path("stderr").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert line.startswith("error: another process of this training has ended, or cannot be reached")
    assert line.endswith("repeat the command with --resume, in any number of processes")
    assert text.count("epoch 1/12") == 1  # rank 0 alone prints
    finished = text.count("/12 ")
    capsys.readouterr()
    assert main([*command(Path("out")), "--resume"]) == 0
    assert finished < 12 and main(command(Path("whole"))) == 0
    resumed, whole = (json.loads((Path(out) / "metrics.json").read_text()) for out in ("out", "whole"))
    losses = [[report["loss"] for report in found["history"]["sr_gnn"]] for found in (resumed, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
