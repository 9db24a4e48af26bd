"""Words that the glossary retired stay out of code, documentation and benchmarks; use the terms of the field."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for pattern in ("graphmeta/**/*.py", "benchmarks/*.py", "benchmarks/*.md", "docs/**/*.md", "R*.md")
    for path in ROOT.glob(pattern)
)
NAMES_OF_OLD_FILES = {"graphmeta/published/load.py", "benchmarks/old_results.py"}  # they translate old names

# A retired word, as a regular expression: the field's term, and the files that may use the word in another sense.
RETIRED: dict[str, tuple[str, set[str]]] = {
    r"second[ _]look|SecondLook": ("reranker", NAMES_OF_OLD_FILES),
    r"evidence": ("cooccurrence", NAMES_OF_OLD_FILES),
    r"kin": ("same_category", NAMES_OF_OLD_FILES),
    r"extras=": ("score_terms=", set()),
    r"counts say": ("co-occurrence features", set()),
    r"counted=|trusts_counts|uncounted": ("statistics_log=, held-out statistics", NAMES_OF_OLD_FILES),
    r"start_from|fixed=True": ("load_matching(frozen_only=True)", set()),
    r"start-from": ("--warm-start", NAMES_OF_OLD_FILES),
    r"trained=False": ("meta_trained=False", set()),
    r"[Ss]urrounded": ("context-augmented", set()),
    r"Remember(ed\w*|ing)": ("memory-augmented start", set()),
    r"[Ee]very_?[Cc]lick": ("all positions", set()),
    r"Described": ("attribute-composed embedding", set()),
    r"scrambled": ("hash", set()),
    r"System\.load": ("graphmeta.load", set()),
}
# Gone from the benchmarks and their results, not yet from the whole library.
RETIRED_IN_BENCHMARKS: dict[str, tuple[str, set[str]]] = {
    r"embedded log": ("bundled dataset", set()),
    r"alike": ("attribute-overlap baseline, equal", NAMES_OF_OLD_FILES),
    r"rivals?": ("baselines", set()),
    r"known clicks": ("context length", NAMES_OF_OLD_FILES),
    r"somebody|nobody|everybody": ("users", set()),
    r"people": ("users", set()),
    r"asked": ("test queries", NAMES_OF_OLD_FILES | {"benchmarks/cross_domain.py"}),  # CrossDomain.queries()
    r"invented": ("synthetic", set()),
    r"speaks? for|looks once more": ("co-occurrence features, re-ranker", set()),
    r"pauses?": ("dwell time, inter-event time", set()),
}

# Gone from these folders, not yet from the whole library.
REWRITTEN = ("nn", "published", "baselines", "retrain", "cli", "datasets", "plots", "recommender.py")
RETIRED_IN_REWRITTEN: dict[str, tuple[str, set[str]]] = {
    r"embedded log": ("bundled dataset", set()),
    r"alike": ("equal, similar", set()),
    r"rivals?": ("baselines", set()),
    r"somebody|nobody|everybody|whoever|newcomers?": ("users, unknown user", set()),
    r"people|persons?": ("users", NAMES_OF_OLD_FILES),
    r"asked about|asks about|asked for": ("test queries, targets", set()),
    r"told|tells how": ("reported, given", set()),
    r"invented|[Pp]lanted\w*": ("synthetic", set()),
    r"speaks? for|looks once more": ("co-occurrence features, re-ranker", set()),
    r"pauses?": ("dwell time, inter-event time", set()),
    r"slopes?|SlopeSlots": ("gradients", set()),
    r"[Tt]riangle\w*": ("causal self-attention over prefixes", set()),
    r"goes around|go around": ("wraps", set()),
    r"looked at|looks at": ("read, used", set()),
    r"weigh(?:ed|s)?": ("weighted, learnable temperature", NAMES_OF_OLD_FILES),
    r"[Rr]emembers?|remembered": ("stored, memory", set()),
    r"once more": ("refit on all data", set()),
    r"phases": ("rounds", NAMES_OF_OLD_FILES),
    r"hat": ("retrained weights", NAMES_OF_OLD_FILES),
    r"a row an|one a|a row a": ("one row per event", set()),
    r"Asking|AgainstUnseen|AmongSeen|OwnNegatives|PeopleFeatures|PersonVector|SideBySide|OfUser": ("CHANGELOG", set()),
}


def uses(words: dict[str, tuple[str, set[str]]], name: str, text: str) -> list[str]:
    """Where a text uses a retired word, and the term to use."""
    return [
        f"{name}:{number}: {found[0]!r}; write {term}"
        for word, (term, allowed) in words.items()
        if name not in allowed
        for number, line in enumerate(text.splitlines(), start=1)
        for found in re.finditer(rf"(?<![\w-])({word})(?!\w)", line)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_retired_word(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    own = RETIRED_IN_BENCHMARKS if name.startswith(("benchmarks/", "RESULTS")) else {}
    if name.startswith(tuple(f"graphmeta/{part}" for part in REWRITTEN)):
        own = RETIRED_IN_REWRITTEN
    assert uses(RETIRED | own, name, path.read_text()) == []


def test_a_retired_word_is_found_with_its_line_and_term() -> None:
    assert uses(RETIRED, "a.py", "x = 1\nscores += second_look(x)") == ["a.py:2: 'second_look'; write reranker"]
    assert uses(RETIRED, "a.py", "kind, skin, akin") == uses(RETIRED, "benchmarks/old_results.py", "evidence") == []
