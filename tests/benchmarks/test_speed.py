"""Rows of speed: each arm's memory is that of its own process, and stands where others have their job's."""

import numpy as np

from benchmarks import adapting, speed
from benchmarks.steps import ITEMS
from graphmeta.data.tables import EntityTable


def test_a_row_of_memory_has_the_peak_of_its_own_arm(monkeypatch):
    peaks = {("everything", 16): 600.4, ("predictor", 16): 400.0}
    monkeypatch.setattr(adapting, "peak_of", lambda arm, tasks: peaks[arm, tasks])
    monkeypatch.setitem(speed.JOBS, "batching", lambda: [adapting.cbml_memory(16), {"name": "another"}])
    told, other = speed.measured("batching")
    assert (told["ours"], told["other"], told["ratio"], told["peak_mb"]) == (600.4, 400.0, 1.501, 600)
    assert other["peak_mb"] > 50 and "16 tasks" in speed._LINE.format(**told)


def test_the_arms_adapt_the_item_table_and_the_prediction_layer_alone(monkeypatch):
    monkeypatch.setattr(adapting, "EntityTable", lambda ids, rest: EntityTable(np.arange(len(ids) // 1000), rest))
    tables = {arm: adapting.cbml(scope).adaptation.tables for arm, scope in adapting.SCOPES.items()}
    assert adapting.cbml("predictor").num_items == ITEMS // 1000
    assert len(tables["everything"]) == 1 and not tables["predictor"]
