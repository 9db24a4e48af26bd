"""The findings in detail: figures come from rows, and paragraphs are short."""

import re
from statistics import mean

import pytest

from benchmarks.pages import FROM_ROWS, HERE, from_rows, pages
from benchmarks.rows import read
from benchmarks.texts import HEAD


def filled(text):
    return FROM_ROWS.sub(from_rows, text)


def test_figures_of_the_findings_come_from_rows():
    folder = HERE / "results" / "diginetica" / "sr-gnn"
    (knn,) = (folder / "item_knn").glob("seed*.json")
    hit = 100 * read(knn)["metrics"]["hit@20"]
    assert filled("{{diginetica/sr-gnn/item_knn: hit@20}}") == f"{hit:.2f}"
    assert filled("{{diginetica/sr-gnn/item_knn}}").startswith(f"{hit:.2f} / ")
    seeds = [100 * read(path)["metrics"]["hit@5"] for path in (folder / "niser").glob("recipe-seed*.json")]
    shown = filled("a | {{diginetica/sr-gnn/niser/recipe: hit@5 | mrr@5}} |")
    assert len(seeds) > 1 and shown.startswith(f"a | {mean(seeds):.2f} ± ") and shown.count("|") == 3
    one = filled("{{diginetica/sr-gnn/niser/recipe-seed1: hit@5}}")
    assert "±" not in one and float(one) == pytest.approx(
        100 * read(folder / "niser" / "recipe-seed1.json")["metrics"]["hit@5"], abs=0.01
    )
    known = "{{complete_journey/users-time/personal_frequency: known_sessions.0.hit@20 | known_sessions.all.hit@20}}"
    none, every = map(float, filled(known).split(" | "))
    assert none < every


def test_a_row_or_metric_that_is_gone_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"findings\.md: no row diginetica/sr-gnn/none"):
        filled("{{diginetica/sr-gnn/none}}")
    with pytest.raises(KeyError, match="hit@7"):
        filled("{{diginetica/sr-gnn/item_knn: hit@7}}")


def test_the_page_of_findings_has_no_braces_and_short_paragraphs():
    text = (HERE / "findings.md").read_text()
    assert len(text.splitlines()) <= 200
    page = f"{HEAD}\n{filled(text)}"
    assert page in pages()["findings"] and "{{" not in page and "}}" not in page
    blocks = [part for part in re.split(r"\n\n|\n\* ", page) if not part.startswith("|")]
    assert [part for part in blocks if len(part.split()) > 90] == []
