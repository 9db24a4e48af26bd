"""Labels of rows are unique; published figures stand beside comparable rows only."""

import json

import pytest

from benchmarks.labels import label, named, spanned, special
from benchmarks.pages import judged
from benchmarks.report import as_published, clusters, report
from benchmarks.rows import results
from benchmarks.tables import HERE


def row(system, words="", *, protocol="cbml", note="", **arguments):
    command = f"python -m benchmarks.accuracy diginetica {system} {words}".strip()
    return {"system": system, "protocol": protocol, "arguments": arguments, "note": note, "command": command}


def labelled(*runs):
    return label(runs[0], special(runs))


def test_arguments_are_part_of_the_label():
    score_terms = {"score_terms": ["repeat_bias", "same_category"]}
    assert labelled(row("reranker", options=score_terms)) == "reranker (with repeat_bias + same_category)"
    assert (
        labelled(row("cbml", base="niser", options=score_terms, lr=0.1))
        == "cbml (base niser with repeat_bias + same_category; lr 0.1)"
    )
    around = row("cbml", base="reranker", options={"options": score_terms}, learned=True, scope=["a", "b"])
    assert labelled(around) == "cbml (base reranker with repeat_bias + same_category; learned, scope a + b)"
    nested = row("melu", "--warm-start saved/x", base="dropout_net", options={"base": "sr_gnn", "width": 8}, note="n")
    assert labelled(nested) == "melu (n; base dropout_net over sr_gnn with width 8; warm start: x)"


def test_settings_chosen_by_each_seed_are_listed():
    runs = [row("meta_cf_neural", lr=lr, sums=False) for lr in (0.01, 0.2, 0.2)]
    assert labelled(*runs) == "meta_cf_neural (sums False; lr 0.01, 0.2, 0.2)"
    assert labelled(*runs[1:]) == "meta_cf_neural (lr 0.2, sums False)"
    assert [spanned(counts) for counts in ([3, 3], [5, 3, 4], [0, 0])] == ["3", "3–5", "–"]


def test_equal_labels_are_distinguished_by_flags():
    words = ("--epochs 2", "--epochs 3", "--epochs 3 --lr 2e-3", "--epochs 3 --batch-size 50 --save saved/x")
    found = named([[row("gc_san", each)] for each in words] + [[row("sr_gnn", "--lr 1e-2 --epochs 1")]])
    assert list(found) == [
        "gc_san (2 epochs)",
        "gc_san (3 epochs)",
        "gc_san (rate 0.002)",
        "gc_san (3 epochs; batch-size 50)",
        "sr_gnn",
    ]
    with pytest.raises(SystemExit, match="2 rows of a table have the label 'sr_gnn .rate 0.1.'"):
        named([[row("sr_gnn", f"--lr 0.1 --save {word}", protocol="sr-gnn")] for word in "ab"])


def test_published_figures_are_beside_the_published_system_alone():
    score_terms = {"score_terms": ["cooccurrence"]}
    plain = [row("sr_gnn", "--lr 2e-3 --epochs 9"), row("sr_gnn", "--share 1.0 --warm-start saved/sr_gnn")]
    around = [row("cbml", lr=0.1), row("cbml", base="if_san")]
    other = [row("cbml", base="niser"), row("cbml", options=score_terms), row("sr_gnn", **score_terms)]
    assert all(map(as_published, plain + around))
    assert not any(map(as_published, [*other, row("sr_gnn", "--share 0.3")]))


def test_the_page_of_all_results():
    page = [line for line in report(results(folder=HERE / "results")).splitlines() if line.startswith("| ")]
    assert len(page) > 500 and not [line for line in page if "{" in line]
    told = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in page if line.count("|") == 11}
    assert told["tagnn"] != "–"
    assert {told[name] for name in told if "base niser" in name or "of training" in name} == {"–"}


def test_collapsed_clusters_are_named():
    sizes = {"sizes": [3120, 0, 11], "largest_membership": 0.341, "distinct": 1.0004}
    (line,) = clusters({"niser": [{}], "cluster_seq": [{"clusters": sizes}, {}]})
    assert line.startswith("Clusters of `cluster_seq`: 3,120, 0, 11 test users by largest membership, which is 0.34 on")
    assert line.endswith("is 1.00 of 3, so they have collapsed.\n")
    (line,) = clusters({"cluster_seq": [{"clusters": sizes | {"distinct": 2.5}}]})
    assert line.endswith("is 2.50 of 3.\n")


def test_the_differences_to_other_packages_are_those_of_the_judges():
    lines = [line for line in judged() if line.startswith("| ")][1:]
    stored = json.loads((HERE / "judges.json").read_text())["rows"]
    for line in lines:
        package, version, count, _, worst = (cell.strip() for cell in line.strip("| ").split(" | "))
        own = [row for row in stored if (row["package"], row["version"]) == (package, version)]
        assert len(own) == int(count) and float(worst) == pytest.approx(max(r["difference"] for r in own), rel=0.1)
        assert float(worst) < 1e-12
    assert {line.split(" | ")[0].strip("| ") for line in lines} == {row["package"] for row in stored}
