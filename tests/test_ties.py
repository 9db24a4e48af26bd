"""Every protocol counts a tie as the expected value over random order: against all orders of the candidates."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import cold_items, few_shot
from graphmeta.data.events import EventLog
from graphmeta.evaluation.next_basket import evaluate_next_basket
from graphmeta.evaluation.ranking import evaluate, evaluate_sampled, evaluate_tasks, sampled_negatives
from graphmeta.retrain.period import Period
from graphmeta.retrain.testing import StreamEvaluation
from graphmeta.sampling.few_shot import next_click, support_from_clicks
from graphmeta.sampling.histories import every_event
from graphmeta.sampling.samples import last_clicks

ITEMS, KS = 6, (1, 3)


def log_of() -> EventLog:
    """Ten users of one session each, of three or four of six items."""
    rows = [(s, (s + k * (1 + s % 2)) % ITEMS, 100 * s + k) for s in range(10) for k in range(3 + s % 2)]
    frame = pd.DataFrame(rows, columns=["s", "i", "t"]).drop_duplicates(["s", "i"]).assign(u=lambda f: f["s"])
    return EventLog.read(frame, session="s", item="i", time="t", user="u")


LOG = log_of()


class Tied:
    """Three scores for six items, by the number of clicks."""

    num_items = ITEMS
    reads_tasks = False

    def scores(self, samples):  # noqa: ANN001, ANN201
        """``[S, 6]``."""
        lengths = torch.from_numpy(np.atleast_1d(samples.query.lengths))
        return ((torch.arange(ITEMS) * (1 + lengths[:, None])) % 3).float()


def over_all_orders(scores: dict[int, float], target: int) -> dict[str, float]:
    """The means of Hit, MRR and nDCG over all orders of the candidates by descending score."""
    places = [
        order.index(target) + 1
        for order in itertools.permutations(scores)
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    gains = {"hit": lambda r: 1.0, "mrr": lambda r: 1 / r, "ndcg": lambda r: 1 / math.log2(1 + r)}
    return {f"{m}@{k}": float(np.mean([g(r) if r <= k else 0.0 for r in places])) for k in KS for m, g in gains.items()}


def expected(samples, candidates) -> dict[str, float]:  # noqa: ANN001
    """The means over samples; ``candidates(s)`` are those of sample s."""
    scores = Tied().scores(samples).tolist()
    each = [
        over_all_orders({i: scores[s][i] for i in candidates(s)}, int(samples.target[s])) for s in range(len(samples))
    ]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def test_all_items_and_slices_by_the_targets_frequency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_items, "KS", KS)
    samples, support = last_clicks(LOG), np.array([0, 2, 0, 9, 3, 0])
    wanted = expected(samples, lambda s: range(ITEMS))
    assert evaluate(Tied(), samples, ks=KS).metrics == pytest.approx(wanted)
    result = cold_items.ranked(Tied(), samples, support)
    found = cold_items.by_target(result.positions, support[samples.target], samples.lengths)
    for name, (low, high) in cold_items.TARGETS.items():
        own = samples.take((support[samples.target] >= low) & (support[samples.target] <= high))
        wanted = {"samples": len(own), **expected(own, lambda s: range(ITEMS))}
        assert {key: found[name][key] for key in wanted} == pytest.approx(wanted)


def test_sampled_items_of_few_shot_users() -> None:
    samples = next_click(LOG, 2)
    negatives = sampled_negatives(samples, LOG, count=2)
    wanted = expected(samples, lambda s: [int(samples.target[s]), *negatives[s].tolist()])
    wanted = {name: value for name, value in wanted.items() if not name.endswith("@3")}
    assert evaluate_sampled(Tied(), samples, negatives, ks=(1,)).metrics == pytest.approx(wanted)
    assert few_shot.evaluate_sampled is evaluate_sampled and few_shot.evaluate is evaluate


def test_tasks_leave_their_support_out() -> None:
    samples = last_clicks(LOG)
    wanted = expected(
        samples, lambda s: set(range(ITEMS)) - set(samples.item[samples.begin[s] : samples.end[s]].tolist())
    )
    tasks = support_from_clicks(samples)
    found = evaluate_tasks(Tied(), tasks.take(tasks.query.lengths == 2), ks=(1,)).metrics
    own = samples.take(samples.lengths == 2)
    wanted = expected(own, lambda s: set(range(ITEMS)) - set(own.item[own.begin[s] : own.end[s]].tolist()))
    assert found["hit@1"] == pytest.approx(wanted["hit@1"]) and found["ndcg@1"] == pytest.approx(wanted["ndcg@1"])


def test_a_streams_clicks_among_sampled_and_all_items() -> None:
    """With as many sampled items as a user has not clicked, the candidates are known."""
    period = Period.of(LOG, np.array([0.0, 300.0, 2000.0]), 1)
    rows = every_event(period.past)
    rows = rows.take(period.is_new(rows).nonzero()[0])
    own = [set(LOG.item[LOG.session == s].tolist()) for s in range(LOG.num_sessions)]
    left = min(ITEMS - len(one) for one in own)
    rows = rows.take(np.array([ITEMS - len(own[s]) == left for s in rows.session]))
    evaluation = StreamEvaluation(negatives=left, ks=(1,), samples=lambda log, **_: rows)
    found = evaluation.measure(Tied(), period)  # type: ignore[arg-type]
    assert len(rows) > 5 and found.rows == len(rows)
    for measured, candidates in (
        (found.full, lambda s: range(ITEMS)),
        (found.sampled, lambda s: {int(rows.target[s])} | (set(range(ITEMS)) - own[rows.session[s]])),
    ):
        wanted = expected(rows, candidates)
        assert measured == pytest.approx({name: wanted[name] for name in measured})


def test_the_items_of_a_next_basket() -> None:
    """Recall of several items is the mean over them."""

    class Halves(Tied):
        items = LOG.items

        def scores(self, samples):  # noqa: ANN001, ANN202
            return (torch.arange(ITEMS) % 2).float().expand(len(samples), -1)

    log = replace(LOG, session_user=np.arange(10) % 5)
    parts = (np.arange(10) < 5, np.arange(10) > 4)
    early, late = (log.of_sessions(part).aligned_to(log.items, log.users) for part in parts)
    found = evaluate_next_basket(Halves(), late, history=early, ks=KS).metrics
    scores = {i: float(i % 2) for i in range(ITEMS)}
    for k in KS:
        hits = [[over_all_orders(scores, int(i))[f"hit@{k}"] for i in late.item[late.session == s]] for s in range(5)]
        assert found[f"recall@{k}"] == pytest.approx(np.mean([np.mean(own) for own in hits]))
