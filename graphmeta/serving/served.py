"""A loaded version of a model: answers queries together, finds items by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from graphmeta.errors import InputError
from graphmeta.published.source import ALONE, Source
from graphmeta.serving.query import Query
from graphmeta.storage.versions import identity, whole_version
from graphmeta.system import Recommendation, System

_WARM = (1, 3, 10)  # clicks of the sessions that warm a system up


@dataclass(frozen=True)
class Served:
    """A system to serve, with the name of its version and its model card (Markdown, empty if there is none)."""

    system: System
    version: str
    card: str = ""

    @classmethod
    def load(cls, folder: str | Path, source: Source = ALONE) -> Served:
        """The current version of a model folder, warmed up.

        Raises:
            InputError: no model, a damaged one, or one that cannot recommend without its log or build function, which
                the ``source`` lacks.
        """

        def read(place: Path) -> Served:
            card = place / "README.md"
            version = identity(place) if place == Path(folder) else str(int(place.name))
            return cls(source.load(place), version or "", card.read_text("utf-8") if card.is_file() else "")

        served = whole_version(folder, read)
        served.warm()
        return served

    def warm(self) -> None:
        """Recommend for a few sessions, so that the first requests find tables and memory measured."""
        ids = self.system.items.ids.tolist()
        k = min(10, len(ids) - 1)
        for clicks in _WARM:
            results = self.answer([Query(ids[:clicks], k), Query(ids[-clicks:], k)])
            failed = next((one for one in results if isinstance(one, Exception)), None)
            if failed is not None and not self._needs_user:
                raise failed

    @property
    def _needs_user(self) -> bool:
        """Whether it reads nothing but the user, so that a session alone has no answer."""
        return self.system.adaptation is None and self.system.recommender.reads_only() is not None

    def answer(self, queries: Sequence[Query]) -> list[list[Recommendation] | Exception]:
        """The recommendations of each query, or its error; those of one kind are computed (and adapted) together."""
        found: list[list[Recommendation] | Exception | None] = [None] * len(queries)
        kinds: dict[Any, list[int]] = {}
        for at, query in enumerate(queries):
            kinds.setdefault(query.kind, []).append(at)
        for places in kinds.values():
            same = [queries[at] for at in places]
            for at, result in zip(places, self._together(same), strict=True):
                found[at] = result
        return [[] if one is None else one for one in found]

    def _together(self, queries: Sequence[Query]) -> list[list[Recommendation] | Exception]:
        """Results of queries of one kind; if one of them is invalid, each half by itself."""
        if len(queries) == 1:
            return [self.alone(queries[0])]
        first = queries[0]
        try:
            results = self.system.recommend_many(
                [query.session for query in queries],
                first.k,
                users=self._given([query.user for query in queries]),
                history=self._given([query.history for query in queries]),
                times=self._given([query.times for query in queries]),
                **self._options(first),
            )
        except Exception:  # the invalid query gets its error when it is alone
            half = len(queries) // 2
            return self._together(queries[:half]) + self._together(queries[half:])
        return [result or self.alone(query) for query, result in zip(queries, results, strict=True)]

    def alone(self, query: Query) -> list[Recommendation] | Exception:
        """The result of a query by itself."""
        given: dict[str, Any] = {"user": query.user, "history": query.history}
        if self._without_history(query):
            given = {}
        try:
            return self.system.recommend(query.session, query.k, times=query.times, **given, **self._options(query))
        except Exception as error:
            return error

    def _given(self, values: list[Any]) -> list[Any] | None:
        return None if values[0] is None else values

    def _without_history(self, query: Query) -> bool:
        return not query.adapt and not self.system.adapts and self.system.reads_history

    def _options(self, query: Query) -> dict[str, Any]:
        options: dict[str, Any] = {"unknown": query.unknown, "exclude_seen": query.exclude_seen}
        options |= {name: one for name in ("among", "exclude") if (one := getattr(query, name)) is not None}
        if not query.adapt and self.system.adapts:
            options["steps"] = 0
        return options

    # Items

    @cached_property
    def names(self) -> list[str]:
        """The name of each item, in lower case."""
        items = self.system.items
        return [items.describe(row).lower() for row in range(len(items))]

    def item(self, row: int) -> tuple[Any, str]:
        """The original id and the name of an item."""
        items = self.system.items
        found = items.ids[row]
        return found.item() if isinstance(found, np.generic) else found, items.describe(row)

    def search(self, text: str, limit: int) -> list[tuple[Any, str]]:
        """Items whose names have all words of a text: first the item with this id, then the shortest names."""
        words = text.lower().split()
        if not words:
            return []
        exact = [row for row in self.system.items.rows_of(np.array([text.strip()], dtype=object)).tolist() if row >= 0]
        rows = [row for row, name in enumerate(self.names) if all(word in name for word in words)]
        rows.sort(key=lambda row: (len(self.names[row]), row))
        return [self.item(row) for row in dict.fromkeys([*exact, *rows][: limit + 1])][:limit]

    def knows_user(self, user: Any) -> bool | None:
        """Whether the system has something of this user; None if it reads no users."""
        tables = [self.system.users, None if self.system.histories is None else self.system.histories.users]
        found = [table.rows_of(np.array([user], dtype=object))[0] >= 0 for table in tables if table is not None]
        return any(found) if found else None

    def unknown(self, session: Sequence[Any]) -> list[Any]:
        """The items of a session that are unknown to the system."""
        rows = self.system.items.rows_of(np.array(session, dtype=object))
        return [one for one, row in zip(session, rows.tolist(), strict=True) if row < 0]

    def named(self, item: Any) -> tuple[Any, str]:
        """The id of an item as the table has it, and its name.

        Raises:
            InputError: an unknown item.
        """
        row = int(self.system.items.rows_of(np.array([item], dtype=object))[0])
        if row < 0:
            raise InputError(f"item {item!r} is not known to this model; GET /items?query= finds items by name")
        return self.item(row)

    def explain(self, query: Query, item: Any) -> dict[str, Any]:
        """The parts of an item's score, see :class:`~graphmeta.inference.explain.Explanation`."""
        given: dict[str, Any] = {"user": query.user}
        if query.history is not None:
            given["history"] = query.history
        found = asdict(self.system.explain(query.session, item, times=query.times, unknown=query.unknown, **given))
        return found
