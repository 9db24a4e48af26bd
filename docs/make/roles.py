"""Docstrings as Markdown: roles of Sphinx and double backticks become code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
_SECTION = re.compile(r"^(Source|Differs|Shapes?):", re.M)


def markdown(text: str) -> str:
    """A docstring as Markdown.

    >>> markdown("See :func:`~graphmeta.nn.heads.dot.Dot`, ``x [I, D]``.")
    'See `Dot`, `x [I, D]`.'
    """
    text = _ROLE.sub(lambda role: f"`{role[1].rsplit('.', 1)[-1]}`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)
    text = re.sub(r"(`[^`]*`)|\[(?=\d)", lambda part: part[1] or "\\[", text)  # a range is not a link
    return _SECTION.sub(r"**\1:**", text)


class Roles(Extension):
    """Converts the docstring of every object that mkdocstrings reads."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None and not obj.docstring.value.startswith("\0"):
            obj.docstring.value = markdown(obj.docstring.value)
