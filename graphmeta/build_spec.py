"""Build spec: how a system was built, as data that can be stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

# 1 had no users, 2 no max_support and max_length; 3 to 5 had other names, see graphmeta.published.load.
FORMAT = 6


class Limits(TypedDict, total=False):
    """Limits of a system's input: support samples per task, clicks per session."""

    max_support: int
    max_length: int


LIMITS = tuple(Limits.__annotations__)


@dataclass(frozen=True)
class BuildSpec:
    """How a system was built, to rebuild it: a function of :mod:`graphmeta.published.catalogue` and its arguments.

    ``arguments`` holds every argument but items and users, defaults included, as JSON values.
    """

    family: str
    name: str
    arguments: dict[str, Any]
