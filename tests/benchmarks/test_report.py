"""What the page calls its rows: no two alike, in words, and beside published figures only where they are comparable."""

import pytest

from benchmarks.labels import called, named, spanned, special
from benchmarks.report import as_published, report
from benchmarks.rows import results
from benchmarks.tables import HERE


def row(system, words="", *, protocol="cbml", note="", **arguments):
    command = f"python -m benchmarks.accuracy diginetica {system} {words}".strip()
    return {"system": system, "protocol": protocol, "arguments": arguments, "note": note, "command": command}


def label(*runs):
    return called(runs[0], special(runs))


def test_arguments_are_told_in_words():
    score_terms = {"score_terms": ["repeat_bias", "same_category"]}
    assert label(row("reranker", options=score_terms)) == "reranker (with repeat_bias + same_category)"
    assert (
        label(row("cbml", base="niser", options=score_terms, lr=0.1))
        == "cbml (around niser with repeat_bias + same_category; lr 0.1)"
    )
    around = row("cbml", base="reranker", options={"options": score_terms}, learned=True, scope=["a", "b"])
    assert label(around) == "cbml (around reranker with repeat_bias + same_category; learned, scope a + b)"
    nested = row("melu", "--start-from saved/x", base="dropout_net", options={"base": "sr_gnn", "width": 8}, note="n")
    assert label(nested) == "melu (n; around dropout_net around sr_gnn with width 8; begins with x)"


def test_what_seeds_chose_for_themselves_is_told_of_each():
    runs = [row("meta_cf_neural", lr=lr, sums=False) for lr in (0.01, 0.2, 0.2)]
    assert label(*runs) == "meta_cf_neural (sums False; lr 0.01, 0.2, 0.2)"
    assert label(*runs[1:]) == "meta_cf_neural (lr 0.2, sums False)"
    assert [spanned(counts) for counts in ([3, 3], [5, 3, 4], [0, 0])] == ["3", "3–5", "–"]


def test_rows_of_a_table_that_would_be_called_alike_are_told_apart():
    words = ("--epochs 2", "--epochs 3", "--epochs 3 --lr 2e-3", "--epochs 3 --batch-size 50 --save saved/x")
    found = named([[row("gc_san", each)] for each in words] + [[row("sr_gnn", "--lr 1e-2 --epochs 1")]])
    assert list(found) == [
        "gc_san (2 epochs)",
        "gc_san (3 epochs)",
        "gc_san (rate 0.002)",
        "gc_san (3 epochs; batch-size 50)",
        "sr_gnn",
    ]
    with pytest.raises(SystemExit, match="2 rows of a table are called 'sr_gnn .rate 0.1.'"):
        named([[row("sr_gnn", f"--lr 0.1 --save {word}", protocol="sr-gnn")] for word in "ab"])


def test_published_figures_stand_beside_the_published_system_alone():
    score_terms = {"score_terms": ["cooccurrence"]}
    plain = [row("sr_gnn", "--lr 2e-3 --epochs 9"), row("sr_gnn", "--share 1.0 --start-from saved/sr_gnn")]
    around = [row("cbml", lr=0.1), row("cbml", base="if_san")]
    other = [row("cbml", base="niser"), row("cbml", options=score_terms), row("sr_gnn", **score_terms)]
    assert all(map(as_published, plain + around))
    assert not any(map(as_published, [*other, row("sr_gnn", "--share 0.3")]))


def test_the_page_of_all_results():
    page = [line for line in report(results(folder=HERE / "results")).splitlines() if line.startswith("| ")]
    assert len(page) > 500 and not [line for line in page if "{" in line]
    told = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in page if line.count("|") == 11}
    assert told["tagnn"] != "–"
    assert {told[name] for name in told if "around niser" in name or "of training" in name} == {"–"}
