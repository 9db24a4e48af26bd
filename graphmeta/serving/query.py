"""One request for recommendations, and its answer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphmeta.system import Recommendation

if TYPE_CHECKING:
    from graphmeta.serving.served import Served


@dataclass(frozen=True)
class Query:
    """The arguments of :meth:`System.recommend <graphmeta.system.System.recommend>`.

    Args:
        adapt: whether the system adapts to the session, the user and the history; without, a system that reads users'
            earlier sessions reads none.
        among, exclude: filters by item ids, or by values of columns of the item table.
    """

    session: Sequence[Any]
    k: int = 10
    user: Any = None
    history: Sequence[Sequence[Any]] | None = None
    times: Sequence[float] | None = None
    unknown: str = "ignore"
    exclude_seen: bool = False
    adapt: bool = True
    among: Sequence[Any] | Mapping[str, Any] | None = None
    exclude: Sequence[Any] | Mapping[str, Any] | None = None

    @property
    def kind(self) -> Hashable:
        """Equal for queries that one call can take together."""
        given = (self.user is None, self.history is None, self.times is None)
        return (self.k, self.unknown, self.exclude_seen, self.adapt, repr(self.among), repr(self.exclude), given)


@dataclass(frozen=True)
class Answer:
    """Recommendations, and the model that gave them."""

    items: list[Recommendation]
    model: Served

    @property
    def version(self) -> str:
        """The version of the model."""
        return self.model.version
