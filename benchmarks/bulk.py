"""Memory and speed of ``graphmeta recommend --in`` on a catalogue of 43,097 items, and a run that is killed.

    python -m benchmarks.bulk --out bulk.json          # 200,000 sessions
    python -m benchmarks.bulk --sessions 2000          # to try it

The model is SR-GNN, untrained (its cost does not depend on the weights); sessions have Diginetica's lengths. Memory is
the largest resident set of the process, and that of a process that loads the same model and recommends for one session.
The second run is killed with SIGKILL in the middle and started again; its file must equal that of the first, byte by
byte, with every session once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.steps import ITEMS
from benchmarks.timing import sessions
from graphmeta.data.tables import EntityTable
from graphmeta.inference.read_back import read_recommendations
from graphmeta.published.catalogue import build
from graphmeta.storage import write_json

WIDTH, K, KILLED_AT = 64, 10, 0.5  # of the time of the first run


def main() -> None:
    """Run all, and write the figures."""
    options = parser().parse_args()
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        found = measured(Path(place), options)
    print(json.dumps(found), flush=True)
    if options.out is not None:
        write_json(options.out, found)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--sessions", type=int, default=200_000)
    made.add_argument("--items", type=int, default=ITEMS)
    made.add_argument("--system", default="sr_gnn")
    made.add_argument("--format", default="parquet", choices=("csv", "jsonl", "parquet"))
    made.add_argument("--place", type=Path, help="Where the temporary folder is made.")
    made.add_argument("--out", type=Path)
    return made


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    torch.manual_seed(0)
    build(options.system, EntityTable(np.arange(options.items), {}), width=WIDTH).eval().save(folder / "model")
    clicks = write_sessions(folder / "in.csv", options)
    model, whole, again = (folder / name for name in ("model", f"whole.{options.format}", f"again.{options.format}"))
    alone = ended(started([str(model), "--session", "1,2,3"]))
    began = time.monotonic()
    used = ended(started(arguments_for(folder, whole)))
    seconds = time.monotonic() - began
    process = started(arguments_for(folder, again))
    time.sleep(KILLED_AT * seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = len(list(again.with_name(f"{again.name}.parts").glob("part-*.json")))
    ended(started(arguments_for(folder, again)))
    rows = read_recommendations(whole)
    each = rows.groupby("session", sort=False).size()
    return {
        "sessions": options.sessions,
        "clicks": clicks,
        "items": options.items,
        "system": options.system,
        "seconds": round(seconds, 1),
        "sessions_per_second": round(options.sessions / seconds, 1),
        "sessions_per_cpu_second": round(options.sessions / (used.ru_utime + used.ru_stime), 1),
        "model_mb": round(alone.ru_maxrss / 1024),
        "mb_above_model": round((used.ru_maxrss - alone.ru_maxrss) / 1024),
        "every_session_once": len(each) == options.sessions and bool((each == K).all()),
        "parts_before_the_kill": left,
        "resumed_file_equal": whole.read_bytes() == again.read_bytes(),
        "machine_load": os.getloadavg()[0],
    }


def write_sessions(path: Path, options: argparse.Namespace) -> int:
    """Write a file of sessions; the number of their clicks."""
    samples, clicks = sessions(options.sessions, options.items), 0
    with path.open("w") as file:
        file.write("visit,sku\n")
        for number, (begin, end) in enumerate(zip(samples.begin, samples.end, strict=True)):
            file.writelines(f"{number},{item}\n" for item in samples.item[begin:end])
            clicks += end - begin
    return int(clicks)


def arguments_for(folder: Path, out: Path) -> list[str]:
    """The arguments of ``recommend`` for the file of sessions."""
    columns = ["--session-column", "visit", "--item-column", "sku", "-k", str(K)]
    return [str(folder / "model"), "--in", str(folder / "in.csv"), "--out", str(out), *columns]


def started(arguments: list[str]) -> subprocess.Popen[bytes]:
    """``graphmeta recommend`` as a process."""
    command = [sys.executable, "-m", "graphmeta", "recommend", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})


def ended(process: subprocess.Popen[bytes]) -> Any:
    """What a process has used, once it has ended well."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{process.args}: ended with {process.returncode}")
    return used


if __name__ == "__main__":
    main()
