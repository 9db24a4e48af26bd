"""The iterator over training epochs; it warns if it is dropped before the first epoch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

from graphmeta.training.run import Report


class Epochs(Iterator[Report]):
    """The reports of a training; each epoch is trained when its report is requested.

    Warns if it is dropped before the first report, because nothing was trained.
    """

    _begun = True  # until it is created

    def __init__(self, reports: Iterator[Report]) -> None:
        self._reports, self._begun = reports, False

    def __next__(self) -> Report:
        self._begun = True
        return next(self._reports)

    def __del__(self) -> None:
        if not self._begun and not sys.is_finalizing():
            warnings.warn(
                "nothing was trained: train() trains one epoch per report; iterate over it, for report in train(…), "
                "or list(train(…))",
                stacklevel=2,
            )
