"""What every row of results tells: how it was run, what was measured and what it took; and its file."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from graphmeta.evaluate import Result
from graphmeta.storage import write_json
from graphmeta.train import Report

RESULTS = Path(os.environ.get("GRAPHMETA_RESULTS", Path(__file__).parent / "results"))


def provenance(module: str) -> dict[str, str]:
    """The command, the commit it ran at and the day."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    return {"command": command, "commit": commit.stdout.strip(), "date": date.today().isoformat()}


def measured(result: Result) -> dict[str, Any]:
    """How good it is, and among what."""
    return {
        "metrics": result.metrics,
        "slices": result.slices,
        "samples": result.samples,
        "candidates": result.candidates,
        "ties": result.ties,
    }


def cost(seconds: float) -> dict[str, Any]:
    """What it took: seconds, and the peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"wall_s": round(seconds, 1), "peak_mb": round(peak / 1024)}


def told(report: Report) -> dict[str, Any]:
    """What an epoch brought."""
    return {"epoch": report.epoch, "loss": report.loss, "seconds": report.seconds, **report.valid}


def write(row: dict[str, Any], *, tag: str = "") -> None:
    """The row's file, and its metrics on the screen."""
    words = [row["dataset"], row["protocol"], row["system"], tag, f"seed{row['seed']}"]
    write_json(RESULTS / f"{'-'.join(filter(None, words))}.json", row)
    if "metrics" in row:
        print(json.dumps({"protocol": row["protocol"], "system": row["system"], **row["metrics"]}), flush=True)
