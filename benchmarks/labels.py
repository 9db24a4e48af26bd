"""What the rows of a table are called: the system and what is special about the run, no two of a table alike."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, after

APART: dict[str, Callable[[str], str]] = {  # what is shown first where rows would be called alike
    "--lr": lambda word: f"rate {float(word):g}",
    "--epochs": lambda word: f"{word} epoch{'s' if word != '1' else ''}",
}
SHOWN: dict[str, Callable[[str], str]] = {
    "--start-from": lambda word: f"begins with {Path(word).name}",
    "--then": lambda word: f"ends with {Path(word).name}",
    "--precision": str,
    "--optimizer": str,
    "--lr": APART["--lr"],  # of what is trained on prefixes
    "--share": lambda word: f"last {float(word):.0%} of training",
}
NEVER = {"--seed", "--seeds", "--save", "--checkpoint", "--state", "--note", "--arguments", "--systems"}


def named(groups: Sequence[list[Row]]) -> dict[str, list[Row]]:
    """The seeds of each variant, by what it is called; flags tell apart what would be called alike.

    Raises:
        SystemExit: nothing does.
    """
    notes, flags = [special(runs) for runs in groups], [flags_of(runs[0]) for runs in groups]
    for flag in [*APART, *sorted({flag for each in flags for flag in each} - APART.keys() - SHOWN.keys() - NEVER)]:
        for alike in twins(groups, notes):
            words = {at: flags[at][flag] for at in alike if flag in flags[at]}
            told = {at: APART[flag](word) if flag in APART else f"{flag[2:]} {word}" for at, word in words.items()}
            if len({told.get(at) for at in alike}) > 1:
                for at, note in told.items():
                    notes[at].append(note)
    for alike in twins(groups, notes):
        name = called(groups[alike[0]][0], notes[alike[0]])
        raise SystemExit(f"{len(alike)} rows of a table are called {name!r}; give them a --note")
    return {called(runs[0], each): runs for runs, each in zip(groups, notes, strict=True)}


def twins(groups: Sequence[list[Row]], notes: Sequence[Sequence[str]]) -> list[list[int]]:
    """The places of those that are called alike."""
    places: dict[str, list[int]] = defaultdict(list)
    for at, (runs, each) in enumerate(zip(groups, notes, strict=True)):
        places[called(runs[0], each)].append(at)
    return [alike for alike in places.values() if len(alike) > 1]


def flags_of(row: Row) -> dict[str, str]:
    """The flags of a row's command, and the words after each."""
    found: dict[str, str] = {}
    flag = ""
    for word in shlex.split(row["command"]):
        if word.startswith("--"):
            found[flag := word] = ""
        elif flag:
            found[flag] = f"{found[flag]} {word}".strip()
    return found


def called(row: Row, notes: Sequence[str]) -> str:
    """The system, and its notes in brackets."""
    return row["system"] + (f" ({'; '.join(notes)})" if notes else "")


def special(runs: Sequence[Row]) -> list[str]:
    """What is special about a run and its seeds: its note, its arguments, those of its flags that matter most."""
    row, words = runs[0], shlex.split(runs[0]["command"])
    arguments = row.get("arguments", {})
    chosen = {name: found for name in arguments if (found := differing(runs, name))}
    given = {name: value for name, value in arguments.items() if name not in chosen}
    notes = [row.get("note"), within(given), in_words(own_of(given)), *(f"{n} {found}" for n, found in chosen.items())]
    for flag, tell in SHOWN.items():
        if (word := after(words, flag)) and (flag != "--lr" or row["protocol"] == "sr-gnn"):
            notes.append(tell(word))
    return [note for note in notes if note]


def differing(runs: Sequence[Row], name: str) -> str:
    """What each seed chose for an argument, if not all the same."""
    values = [str(run.get("arguments", {}).get(name)) for run in runs]
    return ", ".join(values) if len(set(values)) > 1 else ""


def within(arguments: Mapping[str, Any]) -> str:
    """What a system is around: ``around niser with repeat_bias``."""
    options = arguments.get("options", {})
    base, own = arguments.get("base"), in_words(own_of(options))
    parts = [f"around {base}" if base else "", within(options) if options else "", f"with {own}" if own else ""]
    return " ".join(filter(None, parts))


def own_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments but those that say what a system is around."""
    return {name: value for name, value in arguments.items() if name not in ("base", "options")}


def in_words(arguments: Mapping[str, Any]) -> str:
    """Arguments in words: a list by its members, a switch by its name."""
    parts = []
    for name, value in arguments.items():
        shown = " + ".join(map(str, value)) if isinstance(value, list) else f"{value}"
        parts.append(shown if name == "score_terms" else name if value is True else f"{name} {shown}")
    return ", ".join(parts)


def spanned(counts: Sequence[int]) -> str:
    """The least and the largest number, a dash for none: ``3``, ``3–5``, ``–``."""
    least, most = min(counts), max(counts)
    return "–" if not most else f"{most}" if least == most else f"{least}–{most}"
