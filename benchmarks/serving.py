"""Load test of ``graphmeta serve``: clients that send adapted requests without a break, on a catalogue of 43,097 items.

    python -m benchmarks.serving --out serving.json                # all arms: load, reload, kills, batching
    python -m benchmarks.serving --arms load reload --seconds 60

The model is MAML over SR-GNN, untrained (its cost does not depend on the weights); each request is a session of its own
with Diginetica's lengths. Arms:

* ``load``: 16 clients, two worker processes of one thread.
* ``reload``: the same, and a new version of the model is written every 5 s; answers are compared with the version that
  they name.
* ``kills``: the same as ``load``, and a worker process is killed with SIGKILL every 15 s; a client repeats a request
  whose connection broke.
* ``batching``: the engine alone, without HTTP, in one process: requests per second with up to 32 queries per call over
  those with one per call, alternately four times; beside it the same per CPU second, which other processes of the
  machine do not change.

Answers are compared with serial calls of ``recommend`` on 1,000 requests: the same items in the same order (but for
scores that differ by less than 1e-5), the scores up to 1e-4.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.steps import ITEMS
from benchmarks.timing import sessions
from graphmeta.data.tables import EntityTable
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.serving import engine as serving_engine
from graphmeta.serving.counters import Counters
from graphmeta.serving.engine import Engine, Limits
from graphmeta.serving.query import Query
from graphmeta.serving.served import Served
from graphmeta.storage import write_json
from graphmeta.storage.versions import current
from graphmeta.system import System

CLIENTS, WORKERS, WIDTH, K, COMPARED = 16, 2, 64, 10, 1000
RELOAD, KILL = 5.0, 15.0  # seconds
REPEATED = 4
ARMS = ("load", "reload", "kills", "batching")


def main() -> None:
    """Run the arms and write the figures."""
    options = parser().parse_args()
    serving_engine.LINGER = options.linger
    found: dict[str, Any] = {
        "machine_load_before": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "seconds": options.seconds,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        model(0, options.items).save(folder)
        for arm in options.arms:
            found[arm] = batching(folder, options) if arm == "batching" else load_test(arm, folder, options)
            print(arm, json.dumps(found[arm]), flush=True)
            found["machine_load_after"] = os.getloadavg()[0]
            if options.out is not None:
                write_json(options.out, found)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    made.add_argument("--seconds", type=float, default=60.0)
    made.add_argument("--clients", type=int, default=CLIENTS)
    made.add_argument("--workers", type=int, default=WORKERS)
    made.add_argument("--items", type=int, default=ITEMS)
    made.add_argument("--compared", type=int, default=COMPARED)
    made.add_argument("--linger", type=float, default=serving_engine.LINGER, help="Of the engine, in batching.")
    made.add_argument("--out", type=Path)
    return made


def model(seed: int, items: int) -> System:
    """An untrained system that adapts to each session; each seed has other scores."""
    torch.manual_seed(seed)
    return build("maml", EntityTable(np.arange(items), {}), base="sr_gnn", width=WIDTH).eval()


def requests(count: int, items: int, seed: int = 0) -> list[list[int]]:
    """Random sessions."""
    samples = sessions(count, items, seed=seed)
    return [samples.item[a:b].tolist() for a, b in zip(samples.begin, samples.end, strict=True)]


class Client:
    """A client that sends one request after the other on a connection of its own."""

    def __init__(self, port: int, bodies: Sequence[list[int]]) -> None:
        self.port, self.bodies = port, bodies
        self.seconds: list[float] = []
        self.answers: list[tuple[list[int], str, list[dict[str, Any]]]] = []
        self.broken = self.refused = self.failed = 0
        self.connection: HTTPConnection | None = None

    def run(self, until: float) -> None:
        """Send requests until then."""
        at = 0
        while time.monotonic() < until:
            session = self.bodies[at % len(self.bodies)]
            at += 1
            began = time.monotonic()
            status, answer = self._sent(session, until + 30)
            self.seconds.append(time.monotonic() - began)
            if status == 200:
                self.answers.append((session, answer["version"], answer["items"]))
            else:
                self.failed += 1

    def _sent(self, session: list[int], until: float) -> tuple[int, Any]:
        """Send one request, again if the connection breaks or the server is full."""
        body = json.dumps({"session": session, "k": K})
        while time.monotonic() < until:
            try:
                self.connection = self.connection or HTTPConnection("127.0.0.1", self.port, timeout=60)
                self.connection.request("POST", "/recommend", body, {"Content-Type": "application/json"})
                response = self.connection.getresponse()
                answer = json.loads(response.read())
                if response.status != 503:
                    return response.status, answer
                self.refused += 1
                time.sleep(0.1)
            except (OSError, HTTPException):
                self.broken += 1
                self.connection = None
                time.sleep(0.05)
        return 0, None


class Server:
    """``graphmeta serve`` as a process; a context manager."""

    def __init__(self, folder: Path, workers: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "graphmeta", "serve", str(folder), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Server:
        end = time.monotonic() + 300
        while self.get("/ready") is None:
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the server did not start")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)

    def get(self, path: str) -> str | None:
        """The text of a response, None if there is none."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
            return text if response.status == 200 else None
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def workers(self) -> list[psutil.Process]:
        """The processes that have the model."""
        own, found = psutil.Process(self.process.pid), []
        for child in own.children():
            with suppress(psutil.Error):  # a process that was killed
                found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
        return found or [own]

    def megabytes(self) -> float:
        """Resident memory of the workers."""
        total = 0
        for one in self.workers():
            with suppress(psutil.Error):
                total += one.memory_info().rss
        return total / 2**20


def every(seconds: float, action: Callable[[int], None], stop: threading.Event) -> threading.Thread:
    """A thread that repeats an action until ``stop``."""

    def run() -> None:
        number = 1
        while not stop.wait(seconds):
            action(number)
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def load_test(arm: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one arm."""
    bodies, stop, killed = requests(20_000, options.items), threading.Event(), []
    systems = {str(json.loads((folder / "current.json").read_text())["current"]): load(folder)}
    per_client = [bodies[number :: options.clients] for number in range(options.clients)]
    with Server(folder, options.workers) as server:
        clients = [Client(server.port, one) for one in per_client]
        memory: list[float] = []

        def reload(number: int) -> None:
            made = model(number, options.items)
            made.save(folder)
            systems[str(int(current(folder).name))] = made

        def kill(number: int) -> None:
            workers = server.workers()
            os.kill(workers[number % len(workers)].pid, signal.SIGKILL)
            killed.append(number)

        beside = [every(1.0, lambda _: memory.append(server.megabytes()), stop)]
        beside += [every(RELOAD, reload, stop)] if arm == "reload" else []
        beside += [every(KILL, kill, stop)] if arm == "kills" else []
        began = time.monotonic()
        with ThreadPoolExecutor(options.clients) as pool:
            list(pool.map(lambda client: client.run(began + options.seconds), clients))
        took = time.monotonic() - began
        stop.set()
        for thread in beside:
            thread.join()
        metrics = server.get("/metrics") or ""
    seconds = np.array([one for client in clients for one in client.seconds])
    answers = [one for client in clients for one in client.answers]
    counted = dict(re.findall(r"^graphmeta_(\w+)_total (\d+)$", metrics, re.M))
    return {
        "requests": len(seconds),
        "requests_per_second": round(len(seconds) / took, 1),
        **{f"p{at}_ms": round(1000 * float(np.percentile(seconds, at)), 1) for at in (50, 95, 99)},
        "worker_memory_mb": round(max(memory, default=0.0)),
        "errors": sum(client.failed for client in clients),
        "broken_connections_repeated": sum(client.broken for client in clients),
        "refused_repeated": sum(client.refused for client in clients),
        "killed_workers": len(killed),
        "versions_answered": len({version for _, version, _ in answers}),
        "queries_per_call": round(int(counted.get("batched_queries", 0)) / max(1, int(counted.get("batches", 1))), 2),
        **compared(answers, systems, options.compared),
    }


def compared(answers: Sequence[Any], systems: dict[str, System], count: int) -> dict[str, Any]:
    """How many of ``count`` answers equal those of serial calls on the version that they name."""
    chosen = np.linspace(0, len(answers) - 1, min(count, len(answers))).astype(int)
    worst, same = 0.0, 0
    for at in chosen:
        session, version, items = answers[at]
        wanted = systems[version].recommend(session, K)
        scores = np.array([[one["score"], other.score] for one, other in zip(items, wanted, strict=True)])
        worst = max(worst, float(np.abs(scores[:, 0] - scores[:, 1]).max()))
        order = [one["item"] == other.item for one, other in zip(items, wanted, strict=True)]
        tied = np.abs(scores[:, 0] - scores[:, 1]) < 1e-5
        same += all(one or near for one, near in zip(order, tied, strict=True)) and worst < 1e-4
    return {"compared": len(chosen), "equal": same, "largest_difference": float(f"{worst:.2g}")}


def batching(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Requests per second of the engine, of up to 32 queries per call over one per call."""
    torch.set_num_threads(1)
    served, found, cpu, calls = Served.load(folder), {}, {}, {}
    bodies = requests(4000, options.items, seed=1)
    for size in (1, 32) * REPEATED:  # alternately; the means of both
        counters = Counters()
        with (
            Engine(served, Limits(batch=size, wait=600.0), counters) as engine,
            ThreadPoolExecutor(options.clients) as pool,
        ):
            end, done = time.monotonic() + options.seconds / (2 * REPEATED), [0] * options.clients

            def client(number: int, engine: Engine = engine, end: float = end, done: list[int] = done) -> None:
                at = number
                while time.monotonic() < end:
                    engine.recommend(Query(bodies[at % len(bodies)], K))
                    done[number] += 1
                    at += options.clients

            began, worked = time.monotonic(), time.process_time()
            list(pool.map(client, range(options.clients)))
            found.setdefault(size, []).append(sum(done) / (time.monotonic() - began))
            cpu.setdefault(size, []).append(sum(done) / (time.process_time() - worked))
            calls[size] = counters.counted("batched_queries") / max(1, counters.counted("batches"))
    ratios = [many / one for one, many in zip(found[1], found[32], strict=True)]
    one, many = (float(np.mean(found[size])) for size in (1, 32))
    return {
        "one_per_call": round(one, 1),
        "up_to_32_per_call": round(many, 1),
        "ratio": round(many / one, 2),
        "ratios": [round(one, 2) for one in ratios],
        "ratio_per_cpu_second": round(float(np.mean(cpu[32]) / np.mean(cpu[1])), 2),
        "queries_per_call": round(calls[32], 1),
        "machine_load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
