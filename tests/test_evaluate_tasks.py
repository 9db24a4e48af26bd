"""Tasks with several targets, ranked and measured as a loop over people would do it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from graphmeta.baselines import Popularity
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate_sampled, evaluate_tasks, sampled_negatives
from graphmeta.published.catalogue import build
from graphmeta.sampling.few_shot import next_click, sampled_tasks
from graphmeta.testing import fake_log
from tests.oracles import ties

LOG = fake_log(sessions=70)
TASKS = sampled_tasks(LOG, max_events=6)


class Rounded:
    """Scores that depend on the known items, with many ties."""

    num_items, reads_tasks = LOG.num_items, False

    def scores(self, samples):
        rows = [samples.item[b:e].sum() for b, e in zip(samples.begin, samples.end, strict=True)]
        return torch.tensor(
            [[math.floor(15 * math.sin(row * (item + 1))) for item in range(40)] for row in rows]
        ).float()


def by_hand(model, tasks, k):
    """One person after the other, one target after the other."""
    found = {"hit": [], "ndcg": [], "hit_of_best": [], "hit_any": []}
    for t in range(len(tasks)):
        support, query = slice(*tasks.support_ptr[t : t + 2]), slice(*tasks.query_ptr[t : t + 2])
        scores = model.scores(tasks.query.take(query))[0].tolist()
        known, targets = set(tasks.support.target[support].tolist()), tasks.query.target[query].tolist()
        left = [item for item in range(len(scores)) if item not in known]
        scores, targets = [scores[item] for item in left], [left.index(target) for target in targets]
        hits = sum(ties.share_within(scores, target, k) for target in targets)
        best = min(k, len(targets))
        found["hit"].append(hits / len(targets))
        found["hit_of_best"].append(hits / best)
        found["hit_any"].append(ties.any_within(scores, targets, k))
        ideal = sum(1 / math.log2(2 + place) for place in range(best))
        gains = [[(r <= k) / math.log2(1 + r) for r in ties.places(scores, target)] for target in targets]
        found["ndcg"].append(sum(map(np.mean, gains)) / ideal)
    return found


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_measures_are_those_of_a_loop(batch_size):
    result = evaluate_tasks(Rounded(), TASKS, ks=(2, 10), batch_size=batch_size)
    for k in (2, 10):
        for name, values in by_hand(Rounded(), TASKS, k).items():
            assert result.metrics[f"{name}@{k}"] == pytest.approx(np.mean(values), abs=1e-12)
    assert result.metrics["hit@2"] < result.metrics["hit_of_best@2"]
    few = [v for v, size in zip(by_hand(Rounded(), TASKS, 2)["ndcg"], TASKS.support_sizes, strict=True) if size == 2]
    assert result.slices["context length"]["2"]["ndcg@2"] == pytest.approx(np.mean(few), abs=1e-12)
    assert result.slices["context length"]["2"]["samples"] == len(few)
    assert result.samples == len(TASKS) and result.candidates == 40 - TASKS.support_sizes.max()


def test_evaluation_uses_the_system_adaptation():
    torch.manual_seed(0)
    system = build("meta_cf_g", LOG.items, width=4, lr=1.0)
    before = evaluate_tasks(system, TASKS).metrics
    scores = system.scores(TASKS.first_queries())

    row = {session: number for number, session in enumerate(TASKS.first_queries().query.session)}

    class Fixed(Rounded):
        def scores(self, samples):
            return scores[[row[session] for session in samples.session]]

    assert evaluate_tasks(Fixed(), TASKS).metrics == pytest.approx(before)


def test_constant_scores_are_chance():
    class Constant(Rounded):
        def scores(self, samples):
            return torch.zeros(len(samples), self.num_items)

    found = evaluate_tasks(Constant(), TASKS, ks=(10,)).metrics
    left = Rounded().num_items - TASKS.support_sizes  # candidates of each task
    assert found["hit@10"] == pytest.approx((10 / left).mean())
    assert evaluate_tasks(Constant(), TASKS, ks=(30,)).metrics["ndcg@30"] < 1
    assert evaluate_tasks(Popularity(LOG), TASKS).metrics["hit@10"] > 0


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="k=37 is not below the number of candidates, 37"):
        evaluate_tasks(Rounded(), TASKS, ks=(37,))
    twice = replace(TASKS, query=replace(TASKS.query, target=np.zeros_like(TASKS.query.target)))
    with pytest.raises(InputError, match="target of two queries, or in support"):
        evaluate_tasks(Rounded(), twice)


def test_the_first_clicks_are_the_context_and_the_next_is_the_target():
    samples = next_click(LOG, 4)
    assert len(samples) == LOG.num_sessions and (samples.lengths == 4).all()
    for row in range(0, len(samples), 9):
        first = LOG.ptr[samples.session[row]]
        assert samples.item[samples.begin[row] : samples.end[row]].tolist() == LOG.item[first : first + 4].tolist()
        assert samples.target[row] == LOG.item[first + 4]
    assert len(next_click(LOG, 6)) == 0


def test_against_a_few_the_rank_is_counted_among_them():
    samples = next_click(LOG, 3)
    against = sampled_negatives(samples, LOG, count=12, seed=2)
    assert (against == sampled_negatives(samples, LOG, count=12, seed=2)).all()
    assert (against != sampled_negatives(samples, LOG, count=12, seed=3)).any()
    found = evaluate_sampled(Rounded(), samples, against, ks=(1, 3), batch_size=9)
    scores, hits, reciprocal = Rounded().scores(samples).numpy(), [], []
    for row, others in enumerate(against):
        session = samples.session[row]
        assert len(set(others)) == 12 and not set(others) & set(LOG.item[LOG.session == session].tolist())
        own, rest = scores[row, samples.target[row]], scores[row, others]
        places = 1 + (rest > own).sum() + np.arange(1 + (rest == own).sum())
        hits.append(np.mean(places <= 3))
        reciprocal.append(np.mean((places <= 3) / places))
    assert found.metrics["hit@3"] == pytest.approx(np.mean(hits))
    assert found.metrics["mrr@3"] == pytest.approx(np.mean(reciprocal)) and found.candidates == 13
    with pytest.raises(InputError, match="k=13 is not below the number of candidates, 13"):
        evaluate_sampled(Rounded(), samples, against, ks=(13,))
    with pytest.raises(InputError, match="target is among its negatives"):
        evaluate_sampled(Rounded(), samples, samples.target[:, None].repeat(12, 1))
    with pytest.raises(InputError, match="only 34 items have no click in a session, not 35"):
        sampled_negatives(samples, LOG, count=35)
