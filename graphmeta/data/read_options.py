"""How tables are read: the one object of options that Python and the command line share, stored with a saved model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from graphmeta.errors import InputError

TIME_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9, "min": 1 / 60, "h": 1 / 3600, "D": 1 / 86400}  # per second


@dataclass(frozen=True)
class ReadOptions:
    """How files are parsed and which rows are read; ``options.of(file)`` is accepted wherever a file is.

    Args:
        sep: separator of a text file, such as ``"::"``; if not given, that of the file type, or the one that the first
            line contains. Quotes enclose text, except with a separator of several characters.
        header: whether the first row has the names of the columns; if not, they are named by number: "1", "2", …
        encoding: of a text file.
        where: the rows to read, as column and values: ``{"event": ["view", "cart"]}``. Values of one column are
            alternatives; conditions on several columns must all hold.
        time_format: of the time column, as in ``datetime.strptime`` (``"%d.%m.%Y %H:%M"``, in UTC if it has no
            offset), or the unit of numbers since 1970: ``s, ms, us, ns, min, h, D``. If not given, see
            :func:`~graphmeta.data.times.seconds`.
        drop_bad_rows: drop rows that cannot be read, with a warning that counts them, instead of raising an error.

    Raises:
        InputError: an empty separator, a time format that is neither, or a condition without values.

    >>> frame = pd.DataFrame({"s": [1, 1, 1], "i": ["a", "b", "c"], "event": ["view", "cart", "view"]})
    >>> ReadOptions(where={"event": "view"}).of(frame).options.where
    {'event': ('view',)}
    """

    sep: str | None = None
    header: bool = True
    encoding: str = "utf-8-sig"
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    time_format: str | None = None
    drop_bad_rows: bool = False

    def __post_init__(self) -> None:
        where = {
            str(n): (v,) if isinstance(v, str) or not isinstance(v, Sequence) else tuple(v)
            for n, v in self.where.items()
        }
        object.__setattr__(self, "where", where)
        empty = next((name for name, values in where.items() if not values), None)
        if empty is not None:
            raise InputError(f"where={{{empty!r}: []}} selects no row; name the values to read")
        if self.sep == "":
            raise InputError("the separator (sep, --sep) is empty; name one, such as ',' or '::'")
        if self.time_format is not None and not _is_time_format(self.time_format):
            raise InputError(
                f"the time format {self.time_format!r} is neither a pattern such as '%d.%m.%Y %H:%M' nor a unit "
                f"({', '.join(TIME_UNITS)}); correct it (time_format, --time-format)"
            )

    def of(self, source: str | Path | pd.DataFrame) -> Table:
        """A file or frame that is read with these options."""
        return Table(source, self)

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values; ``ReadOptions(**stored)`` restores them."""
        return asdict(self)


def _is_time_format(form: str) -> bool:
    if form in TIME_UNITS:
        return True
    try:
        pd.to_datetime(["2000"], format=form, errors="coerce")
    except ValueError:  # an unknown directive
        return False
    return "%" in form


def likely_separator(line: str, usual: str = ",", rare: str = "") -> str | None:
    """The separator that a line seems to have: ``usual`` if it has it, unless ``::`` is most frequent; None if none.

    Args:
        rare: further marks, each of one character, that may be one.

    >>> likely_separator("s;i;t"), likely_separator("1::a:b::2"), likely_separator("item id")
    (';', '::', None)
    """
    marks, rest = (usual, ",", "\t", ";", "|", *rare), line.replace("::", "")
    if line.count("::") >= max(1, *(rest.count(mark) for mark in marks)):
        return "::"
    return next((mark for mark in marks if mark in line), None)


def separator_remedy(mark: str) -> str:
    """The remedy for a file with another separator."""
    return f"its separator may be {mark!r}: ReadOptions(sep={mark!r}) (--sep {mark!r})"


@dataclass(frozen=True, eq=False)
class Table:
    """A file or frame and the options to read it with."""

    source: str | Path | pd.DataFrame
    options: ReadOptions = ReadOptions()


Source = str | Path | pd.DataFrame | Table


def table_of(source: Source) -> Table:
    """A source with its options, the defaults if it has none."""
    return source if isinstance(source, Table) else Table(source)


@dataclass(frozen=True)
class Inactivity:
    """Split a user's events into sessions at inter-event times of more than ``seconds``.

    Raises:
        InputError: a time that is not above 0.
    """

    seconds: float = 3600.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InputError(f"inactivity of {self.seconds} seconds cannot end a session; it must be positive")


@dataclass(frozen=True)
class ActionWeights:
    """The value of each event by its action, such as ``ActionWeights("event", {"view": 1, "purchase": 5})``.

    Args:
        column: of actions.
        weights: a finite number for each action. An action without a weight is an error: select rows with
            :class:`ReadOptions` (``where``) to leave actions out.

    Raises:
        InputError: no weights, or one that is not a finite number.
    """

    column: str
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        wrong = [name for name, one in self.weights.items() if not math.isfinite(one)]
        if not self.weights or wrong:
            raise InputError(f"weights of actions must be finite numbers, at least one; correct {wrong or 'weights'}")
