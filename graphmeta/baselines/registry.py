"""Registry of baselines: ``@baseline(name, …)`` decorates their classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


@dataclass(frozen=True)
class Baseline:
    """A baseline, its source, and the class that is fitted on a log."""

    name: str
    paper: str
    equations: str
    fit: Callable[..., Any]


MOST_USERS = 20_000  # for tifu_knn and up_cf beside other systems: their cost grows with users × queries
BASELINES: dict[str, Baseline] = {}  # filled by the decorator


def baseline(name: str, paper: str = "-", *, equations: str = "-") -> Callable[[Class], Class]:
    """List the class as a baseline of this name, with its source."""

    def register(kind: Class) -> Class:
        BASELINES[name] = Baseline(name, paper, equations, kind)
        return kind

    return register
