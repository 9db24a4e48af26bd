"""Result: the metrics of an evaluation, over all samples and over slices."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor

from graphmeta.errors import counted
from graphmeta.evaluation.metrics import Ranks


@dataclass(frozen=True)
class LeftOut:
    """Clicks of a log on items unknown to the model, and sessions without two clicks on known items."""

    clicks: int = 0
    sessions: int = 0

    def __str__(self) -> str:
        sessions = counted(self.sessions, "session")
        return f"left out: {counted(self.clicks, 'click')} on unknown items, {sessions} without two known clicks"


@dataclass(frozen=True)
class Result:
    """Metrics as fractions, with candidates, tie rule and number of samples; prints as a table.

    ``slices["context length"]["1"]`` holds the same metrics and the number of the samples with one observed click;
    ``positions`` are the ranks of the targets with their ties, in the order of the samples. ``left_out`` counts what of
    a log could not be evaluated.
    """

    metrics: dict[str, float]
    slices: dict[str, dict[str, dict[str, float]]]
    samples: int
    candidates: int
    seconds: float
    positions: Ranks = field(repr=False)
    ties: str = "expected values over random order"
    left_out: LeftOut = LeftOut()

    @property
    def ranks(self) -> Tensor:
        """The expected rank of each target, ``[S]``: that of ties is half-way."""
        return self.positions.mean

    def to_frame(self) -> pd.DataFrame:
        """One row for all samples and one for each slice; columns ``samples`` and the metrics, as fractions."""
        rows: dict[str, dict[str, float]] = {"all": {"samples": self.samples, **self.metrics}}
        rows |= {f"{name} {value}": found for name, part in self.slices.items() for value, found in part.items()}
        frame = pd.DataFrame.from_dict(rows, orient="index")
        return frame.astype({"samples": "int64"})

    def __str__(self) -> str:
        head = f"{counted(self.samples, 'sample')}, each target ranked among {counted(self.candidates, 'item')}"
        head += f"; {self.left_out}" if any(vars(self.left_out).values()) else ""
        return f"{head}\n{self.to_frame().to_string(float_format='{:.4f}'.format, na_rep='-')}"
