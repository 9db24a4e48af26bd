"""Messages as the command line prints them: on one line, with its own options in place of those of Python."""

from __future__ import annotations

import re

_ARGUMENT = r"\w+=(?:\{[^{}]*\}|'[^']*'|\w+)?"
_BOTH = re.compile(rf"(?:[\w.]+\([^()]*\)|{_ARGUMENT}) \((--[^()]*|`graphmeta [^()]*`)\)")
_NAMES = re.compile(rf"\((?:{_ARGUMENT}|\w+), (--[^()]*)\)")


def for_command_line(message: str) -> str:
    """A message of the library with the options of the command line alone, where it names those of Python too.

    >>> for_command_line("name the format: ReadOptions(time_format='%Y') (--time-format '%Y')")
    "name the format: --time-format '%Y'"
    >>> for_command_line("drop such rows (drop_bad_rows, --drop-bad-rows)")
    'drop such rows (--drop-bad-rows)'
    """
    return _NAMES.sub(r"(\1)", _BOTH.sub(r"\1", message))
