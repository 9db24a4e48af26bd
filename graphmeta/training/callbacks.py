"""Callbacks: what a training reports to, epoch by epoch, such as TensorBoard, MLflow or Weights & Biases."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from graphmeta.protocols.members import ReadsMembers
from graphmeta.training.run import Report


@runtime_checkable
class Callback(Protocol, metaclass=ReadsMembers):
    """Gets the report of every epoch, as it is finished; ``examples/callbacks.py`` has three.

    >>> class Losses:
    ...     def __init__(self):
    ...         self.found = []
    ...     def on_epoch(self, training, report):
    ...         self.found.append((training, round(report.loss, 2)))
    >>> isinstance(Losses(), Callback)
    True
    """

    def on_epoch(self, training: str, report: Report) -> None:
        """Called after each epoch; a resumed training first reports its finished epochs again.

        Args:
            training: which training of the plan it is: the system's name, or ``"niser (base)"`` for that of its base.
        """
        ...


def scalars(report: Report) -> dict[str, float]:
    """The numbers of a report by flat names: ``loss``, ``seconds`` and the validation metrics, ``valid_mrr_20``.

    >>> scalars(Report(0, 1.5, 2.0, {"mrr@20": 0.1}, best=True))
    {'loss': 1.5, 'seconds': 2.0, 'valid_mrr_20': 0.1}
    """
    valid = {f"valid_{name.replace('@', '_')}": value for name, value in report.valid.items()}
    return {"loss": report.loss, "seconds": report.seconds, **valid}
