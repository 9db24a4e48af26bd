"""The iterator that a training is; it warns when it is dropped before its first epoch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

from graphmeta.training.run import Report


class Epochs(Iterator[Report]):
    """The reports of a training, each epoch trained when its report is asked for.

    Warns when it is dropped before the first one, for then nothing was trained.
    """

    def __init__(self, reports: Iterator[Report]) -> None:
        self._reports, self._begun = reports, False

    def __next__(self) -> Report:
        self._begun = True
        return next(self._reports)

    def __del__(self) -> None:
        if not getattr(self, "_begun", True) and not sys.is_finalizing():
            warnings.warn(
                "nothing was trained: train() trains an epoch for each report that is asked for; iterate over it, "
                "for report in train(…), or list(train(…))",
                stacklevel=2,
            )
