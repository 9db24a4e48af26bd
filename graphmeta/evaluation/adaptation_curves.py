"""Adaptation curves: metrics of a trained system by the number of inner steps, or of support samples.

Weights and queries are the same for all numbers; nothing is trained, and the system is not modified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import Result, evaluate
from graphmeta.sampling.samples import Samples
from graphmeta.system import System


@dataclass(frozen=True)
class Curve:
    """Results by the number of steps or of support samples; ``own`` is the system's default."""

    results: dict[int, Result]
    own: int

    def values(self, metric: str) -> dict[int, float]:
        """One metric of each result, as a fraction."""
        return {number: result.metrics[metric] for number, result in self.results.items()}


def by_steps(
    system: System, samples: EventLog | Samples, *, steps: Iterable[int] = range(6), ks: tuple[int, ...] = (5, 10, 20)
) -> Curve:
    """Results after 0, 1, 2 … steps on each session's own clicks: :func:`evaluate` with each number of steps.

    0 steps evaluates the start itself, which for a gated or generated start is not the shared weights.

    Args:
        samples: as :func:`~graphmeta.evaluation.ranking.evaluate` takes them.
        steps: at least 0 each; may exceed the number in training, unless rates are learned per step.

    Raises:
        InputError: a system that does not adapt, a negative number, a step without a learned rate, or tasks.
    """
    own = _adaptation(system).steps
    return _curve(own, _numbers(steps, "steps"), lambda number: evaluate(system, samples, ks=ks, steps=number))


def by_support(
    system: System,
    samples: EventLog | Samples,
    *,
    support: Iterable[int] = range(11),
    ks: tuple[int, ...] = (5, 10, 20),
) -> Curve:
    """Results when only the last 0, 1, 2 … clicks of a session are support targets.

    The context is unchanged: the encoder still reads all clicks. A session with context length n has at most ``n − 1``
    support targets (n where the first click is one too, as in MetaCF), so larger numbers give the same result.

    Args:
        samples: as :func:`~graphmeta.evaluation.ranking.evaluate` takes them.
        support: the largest number of support samples per task (``System.max_support``), at least 0 each.

    Raises:
        InputError: a system that does not adapt, a negative number, or tasks, whose support is given.
    """
    _adaptation(system)
    numbers = _numbers(support, "support samples")
    return _curve(system.max_support, numbers, lambda n: evaluate(system, samples, ks=ks, max_support=n))


def _curve(own: int, numbers: list[int], measured: Callable[[int], Result]) -> Curve:
    """The result for each number; the largest is evaluated first, so that an invalid one raises at once."""
    found = {number: measured(number) for number in sorted(set(numbers), reverse=True)}
    return Curve({number: found[number] for number in numbers}, own)


def _adaptation(system: System) -> Adaptation:
    if system.adaptation is None:
        raise InputError(
            "this system does not adapt, so it has no adaptation curve; call evaluate(), or build it with an adaptation"
        )
    return system.adaptation


def _numbers(wanted: Iterable[int], what: str) -> list[int]:
    numbers = list(wanted)
    if not numbers or not all(isinstance(number, Integral) and number >= 0 for number in numbers):
        raise InputError(f"numbers of {what} must be whole and not negative, not {numbers}")
    return numbers
