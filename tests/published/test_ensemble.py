"""Ensembles: means of the members' scores, trained member by member, and re-ranked as one system."""

import pytest
import torch
import torch.nn.functional as F

import graphmeta as gm
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.losses.sampled import SampledSoftmaxLoss, Uniform
from graphmeta.published.catalogue import build
from graphmeta.testing import fake_log
from graphmeta.training.settings import TrainOptions

LOG = fake_log(sessions=60, items=30)
MEMBERS = {
    "members": ["niser", "global_gnn", "gru4rec"],
    "member_options": [{}, {"normalised": True}, {"layers": 2}],
}


def made(**options):
    torch.manual_seed(0)
    system = build("ensemble", LOG.items, width=8, **MEMBERS, **options)
    system.fit_statistics(LOG)
    return system.eval()


def alone(system):
    """Each member as a system of its own, with the ensemble's weights."""
    for name, options, member in zip(*MEMBERS.values(), system.recommender.members, strict=True):
        own = build(name, LOG.items, width=8, **options)
        own.recommender.features, own.recommender.encoder, own.recommender.head = member.children()
        yield own.eval()


def test_scores_are_the_mean_of_those_of_the_members_alone():
    system, queries = made(), gm.last_clicks(LOG)
    parts = [own.scores(queries) for own in alone(system)]
    assert max((part - parts[0]).abs().max() for part in parts[1:]) > 0.1
    torch.testing.assert_close(system.scores(queries), sum(parts) / 3, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoded", [False, True])
def test_losses_are_means_of_those_of_the_members_with_the_score_terms_of_the_ensemble(encoded):
    system, queries = made(score_terms=["repeat_bias"]), gm.last_clicks(LOG)
    term = system.recommender.head.score_terms["repeat_bias"]
    torch.nn.init.normal_(term.recency.weight)
    batch, target, expected = system._queries(queries), torch.from_numpy(queries.target), []
    for own in alone(system):
        scores = own.scores(queries)
        row, column, value = term(batch, None)
        scores.index_put_((row, column), value.detach(), accumulate=True)
        expected.append(F.cross_entropy(scores, target, reduction="none"))
    given = system.recommender.encode(batch) if encoded else None
    found = system.recommender(batch, SoftmaxLoss(), given)
    torch.testing.assert_close(found, torch.stack(expected).mean(0), atol=1e-5, rtol=1e-5)


def test_with_a_learned_temperature_the_loss_is_that_of_the_mean_scores():
    system, queries = made(), gm.last_clicks(LOG)
    system.recommender.head.learn_temperature()
    found = system.recommender(system._queries(queries), SoftmaxLoss())
    expected = F.cross_entropy(system.scores(queries), torch.from_numpy(queries.target), reduction="none")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_members_alone():
    """Halved, which Adam does not read: a member is trained as it is alone."""
    names, plain = ["niser", "sr_gnn"], [{"dropout": 0.0}, {}]
    torch.manual_seed(0)
    system = build("ensemble", LOG.items, width=8, members=names, member_options=plain)
    torch.manual_seed(0)
    parts = [build(name, LOG.items, width=8, **options) for name, options in zip(names, plain, strict=True)]
    for own in (system, *parts):
        own.losses(gm.prefixes(LOG)).mean().backward()
    for own, member in zip(parts, system.recommender.members, strict=True):
        for one, other in zip(own.recommender.parameters(), member.parameters(), strict=True):
            torch.testing.assert_close(one, other)
            torch.testing.assert_close(one.grad / 2, other.grad, atol=1e-6, rtol=1e-4)


def test_members_are_loaded_from_systems_that_were_trained_alone():
    names, terms = ["niser", "sr_gnn"], {"score_terms": ["repeat_bias"]}
    parts = []
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        parts.append(build(name, LOG.items, width=8, **terms).eval())
        torch.nn.init.normal_(parts[-1].recommender.head.score_terms["repeat_bias"].recency.weight)
    system = build("ensemble", LOG.items, width=8, members=names, member_options=[{}, {}], **terms).eval()
    system.recommender.load_members([part.recommender for part in parts])
    queries = gm.last_clicks(LOG)
    mean = sum(part.scores(queries) for part in parts) / 2
    torch.testing.assert_close(system.scores(queries), mean, atol=1e-5, rtol=1e-5)
    with pytest.raises(gm.InputError, match="2 members, not 1"):
        system.recommender.load_members([parts[0].recommender])


def test_it_is_trained_by_a_sampled_softmax_and_loaded_again(tmp_path):
    system, queries = made(score_terms=["repeat_bias"]), gm.last_clicks(LOG)
    options = TrainOptions(loss=SampledSoftmaxLoss(Uniform(64)))
    losses = [report.loss for report in gm.train(system, LOG, epochs=4, options=options)]
    assert losses[-1] < losses[0]
    system.save(tmp_path / "model")
    assert torch.equal(gm.load(tmp_path / "model").scores(queries), system.scores(queries))


def test_a_reranker_takes_over_its_weights_and_leaves_them_as_they_are():
    base = made()
    system = build("reranker", LOG.items, base="ensemble", options=MEMBERS, width=8)
    system.load_matching(base)
    before, queries = base.scores(gm.last_clicks(LOG)), gm.last_clicks(LOG)
    torch.testing.assert_close(system.own_scores(queries), before, atol=1e-5, rtol=1e-5)
    earlier, later = gm.split_by_time(LOG, test=0.3).train, LOG
    list(gm.train(system, later, epochs=1, options=TrainOptions(statistics_log=earlier)))
    weights = dict(base.recommender.named_parameters())
    kept = [name for name, weight in system.recommender.named_parameters() if name in weights]
    assert len(kept) == len(weights)
    assert all(torch.equal(system.recommender.get_parameter(name), weights[name]) for name in kept)
    assert not torch.allclose(system.own_scores(queries), before, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"members": ["niser"], "member_options": [{}]}, "two or more members"),
        ({"members": ["niser", "niser"], "member_options": [{}]}, "options for each, not 2 and 1"),
        ({"members": ["niser", "tagnn"]}, "TargetAttention: its session vector differs by candidate"),
        ({"members": ["niser", "maml"]}, "maml cannot be a member"),
        ({"members": ["niser", "bpr_mf"]}, "bpr_mf needs users"),
        ({"members": ["niser", "id_gnn"]}, "id_gnn"),
        ({"members": ["niser", "nise"]}, "niser"),
        (
            {"members": ["niser", "niser"], "member_options": [{}, {"score_terms": ["repeat_bias"]}]},
            "score_terms to the ensemble",
        ),
    ],
)
def test_other_members_are_refused(arguments, why):
    arguments = {"member_options": [{}, {}], **arguments}
    with pytest.raises(gm.InputError, match=why):
        build("ensemble", LOG.items, users=None, width=4, **arguments)
