"""Files of a RelBench database: manifests, Parquet tables, and tables of items and users in them."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.table_files import read_frame
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, nearest
from graphmeta.storage import write_bytes, write_json

MANY = 1000  # a column of text with more values than this is not read as categories
KINDS = "graphmeta"  # the manifest's key of the column types that graphmeta wrote


def write_manifest(document: dict[str, Any], path: Path) -> None:
    """Write a manifest; JSON is YAML."""
    write_json(path, document)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a database or a task.

    Raises:
        InputError: no such file, not a mapping, or YAML that is not JSON without PyYAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise InputError(f"{path}: no such file; pass the folder of a RelBench database (relbench 3)") from None
    try:
        found = json.loads(text)
    except ValueError:
        found = _yaml(path, text)
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a manifest; it must be a mapping of names to values")
    return found


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise InputError(f"{path}: YAML needs PyYAML; pip install 'graphmeta[large]'") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]}); download the database again") from None


def task_manifest(folder: Path, name: str | None) -> dict[str, Any]:
    """The manifest of a recommendation task: of this name, or of the only one.

    Raises:
        InputError: an unknown name, several tasks without a name, a task of another type.
    """
    known = sorted(file.parent.name for file in (folder / "tasks").glob("*/manifest.yaml"))
    if name is None and len(known) == 1:
        name = known[0]
    if name not in known:
        near = nearest(name or "", known)
        meant = f"did you mean {near!r}? " if near else ""
        wrong = "several tasks, so name one" if name is None and known else f"no task {name!r}"
        raise InputError(f"{folder} has {wrong}; {meant}it has {', '.join(known) or 'none'}")
    spec = read_manifest(folder / "tasks" / name / "manifest.yaml")
    if spec.get("task_type") != "recommendation":
        raise InputError(f"{name} is a task of {spec.get('task_type')}; choose one of recommendation")
    return spec


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet.

    Raises:
        InputError: pyarrow is not installed.
    """
    buffer = BytesIO()
    try:
        frame.reset_index(drop=True).to_parquet(buffer, engine="pyarrow")
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow; pip install 'graphmeta[large]'") from None
    write_bytes(path, buffer.getvalue())


def frame_of(table: EntityTable, key: str) -> pd.DataFrame:
    """The rows of a table under their numbers: ``key``, the original ``id``, and the columns."""
    columns = {name: pd.Series(column.cells(), dtype=object) for name, column in table.columns.items()}
    if taken := {key, "id"} & columns.keys():
        raise InputError(f"a column cannot be called {min(taken)!r} in a RelBench database; rename it")
    return pd.DataFrame({key: np.arange(len(table)), "id": table.ids, **columns})


def entities(folder: Path, about: dict[str, Any], name: str) -> EntityTable:
    """A table of items or users of a database: those that graphmeta wrote with their ids and types; others with the
    numbers of their rows as ids, numbers as numeric columns, and others of at most a thousand values as categories.
    """
    key = about["tables"][name]["pkey"]
    frame = read_frame(folder / "db" / f"{name}.parquet")
    kinds = about.get(KINDS, {}).get(name)
    if kinds is not None:
        several = {column: "|" for column, kind in kinds.items() if kind == "several"}
        types = {column: kind for column, kind in kinds.items() if kind != "several"}
        table = EntityTable.read(
            pd.DataFrame(frame[["id", *kinds]]), key="id", attributes=[], several=several, types=types
        )
        return replace(table, columns={column: table.columns[column] for column in kinds})
    foreign = {key, about["tables"][name]["time_col"], *about["tables"][name]["fkeys"]}
    types = {column: kind for column in frame if column not in foreign and (kind := _kind(pd.Series(frame[column])))}
    return EntityTable.read(pd.DataFrame(frame[[key, *types]]), key=key, attributes=[], types=types)


def _kind(values: pd.Series) -> str | None:
    """The column type of a foreign column, None for one that is not read."""
    if pd.api.types.is_bool_dtype(values):
        return "categorical"
    if pd.api.types.is_numeric_dtype(values):
        return "numeric"
    known = values.dropna()
    if pd.api.types.is_datetime64_any_dtype(values) or not len(known) or isinstance(known.iloc[0], list | np.ndarray):
        return None
    return "categorical" if known.nunique() <= MANY else None
