"""Every system of the library in one table: the catalogue, the cross-domain family and the baselines."""

from __future__ import annotations

from dataclasses import asdict, fields

import pandas as pd

from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.names import Row, check_name, others


class Systems(tuple[Row, ...]):
    """Rows of systems; prints as a table."""

    def to_frame(self) -> pd.DataFrame:
        """One row per system, columns as the fields of a row."""
        return pd.DataFrame([asdict(row) for row in self], columns=[field.name for field in fields(Row)])

    def __contains__(self, key: object) -> bool:
        """Whether it has a system of this name, or this row."""
        return any(row.name == key for row in self) if isinstance(key, str) else super().__contains__(key)

    def __getitem__(self, key):  # noqa: ANN001, ANN204
        """The row of a name or a number; a slice is again a table."""
        if isinstance(key, str):
            check_name(key, [row.name for row in self])
            return next(row for row in self if row.name == key)
        found = super().__getitem__(key)
        return Systems(found) if isinstance(key, slice) else found

    def __repr__(self) -> str:
        shown = [("name", "kind", "paper", "adapts"), *((r.name, r.kind, r.paper, r.adapts) for r in self)]
        wide = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in shown)
        return "\n".join(lines)


def systems() -> Systems:
    """All systems with kind, paper, equations and adapted parameters; ``systems()["cbml"]`` is one row.

    Those of the kinds ``next item`` and ``rating`` are made by :func:`graphmeta.build`.

    >>> table = systems()
    >>> table["cbml"].kind, table["catn"].kind, table["stan"].family
    ('next item', 'cross-domain', 'baseline')
    """
    rows = [
        Row(
            entry.name,
            "rating" if entry.predicts_ratings else "next item",
            entry.family,
            entry.paper,
            entry.equations,
            entry.adapts,
            f"{entry.function.__module__}.{entry.function.__name__}",
        )
        for entry in CATALOGUE.values()
    ]
    return Systems([*rows, *others().values()])
