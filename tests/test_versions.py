"""Versions of a model in one folder: whole for readers, one writer at a time, three kept, and a way back."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import graphmeta as gm
from graphmeta.cli.commands import main
from graphmeta.cli.fit_job import check_model
from graphmeta.errors import InputError
from graphmeta.published.catalogue import build
from graphmeta.storage import load_state, save_state, state_hash
from graphmeta.storage.lock import locked
from graphmeta.storage.reports import reports
from graphmeta.storage.versions import (
    complete,
    current,
    identity,
    new_version,
    pointer,
    rollback,
    whole_version,
)
from graphmeta.testing import fake_log

ROOT = Path(__file__).parents[1]
LOG = fake_log(sessions=30, items=12)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def save(folder: Path, number: int) -> None:
    """A version of two states that belong together."""
    with new_version(folder) as place:
        save_state(place, "history", {}, {"number": number})
        save_state(place, "model", {"x": torch.full((1000,), float(number))}, {"number": number})


def read(place: Path) -> int:
    """The number of a version; fails if its two states are of different versions."""
    tensors, document = load_state(place, "model")
    assert (tensors["x"] == document["number"]).all()
    assert load_state(place, "history")[1] == document
    return document["number"]


def versions(folder: Path) -> list[str]:
    return sorted(one.name for one in (folder / "versions").iterdir())


def test_the_last_three_versions_are_kept_and_can_be_restored(tmp_path: Path) -> None:
    for number in range(1, 6):
        save(tmp_path, number)
        assert whole_version(tmp_path, read) == number
    assert versions(tmp_path) == ["000003", "000004", "000005"]
    assert [rollback(tmp_path), rollback(tmp_path)] == [4, 3] and whole_version(tmp_path, read) == 3
    with pytest.raises(InputError, match="there is no version before 3"):
        rollback(tmp_path)
    assert rollback(tmp_path, 5) == 5 and whole_version(tmp_path, read) == 5
    with pytest.raises(InputError, match="no version 1 to roll back to; there is 3, 4"):
        rollback(tmp_path, 1)
    with pytest.raises(InputError, match="has no versions"):
        rollback(tmp_path / "nowhere")


def test_a_number_is_never_used_again(tmp_path: Path) -> None:
    """A server that missed a rollback must notice the next version."""
    for number in range(1, 4):
        save(tmp_path, number)
    rollback(tmp_path)
    save(tmp_path, 4)
    assert identity(tmp_path) == "4" and versions(tmp_path) == ["000001", "000002", "000004"]
    assert rollback(tmp_path) == 2


@pytest.mark.parametrize(("saved", "expected"), [(0, ["000001"]), (1, ["000001", "000002"]), (4, ["000002", "000005"])])
def test_a_whole_version_that_no_pointer_has_named_is_replaced(saved: int, expected: list[str], tmp_path: Path) -> None:
    """Of a writer that was killed between the two; versions from before a rollback keep their numbers."""
    for number in range(1, saved + 1):
        save(tmp_path, number)
    if saved == 4:
        rollback(tmp_path, 2)
    save(tmp_path / "other", 99)
    (tmp_path / "versions").mkdir(exist_ok=True)
    (tmp_path / "other" / "versions" / "000001").rename(tmp_path / "versions" / f"{saved + 1:06d}")
    save(tmp_path, saved + 1)
    assert identity(tmp_path) == str(saved + 1) and whole_version(tmp_path, read) == saved + 1
    assert versions(tmp_path) == expected


def test_a_folder_without_versions_loads_and_becomes_the_first_version(tmp_path: Path) -> None:
    system = build("sr_gnn", LOG.items, width=4)
    system.write_files(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert pointer(tmp_path) is None and current(tmp_path) == tmp_path
    assert state_hash(gm.load(tmp_path)) == state_hash(system)
    other = build("sr_gnn", LOG.items, width=5)
    other.save(tmp_path)
    assert state_hash(gm.load(tmp_path)) == state_hash(other)
    assert sorted(one.name for one in tmp_path.glob("[!.]*")) == ["current.json", "notes.txt", "versions"]
    assert gm.rollback(tmp_path) == 0 and state_hash(gm.load(tmp_path)) == state_hash(system)
    assert state_hash(gm.load(tmp_path / "versions" / "000001")) == state_hash(other)  # a version is a model folder


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"current": "1", "earlier": []}', '{"current": true}', "[" * 9999]
)
def test_a_damaged_pointer_is_refused_with_its_remedy(content: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "current.json").write_text(content)
    with pytest.raises(InputError, match="current.json: damaged; write") as error:
        gm.load(tmp_path)
    assert "\n" not in str(error.value)


def test_an_error_while_writing_leaves_the_old_version(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ZeroDivisionError), new_version(tmp_path) as place:
        save_state(place, "model", {}, {"number": 1 // 0})
    assert whole_version(tmp_path, read) == 1 and versions(tmp_path) == ["000001"]


def test_a_version_removed_while_it_is_read_is_read_anew(tmp_path: Path) -> None:
    save(tmp_path, 1)
    places = []

    def slow(place: Path) -> int:
        places.append(place.name)
        if len(places) == 1:
            for number in range(2, 6):
                save(tmp_path, number)
        return read(place)

    assert whole_version(tmp_path, slow) == 5 and places == ["000001", "000005"]


def test_readers_beside_a_writer_read_whole_versions(tmp_path: Path) -> None:
    save(tmp_path, 1)
    stop, found = threading.Event(), []

    def keep_reading() -> None:
        while not stop.is_set():
            found.append(whole_version(tmp_path, read))

    threads = [threading.Thread(target=keep_reading) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2, 12):
        save(tmp_path, number)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(set(found)) > 2 and whole_version(tmp_path, read) == 11


# Reports


def save_reported(folder: Path, number: int, names: tuple[str, ...]) -> None:
    with new_version(folder) as place:
        save_state(place, "model", {"x": torch.full((3,), float(number))}, {"number": number})
        (place / "reports").mkdir()
        for name in names:
            (place / "reports" / name).write_text(f"{name} {number}")


def beside(folder: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in folder.parent.iterdir() if one.is_file()}


def test_reports_beside_a_model_are_those_of_its_current_version(tmp_path: Path) -> None:
    folder, mine = tmp_path / "model", {"mine.txt": "mine"}
    (tmp_path / "mine.txt").write_text("mine")
    save_reported(folder, 1, ("metrics.json",))
    save_reported(folder, 2, ("metrics.json", "curves.png"))
    assert beside(folder) == mine | {"metrics.json": "metrics.json 2", "curves.png": "curves.png 2"}
    assert rollback(folder) == 1 and beside(folder) == mine | {"metrics.json": "metrics.json 1"}
    assert reports(folder, current(folder)) == [tmp_path / "metrics.json"]
    rollback(folder, 2)
    (tmp_path / "curves.png").unlink()  # a writer that was killed before it had copied all
    (tmp_path / ".metrics.json.a1b2").write_text("half")
    (folder / "versions" / ".new-x").mkdir()
    complete(folder)
    assert beside(folder) == mine | {"metrics.json": "metrics.json 2", "curves.png": "curves.png 2"}
    assert versions(folder) == ["000001", "000002"]
    build("sr_gnn", LOG.items, width=4).save(folder)  # has no reports
    assert beside(folder) == mine and reports(folder, current(folder)) == []


def test_a_rolled_back_fit_has_its_metrics_and_pictures_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [f"s{n // 4},i{n % 7}" for n in range(400)]
    (tmp_path / "events.csv").write_text("\n".join(["sid,iid", *rows]))
    out, (one, two) = tmp_path / "out", ("1", "2")
    command = ["fit", str(tmp_path / "events.csv"), "--session", "sid", "--item", "iid", "--system", "sr_gnn"]
    command += ["--out", str(out), "--width", "4", "--no-refit", "--epochs"]
    (tmp_path / "out").mkdir()
    (out / "old.txt").write_text("of somebody else")
    found = []
    for epochs in (one, two):
        assert main([*command, epochs]) == 0
        assert "old.txt" not in capsys.readouterr().err.split("written: ")[1]
        found.append({file.name: file.read_bytes() for file in out.iterdir() if file.is_file()})
    assert found[0]["metrics.json"] != found[1]["metrics.json"] and found[0]["epochs.csv"] != found[1]["epochs.csv"]
    assert main(["rollback", str(out)]) == 0
    assert "metrics.json" in capsys.readouterr().err.splitlines()[-1]
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == found[0]


# Two writers


HOLDER = """
import sys, time
from pathlib import Path
from graphmeta.storage.lock import locked

with locked(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of ``tmp_path / "model"``."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "model")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None and process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_refused_with_the_process_of_the_first(holder: subprocess.Popen, tmp_path: Path) -> None:
    says = rf"model: process {holder.pid} on \S+ \(since 20\S+\) writes to it; wait until it has finished"
    with pytest.raises(InputError, match=says), locked(tmp_path / "model"):
        raise AssertionError("two writers")
    holder.send_signal(signal.SIGKILL)  # the lock of a dead process is free
    holder.wait()
    with locked(tmp_path / "model"):
        assert json.loads((tmp_path / "model" / ".writer.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "model" / ".writer.json").exists()


def test_a_second_fit_into_a_folder_is_refused_before_training(
    holder: subprocess.Popen, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    frame = [f"s{n // 4},i{n % 7}" for n in range(400)]
    (tmp_path / "events.csv").write_text("\n".join(["sid,iid", *frame]))
    command = ["fit", str(tmp_path / "events.csv"), "--session", "sid", "--item", "iid", "--system", "sr_gnn"]
    assert main([*command, "--out", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"process {holder.pid}" in error and not (tmp_path / "model" / "checkpoint").exists()


def test_a_model_of_another_system_is_replaced_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    system = build("sr_gnn", LOG.items, width=4)
    system.save(tmp_path / "model")
    check_model(tmp_path, "sr_gnn", overwrite=False)
    check_model(tmp_path / "empty", "niser", overwrite=False)
    check_model(tmp_path, "niser", overwrite=True)
    command = ["fit", str(tmp_path / "none.csv"), "--item", "i", "--session", "s", "--system", "niser"]
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert "holds a model of sr_gnn; choose another --out, or pass --overwrite" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path), "--overwrite"]) == 2
    assert "none.csv" in capsys.readouterr().err  # the next check
    (current(tmp_path / "model") / "model.json").write_text("{")
    with pytest.raises(InputError, match="holds a file that is not a readable model"):
        check_model(tmp_path, "sr_gnn", overwrite=False)


def test_rollback_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "model", 1)
    save(tmp_path / "model", 2)
    assert main(["rollback", str(tmp_path)]) == 0
    assert "version 1 is current, instead of 2" in capsys.readouterr().err
    assert main(["rollback", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["rollback", str(tmp_path), "--to", "2"]) == 0 and whole_version(tmp_path / "model", read) == 2


# Interrupted


WRITER = """
import os, random, signal, sys, time
from pathlib import Path
from graphmeta.storage.versions import current, whole_version
from tests.test_versions import read, save

folder, chance = Path(sys.argv[1]), random.Random(int(sys.argv[3]))
if sys.argv[4] == "flat":
    save(folder / "made", 0)
    for file in current(folder / "made").iterdir():
        file.rename(folder / file.name)
else:
    save(folder, 0)
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        number = whole_version(folder, read)
        while True:
            number += 1
            save(folder, number)
    time.sleep(chance.uniform(0.005, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(whole_version(folder, read), flush=True)
save(folder, -1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize(
    ("kills", "kind"), [(6, "flat"), pytest.param(30, "flat", marks=pytest.mark.slow),
                        pytest.param(30, "versions", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_process_killed_while_it_writes_leaves_a_whole_version(kills: int, kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path), str(kills), str(kills), kind],
        capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = [int(line) for line in done.stdout.split()]
    assert len(numbers) == kills and numbers == sorted(numbers) and numbers[-1] > 0
    assert whole_version(tmp_path, read) == -1
    assert len(versions(tmp_path)) == 3  # what the killed left behind is removed
    assert not list(tmp_path.glob("model*")) and not list(tmp_path.glob(".current*"))
