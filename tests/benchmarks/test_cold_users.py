"""MetaCF's protocol deals people so that the test learns nothing before it is asked."""

import numpy as np
import torch

from benchmarks.cold_users import KnownUsers, Protocol, known_held_out, meta_trained, one_held_out, read
from graphmeta.published.catalogue import build
from graphmeta.sampling.few_shot import sampled_tasks
from graphmeta.testing import fake_log

LOG = fake_log(sessions=80)


def people(log):
    """Each session its own user, as in histories."""
    return log.aligned_to(log.items)


def test_no_user_is_in_two_parts():
    log = people(LOG)
    protocol = Protocol.of(log, seed=3)
    pretrain = set(protocol.pretrain.sessions.tolist())
    seen = set(protocol.seen.sessions.tolist())
    assert len(pretrain) == 20 and len(seen) == 60 and pretrain < seen
    assert (len(protocol.learn), len(protocol.valid), len(protocol.test)) == (36, 4, 20)
    rest = log.of_sessions(~np.isin(log.sessions, list(seen)))
    sampled = {frozenset(items) for items in histories(protocol.test)}
    assert all(any(items <= set(rest.items.ids[rest.item[a:b]]) for a, b in spans(rest)) for items in sampled)


def spans(log):
    return zip(log.ptr[:-1], log.ptr[1:], strict=True)


def histories(tasks):
    for a, b, c, d in zip(tasks.support_ptr, tasks.support_ptr[1:], tasks.query_ptr, tasks.query_ptr[1:], strict=False):
        yield {LOG.items.ids[i] for i in [*tasks.support.target[a:b], *tasks.query.target[c:d]]}


def test_one_record_of_everybody_is_held_out():
    known, query = one_held_out(LOG, seed=1)
    assert (known ^ query).all()
    assert np.bincount(LOG.session[query]).tolist() == [1] * 80
    assert len(set((np.flatnonzero(query) - LOG.ptr[:-1]).tolist())) == 6  # at any place


def test_the_last_known_item_is_held_out():
    tasks = sampled_tasks(LOG, seed=0)
    held = known_held_out(tasks)
    some = np.flatnonzero(tasks.support_sizes > 1)
    assert held.support_sizes.tolist() == (tasks.support_sizes[some] - 1).tolist()
    for number, t in enumerate(some):
        whole = tasks.support.target[tasks.support_ptr[t] : tasks.support_ptr[t + 1]].tolist()
        kept = held.support.target[held.support_ptr[number] : held.support_ptr[number + 1]].tolist()
        query = held.query.take(slice(number, number + 1))
        assert [*kept, int(query.target[0])] == whole
        assert query.item[query.begin[0] : query.end[0]].tolist() == kept


def test_known_users_are_scored_by_their_trained_vectors():
    torch.manual_seed(0)
    system = build("bpr_fold_in", LOG.items, users=LOG.users, width=4)
    torch.nn.init.normal_(system.recommender.head.users.user.weight)
    tasks = sampled_tasks(LOG).first_queries()
    head = system.recommender.head
    wanted = (head.vector + head.users.user.weight[tasks.query.user]) @ system.recommender.features.item.weight.T
    torch.testing.assert_close(KnownUsers(system).scores(tasks.query), wanted)


def test_under_the_papers_preset_the_patience_is_hundreds_of_steps():
    """An epoch is one step there: with a patience of four, 1e-6 times a gradient would be all that is learned."""
    log = people(LOG)
    protocol = Protocol.of(log, seed=3)
    factors = build("bpr_fold_in", log.items, users=LOG.users, width=32)
    options = read(["amazon_cell", "--preset", "paper", "--epochs", "9"])
    assert options.patience >= 100 and read(["amazon_cell", "--preset", "paper"]).epochs > options.patience
    row = meta_trained("meta_cf_linear", protocol, factors, options)
    assert len(row.history) == 9 and len({epoch["hit@10"] for epoch in row.history}) < 9  # no early stop
    assert read(["amazon_cell"]).patience == 4 and row.arguments["sums"]
