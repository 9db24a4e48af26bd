"""Training state: reports, the best weights, checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphmeta.distributed.first import on_first
from graphmeta.distributed.group import current
from graphmeta.distributed.rows import RowRange
from graphmeta.errors import InputError
from graphmeta.nn.features.sharded import row_ranges
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks
from graphmeta.storage import load_state, save_state
from graphmeta.system import System

ERRORS = ("mae", "rmse", "mse")  # metrics for which lower is better


@dataclass(frozen=True)
class Report:
    """Results of an epoch: mean training loss, seconds, validation metrics, and whether it is the best so far.

    ``metric`` is the validation metric that the best epoch is chosen by; None without validation.
    """

    epoch: int
    loss: float
    seconds: float
    valid: dict[str, float]
    best: bool
    metric: str | None = None

    def __str__(self) -> str:
        """One line; epochs are counted from 1, and metrics have the list length of the one that chooses the epoch.

        >>> print(Report(0, 3.6873, 0.14, {"hit@5": 0.2, "hit@20": 0.55, "mrr@20": 0.116}, True, "mrr@20"))
        epoch 1   loss 3.6873   validation hit@20 0.5500, mrr@20 0.1160   0.1 s   best so far
        """
        length = (self.metric or "").partition("@")[2]
        shown = [f"{name} {value:.4f}" for name, value in self.valid.items() if name.partition("@")[2] == length]
        valid = [f"validation {', '.join(shown)}"] if shown else []
        best = ["best so far"] if self.best and self.valid else []
        return "   ".join([f"epoch {self.epoch + 1}", f"loss {self.loss:.4f}", *valid, f"{self.seconds:.1f} s", *best])


@dataclass(frozen=True)
class Checkpoint:
    """Folder in which training is saved after each epoch; ``resume`` continues from it, bit for bit."""

    folder: Path
    resume: bool = False


class Run:
    """The state of a training, as saved in a checkpoint, and its best epoch."""

    def __init__(self, system: System, optimizer: torch.optim.Optimizer, setting: dict[str, Any]) -> None:
        self.system, self.optimizer, self.setting = system, optimizer, setting
        self.ranges = row_ranges(system)  # of the weights that are divided over ranks
        self.history: list[Report] = []
        self.best: dict[str, Tensor] | None = None

    def is_best(self, scores: dict[str, float], metric: str | None) -> bool:
        """Whether this validation metric is the best so far (always true without validation)."""
        sign = -1 if metric in ERRORS else 1
        return metric is None or all(sign * scores[metric] > sign * one.valid[metric] for one in self.history)

    def since_best(self) -> int:
        """Epochs since the best one."""
        return next((count for count, report in enumerate(reversed(self.history)) if report.best), 0)

    def note(self, report: Report) -> None:
        """Add a report, and store the weights if it is the best."""
        self.history.append(report)
        if report.best:
            self.best = {name: tensor.clone() for name, tensor in self.system.state_dict().items()}

    def restore_best(self) -> None:
        """Load the weights of the best epoch."""
        if self.best is not None:
            self.system.load_state_dict(self.best)

    def save(self, folder: Path) -> None:
        """Write the complete training state, on rank 0; it does not depend on the number of ranks."""
        tensors = {}
        for key, tensor, rows in self._stored():
            whole = tensor if rows is None or not rows.is_part(tensor) else rows.group.gather(tensor)
            if current().rank == 0:
                tensors[key] = whole
        document = {"setting": self.setting, "history": [asdict(report) for report in self.history]}
        on_first(lambda: save_state(folder, "training", tensors, document))

    def load(self, folder: Path) -> None:
        """Load what :meth:`save` wrote; without a checkpoint, start from the beginning."""
        if not (folder / "training.json").is_file():
            return
        tensors, document = load_state(folder, "training")
        if document["setting"] != self.setting:
            changed = sorted(k for k in self.setting if document["setting"].get(k) != self.setting[k])
            raise InputError(
                f"{folder}: a checkpoint of another training (different: {', '.join(changed)}); drop --resume or "
                f"use its settings"
            )
        groups: dict[str, dict[str, Tensor]] = {"weight": {}, "best": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            group, name = key.split("/", 1)
            groups[group][name] = tensor
        self.system.load_state_dict({n: self._own(tensor, n) for n, tensor in groups["weight"].items()})
        self.best = {n: self._own(tensor, n) for n, tensor in groups["best"].items()} or None
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in groups["optimizer"].items():
            number, name = key.split("/")
            state.setdefault(int(number), {})[name] = self._own(tensor, self._trained()[int(number)])
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.history = [Report(**report) for report in document["history"]]

    def _trained(self) -> list[str]:
        """The names of the optimizer's parameters, by its numbers."""
        names = {id(weight): name for name, weight in self.system.named_parameters()}
        return [names[id(weight)] for group in self.optimizer.param_groups for weight in group["params"]]

    def _stored(self) -> Iterator[tuple[str, Tensor, RowRange | None]]:
        """What a checkpoint holds: keys, tensors, and the rows that this rank has of them."""
        for kind, state in (("weight", self.system.state_dict()), ("best", self.best or {})):
            for name, tensor in state.items():
                yield f"{kind}/{name}", tensor, self.ranges.get(name)
        trained = self._trained() if self.ranges else []
        for number, state in self.optimizer.state_dict()["state"].items():
            rows = self.ranges.get(trained[number]) if trained else None
            for name, value in state.items():
                if value is not None:
                    yield f"optimizer/{number}/{name}", torch.as_tensor(value), rows

    def _own(self, tensor: Tensor, name: str) -> Tensor:
        """What this rank holds of a stored tensor that belongs to the parameter of this name."""
        rows = self.ranges.get(name)
        return rows.own(tensor) if rows is not None and tensor.dim() and len(tensor) == rows.total else tensor


def digest(samples: Samples | Tasks) -> str:
    """A hash over the samples, including times, users and values."""
    digest = hashlib.sha256()
    for part in (samples.support, samples.query) if samples.has_given_support else (samples.query,):
        for column in (part.item, part.begin, part.end, part.target, part.time, part.user, part.value):
            digest.update(b"-" if column is None else column.tobytes())
    return digest.hexdigest()[:16]
