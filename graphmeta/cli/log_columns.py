"""The columns of a file that hold sessions, items, times and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphmeta.data.read_options import ActionWeights, ReadOptions
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError


@dataclass(frozen=True)
class ItemColumns:
    """Columns of an item file, as given on the command line.

    Args:
        attributes: the categorical columns, as ``A,B``; all others if not given.
        types: the columns of other types, as ``price=numeric,title=text``.
        label: the column of names.
        several: the columns with several values per cell and their separator, each as ``genre=|``.
    """

    attributes: str | None = None
    types: str | None = None
    label: str | None = None
    several: tuple[str, ...] = ()

    def separators(self) -> dict[str, str]:
        """The separator of each column with several values per cell.

        Raises:
            InputError: a part that is not ``column=separator``, or a column that another option names too.
        """
        found = dict(_pair(part, "--several", "column=separator, such as 'genre=|'") for part in self.several)
        twice = next((name for name in found if name in self.kinds() or name in (self.names() or ())), None)
        if twice is not None:
            raise InputError(f"column {twice!r} is given two types, by --several and another option; keep one")
        return found

    def names(self) -> list[str] | None:
        """The categorical columns."""
        return None if self.attributes is None else _parts(self.attributes)

    def kinds(self) -> dict[str, str]:
        """The type of each column of another type, by name.

        Raises:
            InputError: a part that is not ``column=type``, or a column with two types.
        """
        kinds: dict[str, str] = {}
        for part in _parts(self.types or ""):
            name, mark, kind = (text.strip() for text in part.rpartition("="))
            if not (name and mark and kind):
                raise InputError(f"--types {part!r} must be column=type, such as price=numeric")
            if name in kinds or name in (self.names() or ()):
                raise InputError(f"column {name!r} is given two types by --attributes and --types; keep one")
            kinds[name] = kind
        return kinds


def entities(
    file: Path | None,
    key: str | None,
    columns: ItemColumns = ItemColumns(),
    options: ReadOptions | None = None,
) -> EntityTable | None:
    """The table of items or users in a file, if there is one; errors name the file.

    Args:
        key: its column of ids.
        columns: its other columns.
        options: of reading it.
    """
    if file is None:
        if columns != ItemColumns():
            raise InputError(
                "--attributes, --types, --several and --label are columns of an item file: name it with --items"
            )
        return None
    if key is None:
        raise InputError("--users needs --user, the column of user ids in the log")
    kinds, several = columns.kinds(), columns.separators()
    try:
        return EntityTable.read(
            (options or ReadOptions()).of(file),
            key=key,
            attributes=columns.names(),
            label=columns.label,
            types=kinds,
            several=several,
        )
    except InputError as error:
        raise InputError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def conditions(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values of each column, from parts ``column=value``; a column may be given several times.

    Raises:
        InputError: a part that is not ``column=value``.
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in given:
        name, value = _pair(part, "--where", "column=value, such as event=view")
        found[name] = (*found.get(name, ()), value)
    return found


def weights(column: str | None, given: Sequence[str]) -> ActionWeights | None:
    """The weights of actions, from parts ``action=weight``, if there are any.

    Raises:
        InputError: a part that is not ``action=number``, or weights without the column of actions.
    """
    if (column is None) != (not given):
        raise InputError("--action names the column of actions, --action-weight gives the weight of each; give both")
    if column is None:
        return None
    found = {}
    for part in given:
        action, weight = _pair(part, "--action-weight", "action=number, such as purchase=5")
        try:
            found[action] = float(weight)
        except ValueError:
            raise InputError(f"--action-weight {part!r}: {weight!r} is not a number") from None
    return ActionWeights(column, found)


def _pair(part: str, option: str, form: str) -> tuple[str, str]:
    name, mark, value = part.partition("=")
    if not (name.strip() and mark and value):
        raise InputError(f"{option} {part!r} must be {form}")
    return name.strip(), value
