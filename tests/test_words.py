"""Words that the glossary retired stay out of code, documentation and benchmarks; use the terms of the field."""

import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for pattern in (
        *("graphmeta/**/*.py", "graphmeta/**/*.pyi", "benchmarks/*.py", "benchmarks/*.md", "docs/**/*.md", "R*.md"),
        *("examples/*.py", "examples/notebooks/*.md", "docs/make/*.py", "data/*.py", "data/**/*.md", ".github/*.md"),
    )
    for path in ROOT.glob(pattern)
)
NAMES_OF_OLD_FILES = {"graphmeta/published/load.py", "benchmarks/old_results.py"}  # they translate old names

SLOPES = {  # a name in saved models, PReLU's slope, a variable
    *("graphmeta/published/load.py", "graphmeta/adapt/stacked/operations/layers.py"),
    "graphmeta/adapt/stacked/table_gradient.py",
}

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
    r"open_sessions": ("sessions_without_target", set()),
    r"graphmeta\.recipe|system\.recipe": ("graphmeta.build_spec, system.spec; a recipe is a training recipe", set()),
    r"untwinned|Settles|encoder_alone": ("shared_with_twins, UpdatesAfterStep, base_model", set()),
    r"asars_triangle|inner_loop_few": ("asars_prefix_attention, inner_loop_100_items", set()),
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

# Gone from the library and its examples, code included.
RETIRED_IN_LIBRARY: dict[str, tuple[str, set[str]]] = {
    r"embedded log": ("bundled dataset", set()),
    r"alike": ("equal, similar", set()),
    r"rivals?": ("baselines", set()),
    r"somebody|nobody|everybody|whoever|newcomers?": ("users, unknown user", set()),
    r"people|persons": ("users", NAMES_OF_OLD_FILES),
    r"asked about|asks about|asked for": ("test queries, targets", set()),
    r"told|tells how": ("reported, given", set()),
    r"invented|[Pp]lanted\w*": ("synthetic", set()),
    r"speaks? for|looks once more": ("co-occurrence features, re-ranker", set()),
    r"pauses?": ("dwell time, inter-event time", set()),
    r"slopes?|SlopeSlots": ("gradients", SLOPES),
    r"[Tt]riangle\w*": ("causal self-attention over prefixes", set()),
    r"goes around|go around": ("wraps", set()),
    r"looked at|looks at": ("read, used", set()),
    r"weigh(?:ed|s)?": ("weighted, learnable temperature", NAMES_OF_OLD_FILES),
    r"[Rr]emembers?|remembered": ("stored, memory", set()),
    r"once more": ("refit on all data", set()),
    r"drawn|draws": ("sampled", {"graphmeta/plots/figures.py", "graphmeta/plots/session_graph.py"}),  # pictures
    r"phases": ("rounds", NAMES_OF_OLD_FILES),
    r"hat": ("retrained weights", NAMES_OF_OLD_FILES),
    r"a row an|one a|a row a": ("one row per event", set()),
    r"stays? as it is|whatever (?:stands|it is made of)": ("is not modified, unchanged", set()),
    r"for people only|stands twice|number the same ids alike": ("for display only, duplicate", set()),
    r"bring (?:more|longer)|mend it": ("use a log with, correct it", set()),
    r"unknown to the stacked engine|carries? out": ("not supported by the stacked engine, runs", set()),
    r"do(?:es)? not see each other|answers are not read|weights are reached": ("independent, targets, read", set()),
    r"lasting": ("permanent", set()),
    r"moves_states|fallback\.refusals|read_of|_loose": ("changes_states, unsupported, differentiable_parts", set()),
    r"dearest|sizes_of|FIXED": ("peak_memory_progress, task_sizes, not_adapted", set()),
    r"Asking|AgainstUnseen|AmongSeen|OwnNegatives|PeopleFeatures|PersonVector|SideBySide|OfUser": ("CHANGELOG", set()),
}

# Gone from comments, docstrings and texts of all Python files; code may use the words as names.
RETIRED_IN_PROSE: dict[str, tuple[str, set[str]]] = {
    r"person|newcomers?|anybody|anyone|someone": ("user", set()),
    r"says|saying|said": ("states, names, lists", set()),
    r"tells?|telling|told": ("reports, names, given", set()),
    r"asks?|asking|asked": ("queries, requests, at inference", {"benchmarks/tune.py"}),
    r"knows?|knew": ("reads, supports, known to", set()),
    r"stood|stands (?:for|beside|above|twice|still|in)": ("is, is reported with", set()),
    r"look(?:s|ing)? once more|gives? (?:the answer )?away|lead far": ("re-ranks, leaks", set()),
    r"rooms?|doors?|house|honest|of its own accord": ("package, public API", set()),
    r"(?:one|several|numbers|values|rows|tasks|samples|steps|clicks|columns?|loss|ms|MB) an? (?:row|task|step|sample|"
    r"click|session|channel|column|store|thread|basket|meta-update)": ("per", set()),
    r"whoever|whatever it is called|somebody's own|nobody else's": ("a user's own", set()),
    r"is no (?:name|finite|exact|mask|vector|method)|are no (?:mask|products)": ("is not a", set()),
    r"are gone|is gone": ("removed", set()),
}

# Gone from the names of tests.
RETIRED_IN_TEST_NAMES = {
    r"asks?|asked|asking": "queries, requests, at inference",
    r"tells?|told": "reports, names, distinguishes",
    r"says?|said": "reports, names",
    r"alike": "equal, similar",
    r"kin": "same category",
    r"questions?": "query, target",
    r"knows?|knew": "reads, known to",
    r"people|persons?|nobodys?|anybody|somebody|whoever|newcomers?": "users",
    r"doors?|house": "public API",
    r"evidence": "cooccurrence",
    r"pauses?": "dwell time, inter-event time",
    r"looks?|stands?": "reads, is",
    r"invented|rivals?": "synthetic, baselines",
}


def prose(text: str) -> str:
    """The comments, docstrings and texts with a blank of a Python file, at their lines; doctest lines are left out."""
    lines = text.splitlines()
    kept = [""] * (len(lines) + 1)
    strings = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type in strings and " " in token.string):
            for number, line in enumerate(token.string.splitlines(), start=token.start[0]):
                code = re.search(r"^\s*(>>>|\.\.\. )", line) or token.string.startswith(
                    ("# noqa", "# pyright", "# type:")
                )
                kept[number] += "" if code else " " + re.sub(r"``[^`]*``|`[^`]*`|\{[^{}]*\}", "``", line)
    return "\n".join(kept[1:])


def without_code(text: str) -> str:
    """A Markdown text at its lines, without code."""
    blocks = re.sub(r"^```.*?^```", lambda code: "\n" * code[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", blocks)


def uses(words: dict[str, tuple[str, set[str]]], name: str, text: str) -> list[str]:
    """Where a text uses a retired word, and the term to use."""
    return [
        f"{name}:{number}: {found[0]!r}; write {term}"
        for word, (term, allowed) in words.items()
        if name not in allowed
        for number, line in enumerate(text.splitlines(), start=1)
        for found in re.finditer(rf"(?<![\w-])({word})(?!\w)", line)
    ]


def retired(path: Path) -> list[str]:
    """The retired words of a file, and the terms to use."""
    name = path.relative_to(ROOT).as_posix()
    own = RETIRED_IN_BENCHMARKS if name.startswith(("benchmarks/", "RESULTS")) else {}
    if name.startswith(("graphmeta/", "examples/")):
        own = RETIRED_IN_LIBRARY
    text = path.read_text()
    found = uses(RETIRED | own, name, text)
    if path.suffix != ".md":
        found += uses(RETIRED_IN_PROSE, name, prose(text))
    elif not name.startswith(("benchmarks/", "RESULTS")):  # these are texts of results
        found += uses(RETIRED_IN_PROSE, name, without_code(text))
    return found


def test_no_retired_word() -> None:
    assert len(FILES) > 200 and [found for path in FILES for found in retired(path)] == []


def test_no_retired_word_in_the_names_of_tests() -> None:
    files = sorted(ROOT.glob("tests/**/*.py"))
    names = {name for path in files for name in re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE)}
    found = [(name, term) for name in names for word, term in RETIRED_IN_TEST_NAMES.items() if retired_in(word, name)]
    assert len(names) > 1000 and sorted(found) == []


def retired_in(word: str, name: str) -> bool:
    """Whether a name in snake case has the word as one of its parts."""
    return any(re.fullmatch(word, part) for part in name.split("_"))


def test_a_retired_word_is_found_with_its_line_and_term() -> None:
    assert uses(RETIRED, "a.py", "x = 1\nscores += second_look(x)") == ["a.py:2: 'second_look'; write reranker"]
    assert uses(RETIRED, "a.py", "kind, skin, akin") == uses(RETIRED, "benchmarks/old_results.py", "evidence") == []


def test_prose_is_comments_docstrings_and_texts() -> None:
    text = '"""Says why."""\n\nsaid = say("no")  # it knows\nraise ValueError(f"{said} tells a lie")\n'
    found = uses(RETIRED_IN_PROSE, "a.py", prose(text.replace("Says", "says")))
    assert [one.partition(";")[0] for one in found] == ["a.py:1: 'says'", "a.py:4: 'tells'", "a.py:3: 'knows'"]
