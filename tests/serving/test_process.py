"""``graphmeta serve`` as a process: it stops in order, replaces workers that die, and logs nothing of a request."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving.models import SESSIONS, trained
from tests.serving.test_engine import until

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef-token"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GRAPHMETA_TOKEN": TOKEN}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of a response; status 0 if the connection broke."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read().decode()
            return response.status, json.loads(text) if text.startswith("{") else text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
    except OSError:
        return 0, None


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen, Path]]:
    """A server of a model folder, once it is ready: its port, process and log."""
    port, log = free_port(), folder / "server.log"
    command = [sys.executable, "-m", "graphmeta", "serve", str(folder), "--port", str(port), *options]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=ENVIRONMENT, cwd=ROOT)
    try:
        end = time.monotonic() + 120
        while ask(port, "/ready")[0] != 200:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield port, process, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
def test_requests_in_flight_are_answered_before_the_process_ends(tmp_path: Path) -> None:
    trained("maml").save(tmp_path)
    results = []
    with serving(tmp_path) as (port, process, log):
        batch = {"batch": [{"session": one} for one in SESSIONS[:50]] * 2, "k": 5}
        threads = [threading.Thread(target=lambda: results.append(ask(port, "/recommend", batch))) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(60) in (0, -signal.SIGTERM)
    assert [status for status, _ in results] == [200, 200]
    for found in results:
        for session, one in zip(SESSIONS, found[1]["results"][:50], strict=False):
            wanted = trained("maml").recommend(session, 5)
            assert [item["item"] for item in one["items"]] == [item.item for item in wanted]
    text = log.read_text()
    assert "POST recommend 200" in text and TOKEN not in text and not re.search(r"\bi\d+\b", text)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_counters_are_of_all(tmp_path: Path) -> None:
    trained("sr_gnn", 1).save(tmp_path)
    with serving(tmp_path, "--workers", "2", "--reload-seconds", "0.1") as (port, process, log):

        def workers() -> set[int]:
            """Process ids in the log."""
            return {int(one) for one in re.findall(r"^\S+ \S+ (\d+) INFO", log.read_text(), re.M)} - {process.pid}

        for number in range(60):
            assert ask(port, "/recommend", {"session": SESSIONS[number % 20], "k": 5})[0] == 200
        seen = workers()
        assert 'endpoint="recommend",code="200"} 60' in ask(port, "/metrics")[1]
        os.kill(min(seen), signal.SIGKILL)
        found = [ask(port, "/recommend", {"session": SESSIONS[0], "k": 5})[0] for _ in range(40)]
        assert found.count(200) >= 35 and set(found) <= {0, 200, 503}
        until(lambda: (ask(port, "/health"), len(workers() - seen) > 0)[1], 120)
        trained("sr_gnn", 2).save(tmp_path)
        until(lambda: ask(port, "/recommend", {"session": SESSIONS[0], "k": 5})[1]["version"] == "2", 120)
        session = SESSIONS[3]
        until(lambda: [ask(port, "/ready")[1]["version"] for _ in range(10)] == ["2"] * 10, 120)
        answer = ask(port, "/recommend", {"session": session, "k": 5})[1]
        wanted = trained("sr_gnn", 2).recommend(session, 5)
        assert [one["item"] for one in answer["items"]] == [one.item for one in wanted]
    assert process.poll() is not None
