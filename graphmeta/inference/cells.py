"""Cells of exported CSV and TSV files that no spreadsheet takes for a formula.

A cell that would begin with ``=``, ``+``, ``-`` or ``@`` (also after blanks, and in full width) gets an apostrophe
before it, as OWASP advises; numbers, such as the id -5, stay as they are. A text that begins with apostrophes and then
such a character gets one more, so that the text is always what remains without it.
"""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"'*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def cell_of(text: str) -> str:
    """The cell of a text.

    >>> cell_of("=1+1"), cell_of("-5"), cell_of("'@a"), cell_of("'quoted'")
    ("'=1+1", '-5', "''@a", "'quoted'")
    """
    return f"'{text}" if _may_run(text) else text


def text_of(cell: str) -> str:
    """The text of a cell.

    >>> [text_of(cell_of(one)) for one in ("=1+1", "-5", "'@a", "'quoted'")]
    ['=1+1', '-5', "'@a", "'quoted'"]
    """
    return cell[1:] if cell.startswith("'") and _may_run(cell[1:]) else cell


def _may_run(text: str) -> bool:
    """Whether a spreadsheet may take a text, without its leading apostrophes, for a formula."""
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None
