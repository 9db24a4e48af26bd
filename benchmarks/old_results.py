"""Names that result files of earlier versions use, translated to today's.

Version 0.1 wrote ``extras: ["returns", "kin", "evidence"]`` and ``second_look``; today these are
``score_terms: ["repeat_bias", "same_category", "cooccurrence"]`` and ``reranker``. Commands are translated as well, so
that :mod:`benchmarks.tables` recognises what has been run.
"""

from __future__ import annotations

import re
from typing import Any

KEYS = {"extras": "score_terms", "known clicks": "context length"}
NAMES = {
    "returns": "repeat_bias",
    "kin": "same_category",
    "evidence": "cooccurrence",
    "second_look": "reranker",
    "alike": "attribute_overlap",
}
FLAGS = {
    "--start-from": "--warm-start",
    "--then": "--refit-base",
    "--uncounted": "--statistics-held-out",
    "--asked": "--test-samples",
}
NOTES = {"on the sessions that its base did not learn from": "trained on sessions that its base did not see"}
VARIANTS = {**NAMES, "extras": "score_terms", "second": "reranker", "then": "refit"}  # parts of --tag and saved/ names

_FLAG = re.compile(rf"({'|'.join(FLAGS)})(?= |$)")
_SYSTEM = re.compile(r"(?<= )(second_look|alike)(?= |$)")
_QUOTED = re.compile(rf'"({"|".join(KEYS | NAMES)})"')
_VARIANT = re.compile(r"(?<=--tag )\S+")
_SAVED = re.compile(r"(?<=saved/)\S+")


def renamed(value: Any) -> Any:
    """A row, or a part of it, with today's keys, names and command."""
    if isinstance(value, dict):
        return {KEYS.get(k, k): renamed_command(v) if k == "command" else renamed(v) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(each) for each in value]
    return _parameter((NAMES | NOTES).get(value, value)) if isinstance(value, str) else value


def renamed_command(command: str) -> str:
    """A command with today's flags and names."""
    command = _FLAG.sub(lambda found: FLAGS[found[0]], command)
    command = _SYSTEM.sub(lambda found: NAMES[found[0]], command)
    command = _QUOTED.sub(lambda found: f'"{(KEYS | NAMES)[found[1]]}"', command)
    command = _VARIANT.sub(lambda found: renamed_variant(found[0]), command)
    for note, today in NOTES.items():
        command = command.replace(note, today)
    command = _SAVED.sub(lambda found: re.sub(r"second_look|(?<=_)(extras|returns)", _variant, found[0]), command)
    return _parameter(command)


def renamed_variant(variant: str) -> str:
    """The name of a variant, part by part: ``extras-nogate`` is ``score_terms-nogate``."""
    return "-".join(VARIANTS.get(part, part) for part in variant.split("-"))


def _variant(found: re.Match[str]) -> str:
    return VARIANTS[found[0]]


def _parameter(text: str) -> str:
    return text.replace("head.extras", "head.score_terms")
