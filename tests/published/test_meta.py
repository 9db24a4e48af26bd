"""What every meta-learned system keeps: the stack is the loop, in both orders; the order of tasks and their answers
change nothing; every parameter learns."""

import copy

import numpy as np
import pytest
import torch

from graphmeta.errors import InputError
from graphmeta.nn.score_terms.reranker import Reranker
from graphmeta.published.catalogue import build
from graphmeta.published.models.cbml import cbml
from graphmeta.published.models.graph import niser
from graphmeta.published.models.meta import maml, mamo
from graphmeta.sampling.samples import Samples, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

LOG = fake_log(sessions=16)

# The rows of the family, and the forms of CBML that take other ways through the engine.
SYSTEMS = {
    "cbml": ("cbml", {}),
    "cbml_g": ("cbml_g", {"scope": "predictor"}),
    "cbml_c, rank1": ("cbml_c", {"granularity": "rank1", "scope": "predictor", "steps": 2}),
    "cbml_s, row": ("cbml_s", {"granularity": "row", "scope": "predictor"}),
    "cbml_f, column": ("cbml_f", {"granularity": "column", "scope": "predictor"}),
    "cbml, gates of samples": ("cbml", {"gate_scope": "sample", "scope": "attention", "steps": 2}),
    "cbml, learned rates": ("cbml", {"learned": True, "steps": 2, "scope": "attention"}),
    "cbml around niser": ("cbml", {"base": "niser", "scope": "predictor"}),
    "cbml_f around niser, all": ("cbml_f", {"base": "niser", "steps": 2}),  # lengths of each task's own table
    "mamo": ("mamo", {}),
    "mamo around niser": ("mamo", {"base": "niser", "scope": "predictor", "steps": 2}),
    "meta_hin": ("meta_hin", {"size": 3, "path_lr": 0.5, "steps": 2, "neighbours": 4, "base": "sr_gnn"}),
}


def made(name, *, order=1, width=4):
    """The system in eval mode (no dropout), with rates that move, fitted."""
    row, arguments = SYSTEMS.get(name, (name, {}))
    torch.manual_seed(0)
    system = build(row, LOG.items, width=width, lr=0.3, order=order, **arguments).eval()
    system.fit_statistics(LOG)
    return system


def tasks():
    """Sessions of one to four known clicks (the first has no support), with repeats, and their next items."""
    known = sessions_without_target([np.array(clicks) for clicks in ([3], [1, 2, 1, 5], [4, 9, 4])])
    return Samples(known.item, known.begin, known.end, np.array([4, 6, 5]), known.session)


def answers(system, samples):
    """Losses and the meta-gradient of every parameter."""
    losses = system.losses(samples)
    learned = [p for p in system.parameters() if p.requires_grad]
    found = torch.autograd.grad(losses.mean(), learned, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(learned, found, strict=True)]
    return [losses.detach(), *gradients]


@pytest.mark.covering
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", SYSTEMS)
def test_all_tasks_at_once_are_one_after_the_other(name, order):
    system = made(name, order=order)
    together = [*answers(system, tasks()), system.scores(tasks())]
    assert not system.adaptation.fell_back
    system.adaptation.stacked = False
    for one, other in zip(together, [*answers(system, tasks()), system.scores(tasks())], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SYSTEMS)
def test_second_order_is_the_derivative(name):
    system, samples = made(name, order=2), tasks()
    learned = [p for p in system.parameters() if p.requires_grad]
    direction = [torch.randn_like(p) for p in learned]
    slope = sum((g * d).sum() for g, d in zip(answers(system, samples)[1:], direction, strict=True))
    values = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for parameter, d in zip(learned, direction, strict=True):
                parameter += step * d
        values.append(float(system.losses(samples).mean().detach()))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(slope), rel=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SYSTEMS)
def test_the_order_of_tasks_only_permutes_answers(name):
    system, order = made(name), np.array([2, 0, 1])
    straight, mixed = system.losses(tasks()), system.losses(tasks().take(order))
    torch.testing.assert_close(mixed, straight[torch.from_numpy(order)], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_query_targets_reach_no_prediction(name):
    system, samples = made(name), tasks()
    other = Samples(samples.item, samples.begin, samples.end, (samples.target + 7) % LOG.num_items, samples.session)
    assert torch.equal(system.scores(samples), system.scores(other))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [*SYSTEMS, "maml", "melu"])
def test_every_parameter_gets_a_gradient(name):
    system = made(name, width=8)  # of fewer ReLUs all may be off
    optimizer = torch.optim.SGD(system.parameters(), lr=0.5)
    for _ in range(2):  # at first, what stands behind a zero gets none
        optimizer.zero_grad()
        system.losses(system.training_samples(LOG)).mean().backward()
        optimizer.step()
    learned = {n: p for n, p in system.named_parameters() if p.requires_grad}
    assert not [n for n, p in learned.items() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("base", ["sr_gnn", "if_san", "gru4rec", "youtube_dnn", "caser"])  # the last three sample items
def test_multi_ft_goes_down_the_softmax_of_the_sessions_own_prefixes(base):
    torch.manual_seed(0)
    system = build("multi_ft", LOG.items, users=LOG.users, width=5, base=base, lr=0.5, steps=2).eval()
    found, sessions = system.scores(tasks()), [[3], [1, 2, 1, 5], [4, 9, 4]]
    for row, clicks in zip(found, sessions, strict=True):
        own = copy.deepcopy(system.recommender)
        for _ in range(2 if len(clicks) > 1 else 0):
            losses = []
            for end in range(1, len(clicks)):
                scores = own(session_batch(sessions_without_target([np.array(clicks[:end])]), num_items=LOG.num_items))[
                    0
                ]
                losses.append(torch.logsumexp(scores, 0) - scores[clicks[end]])
            slopes = torch.autograd.grad(torch.stack(losses).mean(), list(own.parameters()))
            with torch.no_grad():
                for parameter, slope in zip(own.parameters(), slopes, strict=True):
                    parameter -= 0.5 * slope
        wanted = own(session_batch(sessions_without_target([np.array(clicks)]), num_items=LOG.num_items))[0].detach()
        torch.testing.assert_close(row, wanted, rtol=0, atol=1e-9)
    assert not torch.allclose(found[1], system.recommender(session_batch(tasks(), num_items=LOG.num_items))[1])


@pytest.mark.parametrize(
    "base", ["sr_gnn", "gru4rec"]
)  # the loss of one is of every prefix, of the other of every click
def test_multi_ft_trains_as_its_base(base):
    states = []
    for name, options in ((base, {}), ("multi_ft", {"base": base})):
        torch.manual_seed(0)
        system = build(name, LOG.items, width=5, **options)
        list(train(system, LOG, epochs=1, optimizer=Adam(lr=1e-2), batch_size=20))
        states.append(system.recommender.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(weight, states[1][name]) for name, weight in states[0].items())


@pytest.mark.covering
@pytest.mark.parametrize("name", ["maml", "multi_ft", "melu", "cbml", "mamo", "meta_hin"])
@pytest.mark.parametrize("base", ["cbml", "maml"])
def test_one_adaptation_is_not_lost_in_another(name, base):
    with pytest.raises(InputError, match="the base already has an adaptation.*; pass the base inside it"):
        build(name, LOG.items, width=4, base=base)


def test_melu_adapts_the_prediction_layer_alone():
    system = build("melu", LOG.items, width=6)
    assert system.adaptation.names == ["head.project.weight", "head.project.bias"]


@pytest.mark.parametrize("wrapper", [maml, cbml, mamo])
@pytest.mark.parametrize("given", ["name", "module"])
@pytest.mark.filterwarnings("ignore:.*cannot be stored in a build spec")
def test_parts_that_tasks_share_are_not_adapted_under_any_name(given: str, wrapper) -> None:
    items = fake_log(sessions=40, items=12).items
    term = "reranker" if given == "name" else Reranker(len(items), list(items.attributes.values()))
    system = wrapper(niser(items, width=8, score_terms=[term]))
    adapted = system.adaptation.names
    assert adapted and not any(word in name for name in adapted for word in ("eranker", "prototypes", "keys", "gate"))
    assert not any("eranker" in name or "prototypes" in name for name in system.adaptation.start.initialised_names())


@pytest.mark.parametrize("spelling", ["attention", "encoder_head"])
def test_the_earlier_name_of_a_scope_is_read(spelling: str) -> None:
    system = build("cbml", fake_log(sessions=40, items=12).items, width=8, scope=spelling)
    assert system.spec is not None and system.spec.arguments["scope"] == "encoder_head"
