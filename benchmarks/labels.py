"""Labels of table rows: the system and what distinguishes the run; no two rows of a table share a label."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, after

APART: dict[str, Callable[[str], str]] = {  # shown first where labels would be equal
    "--lr": lambda word: f"rate {float(word):g}",
    "--epochs": lambda word: f"{word} epoch{'s' if word != '1' else ''}",
}
SHOWN: dict[str, Callable[[str], str]] = {
    "--warm-start": lambda word: f"warm start: {Path(word).name}",
    "--refit-base": lambda word: f"base refitted: {Path(word).name}",
    "--statistics-held-out": lambda word: f"trained on {int(word):,} sessions",
    "--precision": str,
    "--optimizer": str,
    "--lr": APART["--lr"],  # under the protocol that ranks every prefix
    "--share": lambda word: f"last {float(word):.0%} of training",
}
NEVER = {"--seed", "--seeds", "--save", "--checkpoint", "--state", "--note", "--arguments", "--systems"}


def named(groups: Sequence[list[Row]]) -> dict[str, list[Row]]:
    """The seeds of each variant, by label; where labels would be equal, differing flags are added.

    Raises:
        SystemExit: no flag differs.
    """
    notes, flags = [special(runs) for runs in groups], [flags_of(runs[0]) for runs in groups]
    for flag in [*APART, *sorted({flag for each in flags for flag in each} - APART.keys() - SHOWN.keys() - NEVER)]:
        for same in duplicates(groups, notes):
            words = {at: flags[at][flag] for at in same if flag in flags[at]}
            added = {at: APART[flag](word) if flag in APART else f"{flag[2:]} {word}" for at, word in words.items()}
            if len({added.get(at) for at in same}) > 1:
                for at, note in added.items():
                    notes[at].append(note)
    for same in duplicates(groups, notes):
        name = label(groups[same[0]][0], notes[same[0]])
        raise SystemExit(f"{len(same)} rows of a table have the label {name!r}; give them a --note")
    return {label(runs[0], each): runs for runs, each in zip(groups, notes, strict=True)}


def duplicates(groups: Sequence[list[Row]], notes: Sequence[Sequence[str]]) -> list[list[int]]:
    """The indices of groups with equal labels."""
    places: dict[str, list[int]] = defaultdict(list)
    for at, (runs, each) in enumerate(zip(groups, notes, strict=True)):
        places[label(runs[0], each)].append(at)
    return [same for same in places.values() if len(same) > 1]


def flags_of(row: Row) -> dict[str, str]:
    """The flags of a row's command and their values."""
    found: dict[str, str] = {}
    flag = ""
    for word in shlex.split(row["command"]):
        if word.startswith("--"):
            found[flag := word] = ""
        elif flag:
            found[flag] = f"{found[flag]} {word}".strip()
    return found


def label(row: Row, notes: Sequence[str]) -> str:
    """The system, and its notes in brackets."""
    return row["system"] + (f" ({'; '.join(notes)})" if notes else "")


def special(runs: Sequence[Row]) -> list[str]:
    """What distinguishes a run: its note, its arguments and the flags in ``SHOWN``."""
    row, words = runs[0], shlex.split(runs[0]["command"])
    arguments = row.get("arguments", {})
    chosen = {name: found for name in arguments if (found := differing(runs, name))}
    given = {name: value for name, value in arguments.items() if name not in chosen}
    notes = [row.get("note"), within(given), in_words(own_of(given)), *(f"{n} {found}" for n, found in chosen.items())]
    left_out = {"--lr"} if row["protocol"] != "sr-gnn" else set()
    if after(words, "--epochs") == "0":  # nothing is trained
        left_out.add("--statistics-held-out")
    notes += [tell(word) for flag, tell in SHOWN.items() if (word := after(words, flag)) and flag not in left_out]
    return [note for note in notes if note]


def differing(runs: Sequence[Row], name: str) -> str:
    """The values of an argument over seeds, if they differ."""
    values = [str(run.get("arguments", {}).get(name)) for run in runs]
    return ", ".join(values) if len(set(values)) > 1 else ""


def within(arguments: Mapping[str, Any], word: str = "base") -> str:
    """The base of a system and its score terms: ``base niser with repeat_bias``."""
    options = arguments.get("options", {})
    base, own = arguments.get("base"), in_words(own_of(options))
    nested = within(options, "over") if options else ""
    return " ".join(filter(None, (f"{word} {base}" if base else "", nested, f"with {own}" if own else "")))


def own_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without ``base`` and ``options``."""
    return {name: value for name, value in arguments.items() if name not in ("base", "options")}


def in_words(arguments: Mapping[str, Any]) -> str:
    """Arguments as text: a list by its members, a switch by its name."""
    parts = []
    for name, value in arguments.items():
        shown = " + ".join(map(str, value)) if isinstance(value, list) else f"{value}"
        parts.append(shown if name == "score_terms" else name if value is True else f"{name} {shown}")
    return ", ".join(parts)


def spanned(counts: Sequence[int]) -> str:
    """The range of some numbers, a dash for zero: ``3``, ``3–5``, ``–``."""
    least, most = min(counts), max(counts)
    return "–" if not most else f"{most}" if least == most else f"{least}–{most}"
