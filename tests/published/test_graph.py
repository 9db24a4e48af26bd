"""The graph systems against what they are made of, and within an adaptation."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import HeteroConv, SAGEConv

from graphmeta.data.splits import last_sessions
from graphmeta.errors import InputError
from graphmeta.nn.encoders.hetero import Relation, attention_messages
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.published.models.graph import hetero_gnn, niser
from graphmeta.sampling.samples import last_clicks, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.settings import TrainOptions

LOG = fake_log(sessions=60)
SESSIONS = [[3], [1, 2, 1, 5], [4, 4]]


def gce_gnn(system, session):
    """GCE-GNN's equations for one session, item by item, with the weights of a system; returns the session's vector."""
    features, encoder, readout = (
        system.recommender.features,
        system.recommender.encoder,
        system.recommender.head.readout,
    )
    e = features.item.weight
    if features.normalised:
        e = e / e.norm(dim=1, keepdim=True)
    steps = list(zip(session, session[1:], strict=False))
    mean = sum(e[i] for i in session) / len(session)
    leaky = torch.nn.LeakyReLU(0.2)
    a_out, a_in, a_both, a_self = encoder.local.of_types
    h = {}
    for i in session:
        logits = {i: leaky(a_self @ (e[i] * e[i]))}
        for j in set(session) - {i}:
            out, into = (i, j) in steps, (j, i) in steps
            if out or into:
                logits[j] = leaky((a_both if out and into else a_out if out else a_in) @ (e[i] * e[j]))
        total = sum(logit.exp() for logit in logits.values())
        local = sum(logit.exp() / total * e[j] for j, logit in logits.items())
        near = [
            (j, w) for j, w in zip(features.neighbour[i].tolist(), features.weight[i].tolist(), strict=True) if w > 0
        ]
        scores = [
            (
                encoder.score.weight
                @ leaky(encoder.of_session.weight @ (mean * e[j]) + encoder.of_weight.weight[:, 0] * w)
            ).exp()
            for j, w in near
        ]
        around = (
            sum(score / sum(scores) * e[j] for score, (j, _) in zip(scores, near, strict=True)) if near else 0 * mean
        )
        h[i] = local + torch.relu(encoder.mix.weight @ torch.cat([e[i], around]))
    average, query = sum(h[i] for i in session) / len(session), 0
    for place, i in enumerate(reversed(session)):
        z = torch.tanh(readout.of_place(torch.cat([h[i], readout.place.weight[place]])))
        beta = readout.score(torch.sigmoid(readout.of_each(z) + readout.of_mean(average)))
        query = query + beta * h[i]
    return query


@torch.no_grad()
@pytest.mark.parametrize("normalised", [False, True])
def test_global_gnn_is_gce_gnn_by_its_equations(normalised):
    torch.manual_seed(0)
    system = build("global_gnn", LOG.items, width=5, normalised=normalised).eval().double()
    system.fit_statistics(LOG)
    model, table = system.recommender, system.recommender.features.item.weight
    assert (model.features.weight.max(1).values > 0).sum() > 5
    for session in [*SESSIONS, [2, 3, 2, 3, 1], [0, 4, 0]]:
        batch = session_batch(sessions_without_target([np.array(session)]), num_items=LOG.num_items)
        query = gce_gnn(system, session)
        wanted = query @ table.t()
        if normalised:
            wanted = 12 * (query / query.norm()) @ (table / table.norm(dim=1, keepdim=True)).t()
        torch.testing.assert_close(model(batch)[0], wanted, rtol=0, atol=1e-6)


@torch.no_grad()
def test_global_gnn_scores_a_session_alone_as_in_a_batch():
    system = build("global_gnn", LOG.items, width=5).eval().double()
    system.fit_statistics(LOG)
    samples = last_clicks(LOG)
    alone = torch.cat([system.scores(samples.take(slice(k, k + 1))) for k in range(len(samples))])
    torch.testing.assert_close(system.scores(samples), alone, rtol=0, atol=1e-12)


@torch.no_grad()
def test_niser_is_the_formula_on_sr_gnn():
    torch.manual_seed(0)
    system = niser(LOG.items, width=5).eval().double()
    model, table = system.recommender, system.recommender.features.features.item.weight
    for session in SESSIONS:
        batch = session_batch(sessions_without_target([np.array(session)]), num_items=LOG.num_items)
        unit = table / table.norm(dim=1, keepdim=True)
        states = model.encoder.encoder(unit[batch["item"].n_id], batch)
        states = states + model.encoder.place.weight[: len(session)].flip(0)
        query = model.head.project(model.head.readout(states, batch))
        wanted = 12 * (query / query.norm()) @ unit.t()
        torch.testing.assert_close(model(batch), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalised", [False, True])
def test_global_gnn_learns_the_known_answer(normalised):
    torch.manual_seed(0)
    system = build("global_gnn", LOG.items, width=8, normalised=normalised)
    reports = list(train(system, LOG, epochs=8, optimizer=Adam(lr=2e-2), batch_size=20))
    assert reports[-1].loss < 0.7 * reports[0].loss


@pytest.mark.parametrize("base", ["hetero_gnn", "global_gnn", "niser"])
def test_maml_on_it_trains_all_tasks_at_once(base):
    torch.manual_seed(0)
    system = build("maml", LOG.items, width=6, base=base)
    reports = list(train(system, LOG, epochs=2, optimizer=Adam(lr=2e-2), batch_size=20))
    assert reports[-1].loss < reports[0].loss
    assert not system.adaptation.fell_back


@pytest.mark.parametrize("messages", ["attention", "transformer"])
def test_other_messages_train(messages):
    torch.manual_seed(0)
    system = build("hetero_gnn", LOG.items, width=6, messages=messages)
    reports = list(train(system, LOG, epochs=2, optimizer=Adam(lr=2e-2), batch_size=20))
    assert reports[-1].loss < reports[0].loss


def test_messages_are_a_function_in_python_and_a_name_in_the_build_spec(tmp_path):
    system = hetero_gnn(LOG.items, width=6, messages=attention_messages)
    assert system.spec == build("hetero_gnn", LOG.items, width=6, messages="attention").spec
    with pytest.warns(UserWarning, match="one_matrix cannot be stored in a build spec"):
        own = hetero_gnn(LOG.items, width=6, messages=one_matrix)
        own.save(tmp_path)
        again = load(tmp_path, build=lambda items: hetero_gnn(items, width=6, messages=one_matrix))
    assert torch.equal(again.scores(last_clicks(LOG)), own.eval().scores(last_clicks(LOG)))


@pytest.mark.filterwarnings("ignore:hetero_gnn. one_matrix cannot be stored")
def test_custom_messages_train():
    system = hetero_gnn(LOG.items, width=6, messages=one_matrix)
    reports = list(train(system, LOG, epochs=2, optimizer=Adam(lr=2e-2), batch_size=20))
    assert reports[-1].loss < reports[0].loss


def one_matrix(width: int, relations: list[Relation]) -> nn.Module:
    """Messages with one matrix for all relations."""
    one = SAGEConv((width, width), width, root_weight=False)
    return HeteroConv(dict.fromkeys(relations, one), aggr="sum")


def test_strange_messages_are_named():
    with pytest.raises(InputError, match="messages='max' must be one of mean, attention, transformer"):
        build("hetero_gnn", LOG.items, messages="max")


def test_a_reranker_learns_on_later_sessions_and_leaves_its_base_alone():
    earlier, later = last_sessions(LOG, 20)
    torch.manual_seed(0)
    base = build("niser", LOG.items, width=6)
    list(train(base, earlier, epochs=1))
    system = build("reranker", LOG.items, width=6)
    system.load_matching(base)
    scores = [system.scores(last_clicks(LOG)), base.scores(last_clicks(LOG))]
    torch.testing.assert_close(*scores)
    list(train(system, later, epochs=2, optimizer=Adam(lr=1e-2), options=TrainOptions(statistics_log=earlier)))
    own = dict(system.recommender.named_parameters())
    kept = {name: weight for name, weight in base.recommender.named_parameters()}
    assert all(torch.equal(own[name], weight) for name, weight in kept.items())
    changed = {
        name.split(".")[2]
        for name in own.keys() - kept.keys()
        if name.startswith("head.score_terms") and own[name].any()
    }
    assert changed == {"repeat_bias", "reranker"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("order", [1, 2])
def test_an_adaptation_wraps_a_reranker_in_one_stack(order):
    """The network over counts stays as it is: it has as many rows as a session has neighbours."""
    torch.manual_seed(0)
    system = build("cbml", LOG.items, width=6, base="reranker", scope="predictor", order=order).eval()
    system.fit_statistics(LOG)
    assert not [name for name in system.adaptation.names if "reranker" in name]
    losses = system.losses(system.training_samples(LOG).take(slice(0, 6)))
    system.adaptation.stacked = False
    torch.testing.assert_close(losses, system.losses(system.training_samples(LOG).take(slice(0, 6))))


@pytest.mark.parametrize("name", ["maml", "multi_ft", "mamo", "cbml"])
def test_no_session_changes_the_reranker(name):
    system = build(name, LOG.items, width=6, base="reranker")
    assert not [name for name in system.adaptation.names if "reranker" in name]
    assert "head.scale" in system.adaptation.names


def test_a_head_without_products_gets_no_reranker():
    with pytest.raises(InputError, match="TargetAttention"):
        build("reranker", LOG.items, width=6, base="tagnn")
