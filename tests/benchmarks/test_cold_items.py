"""Items nobody clicked: who is asked, the slices by a loop, the likeness by hand, and what the page says of it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import cold_items
from benchmarks.cold_items import AttributeOverlap, by_target
from benchmarks.cold_report import cold_section
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.testing import fake_log

LOG = fake_log(sessions=300)


def test_likeness_is_counted_from_the_last_click():
    sessions, known = [[3], [1, 2, 1, 38], [4, 4]], LOG.items.attributes
    some = {
        name: replace(a, codes=np.where(np.arange(LOG.num_items) % 4 == 1, 0, a.codes)) for name, a in known.items()
    }
    log = replace(LOG, items=replace(LOG.items, columns=some))
    found = AttributeOverlap(log).scores(sessions_without_target([np.array(s) for s in sessions]))
    for row, session in zip(found.tolist(), sessions, strict=True):
        for item in range(LOG.num_items):
            wanted = 0.0
            for ago, click in enumerate(reversed(session), start=1):
                for a in some.values():
                    wanted += (a.codes[item] == a.codes[click] > 0) / ago
            assert row[item] == pytest.approx(wanted)


def test_each_slice_by_a_loop():
    random = np.random.default_rng(0)
    ranks = torch.from_numpy(random.integers(1, 40, 200)).double()
    events, clicks = random.integers(0, 9, 200), random.integers(1, 8, 200)
    found = by_target(ranks, events, clicks)
    targets = {"new": range(1), "rare": range(1, 6), "all": range(100)}
    known = {"1": (1,), "2": (2,), "3-4": (3, 4), "5+": range(5, 100)}
    for name, few in targets.items():
        for slot, lengths in {None: range(100), **known}.items():
            of = [float(r) for r, e, c in zip(ranks, events, clicks, strict=True) if e in few and c in lengths]
            told = found[name] if slot is None else found[name]["context length"][slot]
            assert told["samples"] == len(of)
            assert told["hit@5"] == pytest.approx(np.mean([r <= 5 for r in of]))
            assert told["mrr@20"] == pytest.approx(np.mean([(r <= 20) / r for r in of]))


@pytest.fixture
def row(monkeypatch, tmp_path):
    """Runs a row on a fake log and returns it."""

    def run(*words):
        monkeypatch.setattr(cold_items, "DATASETS", {"complete_journey": lambda: LOG})
        monkeypatch.setattr("benchmarks.rows.RESULTS", tmp_path)
        monkeypatch.setattr(sys, "argv", ["cold_items", "complete_journey", *words, "--test-samples", "150"])
        cold_items.main()
        return json.loads((tmp_path / f"complete_journey/cold-items/{words[0]}/seed0.json").read_text())

    return run


def test_rows_have_the_same_training_and_test_samples(row):
    small = ("--epochs", "10", "--lr", "2e-2", "--arguments", '{"width": 16, "base": "gru4rec"}')
    rows = [row("popularity"), row("item_knn"), row("attribute_overlap"), row("dropout_net", *small)]
    for one in rows:
        assert one["learned_from"] == rows[0]["learned_from"] and one["items"] == rows[0]["items"]
        assert [t["samples"] for t in one["targets"].values()] == [t["samples"] for t in rows[0]["targets"].values()]
        assert one["items"]["new"] >= 4 and one["samples"] == one["targets"]["all"]["samples"] == 150
    new = {one["system"]: one["targets"]["new"]["hit@20"] for one in rows}
    assert new["popularity"] == 0.0 < new["dropout_net"]
    assert rows[1]["targets"]["new"]["hit@5"] < 0.1  # items at 0 are tied: by chance
    adapts = ("--epochs", "1", "--arguments", '{"width": 8, "base": "dropout_net", "lr": 0.5}')
    rows.append(row("melu", *adapts))
    assert rows[-1]["without_steps"] != rows[-1]["targets"] and rows[0]["without_steps"] is None
    page = cold_section("Title", rows, "A text.\n")
    best = max(rows, key=lambda one: one["targets"]["new"]["hit@20"])["system"]
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert (
        table[1].startswith(f"| {best}")
        and "gru4rec" in page
        and page.count("no adaptation at inference") == 4
        and "Rare targets by context" in page
    )
    shown = rows[2]["targets"]["new"]
    figures = " / ".join(f"{100 * shown[m]:.1f}" for m in ("hit@5", "hit@20", "mrr@20"))
    assert next(line for line in table if line.startswith("| attribute_overlap")).split("|")[2].strip() == figures
