"""What is told of a model is what was measured."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.baselines import Popularity
from graphmeta.cli.model_card import titles
from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.evaluation.adaptation_curves import by_steps
from graphmeta.evaluation.compare import Comparison, baselines, compare
from graphmeta.evaluation.lists import COMPARED_KS
from graphmeta.evaluation.protocol import cuts, unseen
from graphmeta.evaluation.ranking import evaluate
from graphmeta.evaluation.result import Result
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log

LOG = fake_log(sessions=30)


def test_without_steps_a_system_answers_from_its_start_gate_and_all():
    torch.manual_seed(0)
    system = build("cbml", LOG.items, base="sr_gnn", width=8, lr=20.0)
    with torch.no_grad():  # a gate that says something
        for parameter in system.adaptation.start.parameters():
            parameter.normal_()
    queries = last_clicks(LOG)
    found = compare(system, queries, past=LOG, models=baselines(LOG), bar=lambda rows, _: rows)
    start = by_steps(system, queries, steps=[0], ks=COMPARED_KS).results[0]
    assert torch.equal(found["without_steps"].ranks, start.ranks)
    assert torch.equal(found["system"].ranks, evaluate(system, queries, ks=COMPARED_KS).ranks)
    adaptation, system.adaptation = system.adaptation, None
    plain = evaluate(system, queries, ks=COMPARED_KS).ranks
    assert not torch.equal(start.ranks, plain)
    assert not torch.equal(start.ranks, found["system"].ranks)
    assert adaptation.steps == 1
    assert titles("cbml", found)["without_steps"] == "cbml, without inner steps"


def result(hit: float, mrr: float) -> Result:
    found = evaluate(Popularity(LOG), last_clicks(LOG), ks=COMPARED_KS)
    return Result({**found.metrics, "hit@20": hit, "mrr@20": mrr}, {}, 30, 40, 0.0, found.positions)


def test_a_comparison_ends_with_what_is_ahead_of_the_system():
    found = Comparison(popularity=result(0.2, 0.1), session_knn=result(0.5, 0.1), stan=result(0.5, 0.3))
    found["system"] = result(0.4, 0.2)
    assert found.behind() == {"session_knn": ["hit@20"], "stan": ["hit@20", "mrr@20"]}
    assert str(found).splitlines()[-1] == (
        "system is behind session_knn (Hit@20 40.00 against 50.00 %); stan (Hit@20 40.00 against 50.00 %, MRR@20 20.00 "
        "against 30.00 %) on the same 30 samples"
    )
    ahead = Comparison(found, system=result(0.5, 0.3))
    assert ahead.behind() == {} and ahead.verdict() is None and "behind" not in str(ahead)


@pytest.mark.parametrize(("changed", "anew"), [([9, 7], False), ([9, 8, 7], True), ([8, 6], False), ([], False)])
def test_ids_begin_anew_where_most_of_the_last_sessions_have_other_clicks(changed: list[int], anew: bool):
    """Without times; five sessions up to the cut are in both logs."""
    log = EventLog.read(pd.DataFrame({"s": np.repeat(np.arange(12), 2), "i": np.arange(24)}), session="s", item="i")
    kept = cuts(log, Split(log, log, log, valid_from=10.0 * 2, test_from=float(log.starts[10])))
    assert kept["last_session_before_test"] == 9
    later = log.of_sessions(np.arange(12) >= 5)
    item = np.where(np.isin(later.sessions[later.session], changed), later.item[::-1], later.item)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        new = unseen(replace(later, item=item), kept)
    assert new.sessions.tolist() == (list(range(5, 12)) if anew else [10, 11])
    assert [str(one.message).startswith("session 9 has other clicks") for one in told] == [True] * anew


def test_a_catalogue_below_the_lists_is_compared_with_shorter_ones():
    log = fake_log(sessions=30, items=10, length=4)
    torch.manual_seed(0)
    system = build("sr_gnn", log.items, width=4).eval()
    with pytest.warns(UserWarning, match="only 10 items can be ranked, so lists of 5 are measured instead of 5, 20"):
        found = compare(system, last_clicks(log), past=log, models=baselines(log), bar=lambda rows, _: rows)
    for one in found.values():
        assert sorted(one.metrics) == ["hit@5", "mrr@5", "ndcg@5"]
    with pytest.warns(UserWarning, match="instead of 5, 10, 20"):
        assert evaluate(system, log).metrics["hit@5"] == found["system"].metrics["hit@5"]
    two = fake_log(sessions=30, items=2, length=4)
    with pytest.warns(UserWarning, match="only 2 items can be ranked, so lists of 1"):
        assert 0 < evaluate(Popularity(two), two).metrics["hit@1"] < 1
