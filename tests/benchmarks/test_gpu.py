"""The GPU benchmark, tried with tiny sizes on the CPU."""

import json

import pytest
import torch

from benchmarks import gpu


def test_every_measurement_is_taken(tmp_path):
    assert gpu.main(["--cpu", "--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert sum(name.startswith("same as the CPU") for name in rows) == 8
    assert {"sr_gnn step", "adapt_one", "adapt_many, 2 at once", "waits, order 1", "waits, order 2"} < rows.keys()
    assert 0 <= rows["time to accuracy, niser"]["mrr@20"] <= 1
    updates = [row for name, row in rows.items() if name.startswith("meta-update")]
    assert len(updates) == 2 * 2 * len(gpu.TINY.tasks)
    for row in updates:
        assert row["stacked"] > 0 and row["loop"] > 0 and not row["refused"]
        assert row["loop_scaled"] == (f"{gpu.TINY.tasks[0]} tasks" not in row["name"])


def test_what_is_left_when_the_time_is_up_is_left_out(tmp_path):
    gpu.main(["--cpu", "--seconds", "0", "--out", str(tmp_path / "found.json")])
    names = [row["name"] for row in json.loads((tmp_path / "found.json").read_text())["rows"]]
    assert len(names) == 2 and names[1].startswith("time limit reached in same")


def test_a_difference_sets_the_exit_status(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PARTS", (lambda place: iter([{"name": "same", "ok": False}]),))
    assert gpu.main(["--cpu", "--out", str(tmp_path / "found.json")]) == 1


def test_memory_that_is_too_small_for_all_tasks_is_taken_in_parts(monkeypatch):
    place = gpu.Place(torch.device("cpu"), gpu.TINY, 0.0)
    system, real = gpu.cbml(place, order=1, scope=gpu.LAYERS), gpu.meta_update

    def small(own, samples, at_once):
        if at_once > 2:
            raise torch.OutOfMemoryError("too many")
        return real(own, samples, at_once)

    monkeypatch.setattr(gpu, "meta_update", small)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert gpu.measured(place, system, 4)["at_once"] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_reports_it(capsys):
    assert gpu.main([]) == 0
    assert "PyTorch sees no GPU" in capsys.readouterr().out
