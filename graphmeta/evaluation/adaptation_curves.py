"""Adaptation curves: what a trained system's answers gain by another step, or by another click to learn from.

Both ask the same weights the same queries again and again; nothing is trained, and nothing is set in the system.
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
    """Results by a number of steps or of support samples; ``own`` is the number that the system itself has."""

    results: dict[int, Result]
    own: int

    def values(self, metric: str) -> dict[int, float]:
        """One metric of each result, as a fraction."""
        return {number: result.metrics[metric] for number, result in self.results.items()}


def by_steps(
    system: System, samples: EventLog | Samples, *, steps: Iterable[int] = range(6), ks: tuple[int, ...] = (5, 10, 20)
) -> Curve:
    """How well the system answers after 0, 1, 2 … steps on each session's own clicks: :func:`evaluate` at each.

    0 steps is the start itself, which for a gated or generated start is not the shared weights.

    Args:
        samples: as :func:`~graphmeta.evaluation.ranking.evaluate` takes them.
        steps: at least 0 each; also more than the system was trained with, unless each step has rates of its own.

    Raises:
        InputError: a system that does not adapt, a negative number, one that no rates were learned for, or tasks.
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
    """How well the system answers when its steps see only the last 0, 1, 2 … clicks of a session as targets.

    The session itself stays as it is: the encoder still reads all its clicks, the steps learn from fewer of them. A
    session of n known clicks has ``n − 1`` such targets at most (n where the first is one too, as in MetaCF), so its
    answer stays the same from there on.

    Args:
        samples: as :func:`~graphmeta.evaluation.ranking.evaluate` takes them.
        support: how many support samples a task may have (``System.max_support``), at least 0 each.

    Raises:
        InputError: a system that does not adapt, a negative number, or tasks, whose support is given.
    """
    _adaptation(system)
    numbers = _numbers(support, "support samples")
    return _curve(system.max_support, numbers, lambda n: evaluate(system, samples, ks=ks, max_support=n))


def _curve(own: int, numbers: list[int], measured: Callable[[int], Result]) -> Curve:
    """The result at each number; the largest first, so that one too large is refused at once."""
    found = {number: measured(number) for number in sorted(set(numbers), reverse=True)}
    return Curve({number: found[number] for number in numbers}, own)


def _adaptation(system: System) -> Adaptation:
    if system.adaptation is None:
        raise InputError("this system does not adapt, so it has no curve; evaluate it, or give it an adaptation")
    return system.adaptation


def _numbers(wanted: Iterable[int], what: str) -> list[int]:
    numbers = list(wanted)
    if not numbers or not all(isinstance(number, Integral) and number >= 0 for number in numbers):
        raise InputError(f"a curve needs whole numbers of {what} that are not negative, not {numbers}")
    return numbers
