"""The figure on drawn test prefixes beside that on all of them."""

import numpy as np

import graphmeta as gm
from benchmarks import draws
from graphmeta.testing import fake_log


def test_draws_are_of_the_whole_tests_ranks(monkeypatch, tmp_path, capsys):
    log = fake_log(sessions=40, items=30)
    system = gm.build("niser", log.items, width=4)
    system.save(tmp_path / "model")
    monkeypatch.setitem(draws.LOADED, "diginetica", lambda: (log, log))
    queries = gm.prefixes(log)
    draws.main(["diginetica", str(tmp_path / "model"), "--size", str(len(queries)), "--draws", "2"])
    first, *rest = [[float(x) for x in line.split()[-2:]] for line in capsys.readouterr().out.splitlines()]
    found = gm.evaluate(system, queries, ks=(20,)).metrics
    assert np.allclose(first, [100 * found["hit@20"], 100 * found["mrr@20"]], atol=0.01)
    assert rest == [first, first, first, [0, 0]]  # a draw of all is all


def test_a_draw_has_no_rank_twice():
    ranks = np.arange(1, 101)
    one, again, other = (draws.drawn(ranks, 30, seed) for seed in (0, 0, 1))
    assert len(set(one)) == 30 and one.tolist() == again.tolist() != other.tolist()
    assert draws.figures(np.array([1, 20, 21, 4.0])).tolist() == [75, 100 * (1 + 1 / 20 + 1 / 4) / 4]
