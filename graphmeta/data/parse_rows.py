"""Parsing of several columns of a frame, with or without the rows that cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.columns import BadRows
from graphmeta.errors import InputError

Parser = Callable[[pd.DataFrame], Any]


class DroppedRows(UserWarning):
    """Rows that cannot be read were dropped; the message has their number."""


def parse_rows(
    frame: pd.DataFrame, parsers: Mapping[str, Parser], *, drop: bool
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows that can be read, all if ``drop`` is False, and what each parser makes of them.

    Raises:
        InputError: a row that cannot be read, unless such rows are dropped; no row that can.

    Warns:
        UserWarning: the number of dropped rows, by reason.
    """
    size, reasons = len(frame), dict[str, tuple[int, int]]()
    while True:
        with warnings.catch_warnings(record=True) as questions:
            warnings.simplefilter("always")
            try:
                found = {role: parse(frame) for role, parse in parsers.items()}
                break
            except BadRows as bad:
                if not drop:
                    raise InputError(str(bad)) from None
                if bad.wrong.all():
                    raise InputError(f"no row can be read: {bad}") from None
                first, count = reasons.get(bad.reason, (int(frame.index[np.argmax(bad.wrong)]), 0))
                reasons[bad.reason] = (first, count + int(bad.wrong.sum()))
                frame = frame.loc[~bad.wrong]
    if reasons:
        listed = ", ".join(f"{reason} in {n:,} (the first: row {row + 1})" for reason, (row, n) in reasons.items())
        warnings.warn(DroppedRows(f"dropped rows: {size - len(frame):,} of {size:,}: {listed}"), stacklevel=4)
    for question in questions:
        warnings.warn(question.message, stacklevel=4)
    return frame, found
