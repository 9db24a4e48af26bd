"""The reports of all epochs of a training, as JSON and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graphmeta.storage import write_bytes
from graphmeta.training.run import Report


def as_json(histories: Mapping[str, Sequence[Report]]) -> dict[str, list[dict[str, Any]]]:
    """The reports by training as JSON values, without the seconds, so that the same training gives the same file."""
    return {
        name: [{key: value for key, value in asdict(report).items() if key != "seconds"} for report in reports]
        for name, reports in histories.items()
    }


def write_epochs(histories: Mapping[str, Sequence[Report]], folder: Path) -> None:
    """Write ``epochs.csv``: a row per epoch with training, epoch (from 1), loss, seconds, best and the validation
    metrics.
    """
    metrics = list(dict.fromkeys(name for reports in histories.values() for one in reports for name in one.valid))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["training", "epoch", "loss", "seconds", "best", *metrics])
    for name, reports in histories.items():
        for one in reports:
            found = [one.valid.get(metric, "") for metric in metrics]
            rows.writerow([name, one.epoch + 1, one.loss, round(one.seconds, 3), int(one.best), *found])
    write_bytes(folder / "epochs.csv", text.getvalue().encode())
