"""A lock of a folder against two writers, with the holder's process in the error."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from graphmeta.errors import InputError

_LOCK, _HOLDER = ".lock", ".writer.json"
LOCK_FILES = (_LOCK, _HOLDER)


@contextmanager
def locked(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Within it, this thread alone writes to the folder, which is made if there is none.

    The operating system holds the lock, so that of a process that ended, however it ended, is free again.

    Args:
        wait: seconds to wait for another writer.

    Raises:
        InputError: another writer; names its process, machine and begin. Or a folder that cannot be written to.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=wait)
        with lock:
            # Not in the lock file: some systems let no other process read a locked file.
            _write_holder(folder / _HOLDER)
            try:
                yield
            finally:
                (folder / _HOLDER).unlink(missing_ok=True)
                _leave_nothing(folder, made=made)
    except Timeout:
        raise InputError(
            f"{folder}: {_holder(folder / _HOLDER)} writes to it; wait until it has finished, or choose another folder"
        ) from None


def _leave_nothing(folder: Path, *, made: bool) -> None:
    """Remove the lock, and the folder that was made for it, if nothing else was written."""
    if [one.name for one in folder.iterdir()] == [_LOCK]:
        (folder / _LOCK).unlink(missing_ok=True)
        if made:
            folder.rmdir()


def _write_holder(path: Path) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}) + "\n")


def _holder(path: Path) -> str:
    """The holder of the lock, for messages."""
    try:
        found = json.loads(path.read_bytes())
        return f"process {int(found['pid'])} on {found['host']!s} (since {found['since']!s})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has not yet written its number
