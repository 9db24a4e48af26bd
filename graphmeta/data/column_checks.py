"""Checks of the columns of item and user tables that give warnings."""

from __future__ import annotations

import warnings

import numpy as np

from graphmeta.data.column_types import Categorical, Column
from graphmeta.errors import counted

_ROWS, _SHARE = 50, 0.9  # a smaller table may well have a category per row
_MARK = "|"


def question_column(name: str, column: Column) -> None:
    """Warn about categories that are none: nearly one value per row, or several values joined by ``|``.

    Args:
        name: of the column.
        column: other types than categories pass.
    """
    if not isinstance(column, Categorical):
        return
    known, values = int((column.codes > 0).sum()), column.size - 1
    if _several(column.values[1:]):
        warnings.warn(
            f"column {name!r}: values such as {column.values[1 + _first(column.values[1:])]!r:.60} are read as one "
            f"category each; for several values per row: several={{{name!r}: {_MARK!r}}} (--several '{name}={_MARK}')",
            stacklevel=4,
        )
    elif known >= _ROWS and values > _SHARE * known:
        warnings.warn(
            f"column {name!r} has {counted(values, 'different value')} in {counted(known, 'row')}, too many for "
            f"categories; declare it as numeric or text: types={{{name!r}: 'text'}} (--types {name}=text), as the "
            f"label (label, --label), or leave it out (attributes, --attributes)",
            stacklevel=4,
        )


def _several(values: np.ndarray) -> bool:
    """Whether a fifth of the values consist of parts that occur in several of them."""
    joined = [one.split(_MARK) for one in values if _MARK in one]
    if len(joined) < max(2, len(values) / 5):
        return False
    parts = [part.strip() for parts in joined for part in parts]
    return len(set(parts)) < len(parts)


def _first(values: np.ndarray) -> int:
    return next(at for at, one in enumerate(values) if _MARK in one)
