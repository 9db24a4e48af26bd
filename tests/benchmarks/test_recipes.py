"""The default recipe against eleven others: what is tried, and how it is written."""

import sys

import pytest

from benchmarks import recipes, report, rows
from graphmeta.testing import fake_log
from graphmeta.training.recipes import TrainingRecipe


def test_twelve_different_recipes_the_default_first():
    tried = recipes.twelve(TrainingRecipe().for_size(samples=200_000, num_items=5_000))
    assert tried[0] == TrainingRecipe().for_size(samples=200_000, num_items=5_000)
    assert len({repr(recipe) for recipe in tried}) == 12
    assert {recipe.batch_size for recipe in tried} == {64, 128, 256}
    assert {recipe.optimizer.lr for recipe in tried} == {0.001, 0.002, 0.004}
    assert {recipe.epochs for recipe in tried} == {4, 2, 6, 8}


@pytest.mark.filterwarnings("ignore")
def test_a_run_writes_a_row_resumes_and_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setitem(recipes.LOGS, "eshop_clothing", lambda: fake_log(sessions=60))
    monkeypatch.setattr(sys, "argv", ["recipes", "eshop_clothing", "sr_gnn"])
    monkeypatch.setattr(recipes, "twelve", lambda recipe: [TrainingRecipe(epochs=1).filled_from(recipe)] * 2)
    recipes.main()
    (row,) = rows.results("eshop_clothing", "recipes", folder=tmp_path)
    assert len(row["trials"]) == 2 and row["share"] == 1.0  # the same recipe and seed
    assert "the default has 100.0% of the best" in capsys.readouterr().out
    monkeypatch.setattr(recipes, "tried", None)  # not trained again
    recipes.main()
    page = report.report([row])
    assert "sr_gnn, seed 0" in page and page.count("| 64 | 0.002 | 1 |") == 2
