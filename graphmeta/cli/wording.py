"""Messages as the command line prints them: on one line, with its own options in place of those of Python."""

from __future__ import annotations

import re

_ARGUMENT = r"\w+=(?:\{[^{}]*\}|'[^']*'|\w+)?"
_BOTH = re.compile(rf"(?:[\w.]+\([^()]*\)|{_ARGUMENT}) \((--[^()]*|`graphmeta [^()]*`)\)")
_NAMES = re.compile(rf"\((?:{_ARGUMENT}|\w+), (--[^()]*)\)")


def for_command_line(message: str) -> str:
    """A message of the library with the options of the command line alone, where it names those of Python too.

    >>> for_command_line("name the format: ReadOptions(time_format='%d.%m.%Y') (--time-format)")
    'name the format: --time-format'
    >>> for_command_line("drop such rows (drop_bad_rows, --drop-bad-rows)")
    'drop such rows (--drop-bad-rows)'
    """
    return _NAMES.sub(r"(\1)", _BOTH.sub(r"\1", message))


def printable(text: str) -> str:
    """The text without line breaks and control characters, which ids and names of a file may have: a line break is a
    blank, others are escaped.

    >>> printable("a\\x85b \\x1b[31m")
    'a b \\\\x1b[31m'
    """
    return "".join(one if one.isprintable() else " " if one.isspace() else ascii(one)[1:-1] for one in text)
