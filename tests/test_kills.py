"""Commands that are killed at random moments: what is on disk is readable, and the resumed run ends as an uninterrupted
one, in the same files."""

import json
import multiprocessing
import multiprocessing.process
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graphmeta as gm
from graphmeta.cli.commands import main
from graphmeta.cli.history import load_history
from graphmeta.storage.versions import current, pointer
from graphmeta.testing import fake_log

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clicks = fake_log(sessions=80, items=14, length=4)
    path = tmp_path_factory.mktemp("log") / "events.csv"
    frame = pd.DataFrame(
        {
            "sid": clicks.session,
            "iid": clicks.items.ids[clicks.item],
            "at": clicks.time,
            "uid": np.repeat([f"u{n % 20}" for n in range(clicks.num_sessions)], clicks.lengths),
        }
    )
    frame.to_csv(path, index=False)
    return path


def command(kind: str, log: Path, out: Path, *more: str) -> list[str]:
    columns = [str(log), "--item", "iid", "--time", "at", "--user", "uid", "--out", str(out), "--width", "4"]
    if kind == "fit":
        own = ["--session", "sid", "--system", "maml", "--epochs", "2"]
    else:
        own = ["--system", "fine_tune", "--system", "full_retrain", "--period", "16h", "--first", "2", "--epochs", "2"]
        own += ["--negatives", "20"]
    return [kind, *columns, *own, *more]


def run(*given: str) -> None:
    """A child's work, without its output."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os._exit(main(list(given)))


def started(given: list[str]) -> multiprocessing.process.BaseProcess:
    child = multiprocessing.get_context("fork").Process(target=run, args=given)
    child.start()
    return child


def models(out: Path) -> list[Path]:
    return sorted(place.parent for place in out.rglob("current.json"))


def readable(out: Path) -> int:
    """Read all that a killed run left; the number of models."""
    for model in models(out):
        system = gm.load(model)
        if (current(model) / "history.json").exists():
            assert load_history(current(model), system.items).num_events
    for document in out.rglob("[!.]*.json"):
        json.loads(document.read_bytes())
    return len(models(out))


def content(out: Path) -> dict[str, bytes | str]:
    """The files of a folder with their bytes; without seconds, which differ between runs."""
    found: dict[str, bytes | str] = {}
    streamed = (out / "periods.png").exists()
    for path in sorted(one for one in out.rglob("*") if one.is_file()):
        name = str(path.relative_to(out))
        if path.name in ("stream.json", "periods.png") or (streamed and path.name == "metrics.json"):
            found[name] = ""  # has seconds
        elif path.name == "epochs.csv":
            found[name] = pd.read_csv(path).drop(columns="seconds").to_csv()
        else:
            found[name] = path.read_bytes()
    return found


def equal(out: Path, wanted: Path) -> None:
    """The same files with the same content, and models with the same weights."""
    mine, other = content(out), content(wanted)
    assert mine.keys() == other.keys()
    for name in mine:
        assert mine[name] == other[name], name
    for model in models(wanted):
        own = out / model.relative_to(wanted)
        assert pointer(own) == pointer(model)
        for version in sorted(one.name for one in (model / "versions").iterdir()):
            weights = gm.load(own / "versions" / version).state_dict()
            for name, tensor in gm.load(model / "versions" / version).state_dict().items():
                assert tensor.equal(weights[name]), (version, name)
    if (wanted / "periods.png").exists():
        assert without_times(out) == without_times(wanted)


def without_times(out: Path) -> dict:
    """What ``stream`` has measured."""
    document = json.loads((out / "metrics.json").read_text())
    for system in document["systems"].values():
        for period in system["periods"]:
            assert all(period.pop(name) >= 0 for name in ("test_seconds", "train_seconds", "train_cpu_seconds"))
    return document


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fit", "stream"])
@pytest.mark.parametrize("kills", [30])
@pytest.mark.timeout(3600)
def test_a_killed_run_is_readable_and_resumes_as_if_uninterrupted(
    kind: str, kills: int, log: Path, tmp_path: Path
) -> None:
    begin, wanted, out = tmp_path / "begin", tmp_path / "wanted", tmp_path / "out"
    warnings.simplefilter("ignore")

    def whole(folder: Path, *more: str) -> None:
        child = started(command(kind, log, folder, *more))
        child.join()
        assert child.exitcode == 0

    if kind == "fit":  # into the folder of an earlier model
        whole(begin, "--seed", "1")
    else:
        begin.mkdir()
    shutil.copytree(begin, wanted)
    seconds = timed(lambda: whole(wanted))
    shutil.copytree(begin, out)
    chance, killed, finished, least = np.random.default_rng(kills), 0, 0, readable(begin)
    while killed < kills:
        assert finished < 20 * kills
        child = started(command(kind, log, out, "--resume"))
        child.join(chance.uniform(0.05, 1.1) * seconds)
        child.kill()
        child.join()
        killed += child.exitcode != 0
        assert child.exitcode in (0, -9)
        assert readable(out) >= least
        if child.exitcode == 0:
            equal(out, wanted)
            finished += 1
            shutil.rmtree(out)
            shutil.copytree(begin, out)
    whole(out, "--resume")
    equal(out, wanted)
