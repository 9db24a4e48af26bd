"""Versions of a model in one folder: each is written whole, then a pointer is switched to it atomically.

``current.json`` names the current version, a folder ``versions/<number>``, and the earlier ones to roll back to. A
reader beside a writer reads one whole version: a version is complete before the pointer names it, and stays for as long
as it is among the last three. A folder without a pointer is one version itself, as written before there were versions.

Reports of a version (metrics, pictures) are copied beside the folder: :mod:`graphmeta.storage.reports`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from graphmeta.errors import InputError
from graphmeta.storage import write_json
from graphmeta.storage.lock import locked
from graphmeta.storage.reports import publish

KEPT = 3  # versions, the current one included
_POINTER, _VERSIONS, _MODEL = "current.json", "versions", "model.json"
_NUMBER = re.compile(r"\d{6,}")
_STATE = re.compile(r"(model|history|histories)(\.json|-[0-9a-f]{16}\.safetensors)")
_CARD, _NEW = "README.md", ".new-"
_WAIT = 30.0  # seconds for another save; it takes one or two
_TRIES = 20

T = TypeVar("T")


@dataclass(frozen=True)
class Pointer:
    """The numbers of the current version and of those before it, the oldest first.

    ``last``: the highest number that was ever current, above ``current`` after a rollback; 0 if it is not known.
    """

    current: int
    earlier: tuple[int, ...] = ()
    last: int = 0

    def then(self, number: int) -> Pointer:
        """The pointer after a new version."""
        return Pointer(number, (*self.earlier, self.current)[1 - KEPT :], self.last and max(self.last, number))

    def back_to(self, number: int) -> Pointer:
        """The pointer after a rollback; to a version that was rolled back, it is as after a new one."""
        at = self.earlier.index(number) if number in self.earlier else None
        return self.then(number) if at is None else Pointer(number, self.earlier[:at], self.last)


def pointer(folder: str | Path) -> Pointer | None:
    """Which version is current; None for a folder without versions.

    Raises:
        InputError: a damaged pointer.
    """
    path = Path(folder) / _POINTER
    try:
        found = json.loads(path.read_bytes())
        read = Pointer(found["current"], tuple(found["earlier"]), found.get("last", 0))
        if any(type(number) is not int for number in (read.current, *read.earlier, read.last)):
            raise ValueError("not numbers")
        return read
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        remedy = f'write {{"current": NUMBER, "earlier": []}} with a number of {path.parent / _VERSIONS}'
        raise InputError(f"{path}: damaged; {remedy}") from None


def current(folder: str | Path) -> Path:
    """The folder of the current version; without versions the folder itself."""
    found = pointer(folder)
    return Path(folder) if found is None else _place(Path(folder), found.current)


def whole_version(folder: str | Path, read: Callable[[Path], T]) -> T:
    """What ``read`` makes of the current version; it is called again if a writer removed that version meanwhile.

    Raises:
        InputError: as ``read``.
    """
    for _ in range(_TRIES):
        place = current(folder)
        try:
            return read(place)
        except (InputError, OSError):
            if current(folder) == place:
                raise
    raise InputError(f"{folder}: new versions are written faster than one is read; save less often")


def identity(folder: str | Path) -> str | None:
    """A text that differs between versions; None for a folder without a model."""
    found = pointer(folder)
    if found is not None:
        return str(found.current)
    try:
        state = (Path(folder) / _MODEL).stat()
    except OSError:
        return None
    return f"{state.st_mtime_ns:x}-{state.st_ino:x}"


@contextmanager
def new_version(folder: str | Path) -> Iterator[Path]:
    """A folder to write the files of a new version to; at the end it becomes the current version.

    If an error leaves the block or the process is killed, the old version stays current. The last three are kept.

    Raises:
        InputError: a writer that does not finish within half a minute, or a folder that cannot be written to.
    """
    folder = Path(folder)
    try:
        with locked(folder, wait=_WAIT):
            _clear_unfinished(folder)
            before = _adopted(folder)
            made = Path(tempfile.mkdtemp(dir=_made(folder / _VERSIONS), prefix=_NEW))
            try:
                yield made
                _clear_without_pointer(folder, before)
                number = max([0, *_numbers(folder)]) + 1
                made.chmod(0o755)
                _sync(made)
                made.rename(_place(folder, number))
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                if before is None:
                    (folder / _VERSIONS).rmdir()
                raise
            _switch(folder, Pointer(number, last=number) if before is None else before.then(number))
            publish(folder, current(folder))
            _clear(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None


def rollback(folder: str | Path, to: int | None = None) -> int:
    """Make an earlier version current again, and return its number.

    Args:
        to: its number; the version before the current one if not given.

    Raises:
        InputError: a folder without versions, or without this one.
    """
    folder = Path(folder)
    if pointer(folder) is None:
        raise InputError(f"{folder}: has no versions to roll back to")
    with locked(folder, wait=_WAIT):
        found = pointer(folder)
        assert found is not None
        if to is None and not found.earlier:
            raise InputError(f"{folder}: there is no version before {found.current}")
        number = found.earlier[-1] if to is None else to
        there = [one for one in _numbers(folder) if one != found.current]
        if number not in there:
            names = ", ".join(map(str, there)) or "no other one"
            raise InputError(f"{folder}: no version {number} to roll back to; there is {names}")
        _switch(folder, found.back_to(number))
        publish(folder, current(folder))
        return number


def complete(folder: str | Path) -> None:
    """Finish what a writer that was killed after its version was whole has left to do.

    Raises:
        InputError: another writer.
    """
    folder = Path(folder)
    if pointer(folder) is not None:
        with locked(folder, wait=_WAIT):
            _clear_unfinished(folder)
            publish(folder, current(folder))
            _clear(folder)


def _place(folder: Path, number: int) -> Path:
    return folder / _VERSIONS / f"{number:06d}"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _numbers(folder: Path) -> list[int]:
    """The numbers of the versions in a folder, ascending."""
    place = folder / _VERSIONS
    return sorted(int(one.name) for one in (place.iterdir() if place.is_dir() else ()) if _NUMBER.fullmatch(one.name))


def _switch(folder: Path, to: Pointer) -> None:
    _sync(folder / _VERSIONS)
    last = {"last": to.last} if to.last else {}
    write_json(folder / _POINTER, {"current": to.current, "earlier": list(to.earlier), **last})
    _sync(folder)


def _adopted(folder: Path) -> Pointer | None:
    """The pointer; the model of a folder without versions becomes its first version, under number 0.

    Its files are copied, and are removed only after the pointer names the copy.
    """
    found = pointer(folder)
    if found is None and (folder / _MODEL).is_file():
        copy = Path(tempfile.mkdtemp(dir=_made(folder / _VERSIONS), prefix=_NEW))
        for one in folder.iterdir():
            if _STATE.fullmatch(one.name) or one.name == _CARD:
                shutil.copy2(one, copy / one.name)
        copy.chmod(0o755)
        shutil.rmtree(_place(folder, 0), ignore_errors=True)  # of a process that was killed here
        copy.rename(_place(folder, 0))
        found = Pointer(0)  # whose numbers of before are not known
        _switch(folder, found)
        if (folder / _CARD).is_file() and b"Written by graphmeta" in (folder / _CARD).read_bytes():
            (folder / _CARD).unlink()
    return found


def _clear(folder: Path) -> None:
    """Remove versions that are no longer kept, and states from before there were versions."""
    found = pointer(folder)
    assert found is not None
    kept = {_place(folder, number).name for number in (found.current, *found.earlier)}
    for one in (folder / _VERSIONS).iterdir():
        if one.name not in kept:
            shutil.rmtree(one, ignore_errors=True)
    for one in folder.iterdir():
        if _STATE.fullmatch(one.name):
            one.unlink(missing_ok=True)


def _clear_unfinished(folder: Path) -> None:
    """Remove what killed writers left."""
    for one in (folder / _VERSIONS).glob(f"{_NEW}*"):
        shutil.rmtree(one, ignore_errors=True)
    for one in folder.glob(f".{_POINTER}.*"):
        one.unlink(missing_ok=True)


def _clear_without_pointer(folder: Path, found: Pointer | None) -> None:
    """Remove whole versions of writers that were killed before the pointer named them."""
    last = 0 if found is None else found.last
    if found is None or last:
        for number in _numbers(folder):
            if number > last:
                shutil.rmtree(_place(folder, number), ignore_errors=True)


def _sync(folder: Path) -> None:
    """Write a folder's entries to the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
