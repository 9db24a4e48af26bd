"""Reads the files that :func:`~graphmeta.inference.bulk.recommend_file` writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from graphmeta.errors import InputError
from graphmeta.inference.cells import text_of
from graphmeta.inference.parts import COLUMNS, check_format

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")


def read_recommendations(path: str | Path) -> pd.DataFrame:
    """A file of recommendations as a frame with the columns ``session, rank, item, name, score, flag``; missing values
    in the row of a session without recommendations.

    In CSV and TSV, apostrophes before cells that a spreadsheet would run are taken away, and ids that are all whole
    numbers become numbers, as when a log is read; control characters stay as they were written, escaped. JSON lines and
    Parquet have all ids and names as they are.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file.

    Raises:
        InputError: another ending, a file that cannot be read, or one with other columns.
    """
    path = Path(path)
    kind = check_format(path)
    try:
        rows = _parquet(path) if kind == ".parquet" else _lines(path) if kind == ".jsonl" else _text(path, kind)
        if tuple(rows) != COLUMNS:
            raise InputError(f"{path}: has other columns than {', '.join(COLUMNS)}; name a file of recommendations")
        frame = pd.DataFrame({name: _typed(values) for name, values in rows.items()})
        return frame.astype({"rank": "Int32", "score": "float64"})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not a file of recommendations ({type(error).__name__}); write it again") from None


def _parquet(path: Path) -> dict[str, list[Any]]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return file.read().to_pydict()


def _lines(path: Path) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else COLUMNS)}


def _text(path: Path, kind: str) -> dict[str, list[Any]]:
    cells = pd.read_csv(path, sep="\t" if kind == ".tsv" else ",", dtype=str, keep_default_na=False)
    rows: dict[str, list[Any]] = {str(name): cells[name].tolist() for name in cells}
    none = [one == "" for one in rows["rank"]]
    for name in ("session", "item"):
        whole = all(_WHOLE.fullmatch(one) for one in set(rows[name]) - {""})
        rows[name] = [(int(one) if whole else text_of(one)) if one else one for one in rows[name]]
    rows["name"] = [text_of(one) for one in rows["name"]]
    for name, read in (("rank", int), ("item", None), ("name", None), ("score", float)):
        kept = zip(rows[name], none, strict=True)
        rows[name] = [None if missing else one if read is None else read(one) for one, missing in kept]
    return rows


def _typed(values: list[Any]) -> pd.Series:
    """Whole numbers, of which some may be missing, or objects."""
    whole = all(isinstance(one, int) for one in values if one is not None) and any(one is not None for one in values)
    return pd.Series(values, dtype="Int64" if whole else object)
