"""Memory of an adaptation: task-specific weights by a formula, saved activations by measurement."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.adapt.twin import Twin
from graphmeta.errors import counted
from graphmeta.recommender import Recommender
from graphmeta.sampling.tasks import TaskBatch, TaskSizes

if TYPE_CHECKING:
    from graphmeta.adapt.adaptation import Adaptation

MIB = 2**20  # bytes
BUDGET = 256 * MIB  # in training
SCORING_BUDGET = 48 * MIB  # [S, C] scores are stored beside it


class Activations(NamedTuple):
    """Measured bytes of saved activations: ``each`` for one row of a task, of tasks of up to ``rows`` padded rows, and
    ``fixed`` for any number of tasks (such as the normalised item table).
    """

    rows: int
    each: float
    fixed: float


class _SavedTensor:
    """A tensor saved for the backward pass; counted until it is released."""

    def __init__(self, tensor: Tensor, counter: Counter) -> None:
        self.tensor, self.counter = tensor, counter
        self.key, self.size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        counter.add(self.key, self.size)

    def __del__(self) -> None:
        self.counter.remove(self.key, self.size)


class Counter:
    """Bytes of saved tensors (each storage counted once), and their peak."""

    def __init__(self, own: frozenset[int]) -> None:
        self.peak, self._live, self._own = 0, 0, own
        self._times: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, key: int, size: int) -> None:
        """Count one more use of the storage at ``key``."""
        with self._lock:
            self._times[key] = self._times.get(key, 0) + 1
            if self._times[key] == 1:
                self._live += size
                self.peak = max(self.peak, self._live)

    def remove(self, key: int, size: int) -> None:
        """Count one use of the storage at ``key`` less."""
        with self._lock:
            self._times[key] -= 1
            if not self._times[key]:
                del self._times[key]
                self._live -= size

    def pack(self, tensor: Tensor) -> Tensor | _SavedTensor:
        """The saved form of a tensor; parameters are not counted."""
        not_counted = tensor.layout != torch.strided or tensor.untyped_storage().data_ptr() in self._own
        return tensor if not_counted else _SavedTensor(tensor, self)

    @staticmethod
    def unpack(saved: Tensor | _SavedTensor) -> Tensor:
        """The saved tensor."""
        return saved.tensor if isinstance(saved, _SavedTensor) else saved


@contextmanager
def counting(own: frozenset[int]) -> Iterator[Counter]:
    """Context manager that counts the tensors saved by autograd.

    Args:
        own: addresses of memory that is not counted (the parameters).
    """
    counter = Counter(own)
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, counter.unpack):
        yield counter


def split_by_cost(costs: np.ndarray, budget: float = BUDGET) -> list[slice]:
    """Split tasks, in order, into few chunks within the budget; a chunk costs its size times its most expensive task.

    >>> split_by_cost(np.array([1, 1, 1, 4, 1]), budget=4)
    [slice(0, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    runs, at = [], 0
    while at < len(costs):
        largest = np.maximum.accumulate(costs[at:])
        size = max(1, int(np.searchsorted(largest * np.arange(1, len(largest) + 1), budget, side="right")))
        runs.append(slice(at, at + size))
        at += size
    return runs


def measure(
    adaptation: Adaptation,
    recommender: Recommender,
    tasks: Sequence[TaskBatch],
    loss: nn.Module,
    rows: int,
    *,
    score: bool = False,
) -> None:
    """Measure the saved activations of tasks of at most ``rows`` padded rows each, for :func:`chunks`.

    Runs them once on twins with a forked random state; nothing else is modified.

    Args:
        tasks: one task, and two, if there are as many: what both need is fixed.
    """
    sizes = [_measured(adaptation, recommender, each, loss, score=score) for each in tasks]
    each = sizes[0] if len(sizes) == 1 else max(sizes[1] - sizes[0], 0)
    found = Activations(rows, each / max(rows, 1), max(sizes[0] - each, 0))
    adaptation.activations[adaptation.mode(recommender, score)] = found


def _measured(
    adaptation: Adaptation, recommender: Recommender, tasks: TaskBatch, loss: nn.Module, *, score: bool
) -> int:
    """The most bytes that autograd keeps, and those of the answers."""
    own = Twin(recommender)
    model = own.module
    twin: Any = Twin(adaptation).module
    assert isinstance(model, Recommender)
    for part in model.modules() if model.training else ():  # buffers of the original are not written
        part._buffers.update({name: None if b is None else b.clone() for name, b in part._buffers.items()})
    # Scoring uses no random numbers, and must not fork the random state of a concurrent training.
    with (
        torch.random.fork_rng(devices=[]) if model.training else nullcontext(),
        counting(frozenset(own.memory)) as counter,
    ):
        most = adaptation.inner.peak_memory_progress
        answers = twin.run(model, tasks, loss, score=score, progress=most)
    return counter.peak + answers.numel() * answers.element_size()


def chunks(adaptation: Adaptation, recommender: Recommender, sizes: TaskSizes, *, score: bool = False) -> list[slice]:
    """Split tasks of these sizes, in order, into chunks that are adapted at once.

    The weights of a chunk (:meth:`Adaptation.memory <graphmeta.adapt.adaptation.Adaptation.memory>`), its saved
    activations and padding need at most 256 MiB (48 MiB in scoring), unless it is a single task. What does not grow
    with the tasks takes at most half of it, since a smaller chunk needs it too.
    """
    if adaptation.task_chunk is not None:
        return [slice(at, at + adaptation.task_chunk) for at in range(0, len(sizes), adaptation.task_chunk)]
    whole = SCORING_BUDGET if score else BUDGET
    budget = max(whole - _known(adaptation, recommender, score).fixed, whole / 2)
    return split_by_cost(_costs(adaptation, recommender, sizes, score), budget)


def needs_measuring(adaptation: Adaptation, recommender: Recommender, rows: int, *, score: bool = False) -> bool:
    """Whether tasks of at least half as many padded rows have not been measured yet."""
    known = adaptation.activations.get(adaptation.mode(recommender, score))
    return adaptation.task_chunk is None and (known is None or rows > 2 * known.rows)


def _known(adaptation: Adaptation, recommender: Recommender, score: bool) -> Activations:
    return adaptation.activations.get(adaptation.mode(recommender, score), Activations(0, 0.0, 0.0))


def _costs(adaptation: Adaptation, recommender: Recommender, sizes: TaskSizes, score: bool) -> np.ndarray:
    """Bytes of each task ``[T]``, without what is fixed."""
    each = _known(adaptation, recommender, score).each
    most, place = np.unique(sizes.support, return_inverse=True)
    own = np.array([adaptation.memory(1, int(support)) for support in most], dtype=np.float64)[place]
    return own + each * sizes.rows


def estimate(adaptation: Adaptation, recommender: Recommender, sizes: TaskSizes, tasks: int) -> str:
    """A text with memory, tasks at a time, steps and adapted parameters for batches of the largest tasks."""
    largest = TaskSizes(*(np.repeat(part.max(), tasks) for part in (sizes.support, sizes.rows)))
    at_once = chunks(adaptation, recommender, largest)[0].stop
    support, (parameters, rows) = int(largest.support[0]), adaptation.sizes
    known = _known(adaptation, recommender, False)
    size = (known.fixed + at_once * _costs(adaptation, recommender, largest, False)[0]) / MIB
    measured = "" if adaptation.mode(recommender, False) in adaptation.activations else ", without activations"
    steps, changed = counted(adaptation.steps, "step"), counted(parameters, "adapted parameter")
    tables = f", {counted(rows, 'embedding row')}" if rows else ""
    return (
        f"adaptation memory: about {size:,.1f} MiB{measured} for {counted(min(tasks, at_once), 'task')} at a time "
        f"({steps}, {changed}{tables}, up to {counted(support, 'support sample')} per task)"
    )
