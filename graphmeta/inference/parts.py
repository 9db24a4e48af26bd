"""A file that is written in parts, so that a run that was killed continues where it was.

Part n is a file of its own in the folder ``OUT.parts``, written atomically; the folder's ``request.json`` identifies
what is computed. After the last part they are joined there, and the file is renamed to ``OUT``, a name that an
unfinished file never has.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.errors import InputError, counted, printable
from graphmeta.inference.cells import cell_of
from graphmeta.storage import write_bytes, write_json
from graphmeta.storage.lock import LOCK_FILES

COLUMNS = ("session", "rank", "item", "name", "score", "flag")
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


class Parts:
    """The parts of an output file: ``add`` writes one, ``join`` makes the file of them.

    Args:
        out: the file, whose ending is one of ``FORMATS``.
        request: what identifies the computation, as JSON values.
        whole: whether ids of sessions and of items are whole numbers (in Parquet int64, else text).

    Raises:
        InputError: another ending, a place that cannot be written to, or a folder with parts of another request.
    """

    def __init__(self, out: str | Path, request: dict[str, Any], *, whole: tuple[bool, bool]) -> None:
        self.out, self.whole = Path(out), whole
        self.folder = parts_folder(self.out)
        self.kind = check_format(self.out)
        request = json.loads(json.dumps(request))
        note = self.folder / "request.json"
        if note.is_file() and json.loads(note.read_bytes()) != request:
            raise InputError(
                f"{self.folder} has parts of another input, model or other options; delete that folder to begin anew, "
                f"or name another output file"
            )
        if not note.is_file():
            self._clear()  # of another request, if any is left
            write_json(note, request)

    @property
    def done(self) -> int:
        """The number of parts that are written."""
        number = 0
        while self._part(number).is_file() and self._part(number).with_suffix(".json").is_file():
            number += 1
        return number

    def add(self, number: int, frame: pd.DataFrame) -> None:
        """Write a part, a frame of ``COLUMNS``."""
        counts = frame.drop_duplicates("session")["flag"].value_counts()
        write_json(self._part(number).with_suffix(".json"), {str(k): int(v) for k, v in counts.items()})
        write_bytes(self._part(number), self._bytes(frame))

    def join(self, number: int) -> dict[str, int]:
        """Join the parts, of which there are ``number``, and remove them; returns the number of sessions by flag.

        Raises:
            InputError: a missing part.
        """
        if self.done != number:
            raise InputError(
                f"{self.folder}: {number - self.done} of {counted(number, 'part')} were removed; start again"
            )
        joined, names, counts = self.folder / "joined", [self._part(n) for n in range(number)], Counter[str]()
        for name in names:
            counts.update(json.loads(name.with_suffix(".json").read_bytes()))
        if self.kind == ".parquet":
            from pyarrow.parquet import ParquetWriter, read_table

            with ParquetWriter(joined, self._schema()) as writer:
                for name in names:
                    writer.write_table(read_table(name))  # a row group per part
        else:
            with joined.open("wb") as file:
                if self.kind != ".jsonl":
                    file.write(("\t" if self.kind == ".tsv" else ",").join(COLUMNS).encode() + b"\n")
                for name in names:
                    with name.open("rb") as part:
                        shutil.copyfileobj(part, file)
        with joined.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(joined, self.out)
        self._clear()
        return dict(counts)

    def _clear(self) -> None:
        """Remove all but the lock, temporary files of killed runs too; what identifies the parts goes last."""
        files = [] if not self.folder.is_dir() else [one for one in self.folder.iterdir() if one.name not in LOCK_FILES]
        for file in sorted(files, key=lambda one: one.name == "request.json"):
            file.unlink(missing_ok=True)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06}{self.kind}"

    def _bytes(self, frame: pd.DataFrame) -> bytes:
        if self.kind == ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in _plain(frame))
            return "".join(lines).encode()
        if self.kind == ".parquet":
            import pyarrow as pa
            from pyarrow.parquet import write_table

            content = io.BytesIO()
            write_table(pa.Table.from_pandas(frame, schema=self._schema(), preserve_index=False), content)
            return content.getvalue()
        separator = "\t" if self.kind == ".tsv" else ","
        for name in ("session", "item", "name"):  # a file of text is also shown in terminals and spreadsheets
            codes, values = pd.factorize(frame[name], use_na_sentinel=False)
            cells = [cell_of(printable(one)) if isinstance(one, str) else one for one in values.tolist()]
            frame = frame.assign(**{name: pd.Series(cells, dtype=object).take(codes).to_numpy()})
        return frame.to_csv(index=False, header=False, sep=separator, float_format="%.9g", lineterminator="\n").encode()

    def _schema(self) -> Any:
        import pyarrow as pa

        session, item = (pa.int64() if whole else pa.string() for whole in self.whole)
        kinds = (session, pa.int32(), item, pa.string(), pa.float64(), pa.string())
        return pa.schema(list(zip(COLUMNS, kinds, strict=True)))


def parts_folder(out: Path) -> Path:
    """The folder of the finished parts of an output file."""
    return out.with_name(out.name + ".parts")


def check_format(out: Path) -> str:
    """The ending of a file of recommendations.

    Raises:
        InputError: another ending, or Parquet without pyarrow.
    """
    kind = {".pq": ".parquet", ".ndjson": ".jsonl"}.get(out.suffix.lower(), out.suffix.lower())
    if kind not in FORMATS:
        raise InputError(f"{out}: recommendations are written as {', '.join(FORMATS)}; give the file such an ending")
    if kind == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401 - is it installed?
        except ImportError:
            raise InputError(f"{out}: Parquet needs pyarrow; pip install 'graphmeta[large]'") from None
    return kind


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as Python values; None for what a session without recommendations lacks."""
    rows = zip(*(frame[name].tolist() for name in COLUMNS), strict=True)
    return [{name: _value(one) for name, one in zip(COLUMNS, row, strict=True)} for row in rows]


def _value(value: Any) -> Any:
    missing = value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
    return None if missing else value
