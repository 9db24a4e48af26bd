"""Item ids of a session as written on the command line."""

from __future__ import annotations

import csv
import re
from collections.abc import Container

from graphmeta.errors import InputError


def session_of(given: str, known: Container[str]) -> list[str]:
    """The ids of a session: one known id, or ids separated by commas, or by blanks if there is no comma; none is empty.

    An id that contains a comma or a blank, among others, is quoted: ``"it, 1",it2``.

    Raises:
        InputError: a quote that is not closed.

    >>> session_of("a, b,,", {}), session_of("a, b", {"a, b"}), session_of('"a, b",c', {}), session_of("a b", {})
    (['a', 'b'], ['a, b'], ['a, b', 'c'], ['a', 'b'])
    """
    if given.strip() in known:
        return [given.strip()]
    mark = "," if "," in given else None
    if '"' in given:
        text = re.sub(r'"\s+,', '",', given)
        try:
            parts = next(csv.reader([text], delimiter=mark or " ", skipinitialspace=True, strict=True), [])
        except csv.Error:
            raise InputError(f"{given!r} has a quote that is not closed; quote ids as in '\"a, b\",c'") from None
    else:
        parts = given.split(mark)
    return [part.strip() for part in parts if part.strip()]
