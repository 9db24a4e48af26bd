"""Every score term inside an adaptation: all tasks at once agree with the per-task loop."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.nn.score_terms.cooccurrence import Cooccurrence
from graphmeta.nn.score_terms.repeat import RepeatBias
from graphmeta.nn.score_terms.reranker import Reranker
from graphmeta.nn.score_terms.same_category import SameCategory
from graphmeta.protocols import FitsStatistics
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.tasks import task_batch
from graphmeta.testing import fake_log

pytestmark = pytest.mark.usefixtures("float64")
WIDTH, LOG = 4, fake_log(sessions=60, items=12, seed=3)
TERMS: dict[str, Callable[[], nn.Module]] = {
    "repeat_bias": RepeatBias,
    "same_category": lambda: SameCategory(LOG.items.attributes["category"]),
    "cooccurrence": lambda: Cooccurrence(LOG.num_items, neighbours=5),
    "reranker": lambda: Reranker(LOG.num_items, list(LOG.items.attributes.values()), neighbours=5),
}


ALL = (*((name,) for name in TERMS), ("cooccurrence", "repeat_bias"), ("reranker", "same_category"))


def model_with(names: Sequence[str]) -> Recommender:
    """A recommender whose score terms have random weights and the statistics of the log."""
    torch.manual_seed(0)
    head = Dot(Last(), score_terms={name: TERMS[name]() for name in names})
    head.learn_temperature()
    for term in head.score_terms.values():
        if isinstance(term, FitsStatistics):
            term.fit_statistics(LOG)
        for weight in term.parameters():
            weight.data += torch.randn_like(weight)
    return Recommender(ItemFeatures(LOG.num_items, WIDTH), GatedSessionGraph(WIDTH), head)


@pytest.mark.covering
@pytest.mark.parametrize("names", ALL, ids="+".join)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scope", ["head", ""], ids=["head", "everything"])
def test_stacked_is_the_loop(names: tuple[str, ...], order: int, scope: str) -> None:
    tasks, found = task_batch(last_clicks(LOG).take(np.arange(12)), num_items=LOG.num_items), []
    for stacked in (True, False):
        model = model_with(names)
        chosen = Scope(scope, without=["head.score_terms.reranker"])
        adaptation = Adaptation(chosen, step=Gradient(0.3), steps=2, order=order, stacked=stacked)
        adaptation.bind(model)
        losses = adaptation.run(model, tasks, SoftmaxLoss())
        assert not adaptation.fell_back
        learned = [weight for weight in model.parameters() if weight.requires_grad]
        found.append([losses, *torch.autograd.grad(losses.sum(), learned)])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)


def test_no_number_of_pairs_makes_the_stacked_engine_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A term has as many pairs as it finds: also a multiple of the batch's rows, or one more."""
    counts: list[int] = []
    pairs = Cooccurrence.pairs

    def counted(self: Cooccurrence, *given: Any, **options: Any) -> Any:
        found = pairs(self, *given, **options)
        counts.append(len(found.item))
        return found

    monkeypatch.setattr(Cooccurrence, "pairs", counted)
    remainders = set()
    for number in range(2, 9):
        queries = last_clicks(LOG).take(np.arange(number))
        tasks, found = task_batch(queries, num_items=LOG.num_items), []
        for stacked in (True, False):
            model = model_with(["cooccurrence"])
            adaptation = Adaptation(Scope(""), step=Gradient(0.3), stacked=stacked)
            adaptation.bind(model)
            found.append(adaptation.run(model, tasks, SoftmaxLoss()).detach())
            assert not adaptation.fell_back
            remainders |= {count % number for count in counts[:2]} if stacked else set()
            counts.clear()
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)
    assert {0, 1} <= remainders
