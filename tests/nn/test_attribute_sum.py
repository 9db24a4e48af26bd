"""Attribute-composed items: the formula, items without clicks, gradients, every engine, and ranking of new items."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.data.events import EventLog
from graphmeta.data.splits import split_by_item
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.features.attribute_sum import AttributeComposed
from graphmeta.nn.features.tables import ItemFeatures, Table, item_table, row_gradients
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.sampling.samples import last_clicks, sessions_without_target
from graphmeta.sampling.tasks import task_batch
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

pytestmark = pytest.mark.usefixtures("float64")
LOG = fake_log(sessions=60)
BASES = ["sr_gnn", "gc_san", "niser", "tagnn", "gru4rec", "if_san", "hetero_gnn", "global_gnn"]
SESSIONS = sessions_without_target([np.array(s) for s in ([3], [1, 2, 1, 5], [4, 4])])


def known(new: int = 5) -> EventLog:
    """The log without the sessions of its first few items: of a whole category, and of items of every brand."""
    touched = np.unique(LOG.session[LOG.item < new])
    return LOG.of_sessions(~np.isin(np.arange(LOG.num_sessions), touched)).aligned_to(LOG.items, LOG.users)


def filled(system: System) -> System:
    torch.manual_seed(1)
    for weight in system.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    system.fit_statistics(known())
    return system.eval()


def by_hand(table: AttributeComposed, log: EventLog) -> torch.Tensor:
    """Each item's vector, item by item."""
    attributes, clicked, rows = log.items.attributes, set(log.item.tolist()), []
    for item in range(log.num_items):
        vector, begin = torch.zeros(table.weight.shape[1]), log.num_items
        if item in clicked:
            vector = vector + table.weight[item]
        for attribute in attributes.values():
            value = attribute.codes[item]
            if any(attribute.codes[one] == value for one in clicked):
                vector = vector + table.weight[begin + value]
            begin += attribute.size
        rows.append(vector)
    return torch.stack(rows)


@pytest.mark.parametrize("base", BASES)
@torch.no_grad()
def test_scores_are_those_of_the_base_with_vectors_made_by_hand(base):
    system, log = filled(build("dropout_net", LOG.items, base=base, width=6)), known()
    table = item_table(system.recommender.features)
    assert isinstance(table, AttributeComposed)
    plain = build(base, LOG.items, width=6)
    own, theirs = plain.recommender.state_dict(), system.recommender.state_dict()
    every_but_items = {name: theirs[name] for name in own if theirs[name].shape == own[name].shape}
    plain.recommender.load_state_dict(own | every_but_items)
    item_table(plain.recommender.features).weight.copy_(by_hand(table, log))
    plain.fit_statistics(log)
    wanted = plain.eval().scores(SESSIONS)
    torch.testing.assert_close(system.scores(SESSIONS), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("base", BASES)
@torch.no_grad()
def test_an_item_without_clicks_is_its_attributes(base):
    """Its own row says nothing; it gets the score of another new item alike, and the numbers of new items are free."""
    items = LOG.items
    code = {name: replace(a, codes=np.where(np.arange(40) == 1, a.codes[0], a.codes)) for name, a in
            items.attributes.items()}  # fmt: skip
    twins = replace(items, columns=code)
    torch.manual_seed(0)
    system = filled(build("dropout_net", twins, base=base, width=6))
    system.fit_statistics(replace(known(), items=twins))
    queries = sessions_without_target([np.array([9, 12]), np.array([0, 30])])
    scores = system.scores(queries)
    torch.testing.assert_close(scores[:, 0], scores[:, 1], rtol=0, atol=1e-12)
    item_table(system.recommender.features).weight[:5] += 7.0
    torch.testing.assert_close(system.scores(queries), scores, rtol=0, atol=0)
    order = np.arange(40)
    order[:5] = [4, 2, 0, 1, 3]  # what was number i is now number order[i]
    moved = twins.take(np.argsort(order))
    other = build("dropout_net", moved, base=base, width=6)
    other.load_state_dict(system.state_dict())
    other.fit_statistics(replace(known(), items=moved))
    again = other.eval().scores(sessions_without_target([np.array([9, 12]), np.array([order[0], 30])]))
    torch.testing.assert_close(again[:, order], scores, rtol=0, atol=1e-12)


def test_gradients_are_those_of_the_dense_formula():
    """With the rows handed out as leaves, as training does; own vectors of new items and unused values get none."""
    torch.manual_seed(0)
    features = ItemFeatures(LOG.num_items, 4, bias=True)
    features.item = table = AttributeComposed(features.item, LOG.items.attributes, drop=0.0)
    torch.nn.init.normal_(table.weight)
    table.fit_statistics(known())
    table.eval()
    index, weight = torch.tensor([0, 7, 7, 39]), torch.randn(4, 4)
    found = []
    for made in (None, by_hand(table, known())):
        table.weight.grad = None
        with row_gradients(features):
            x, every = features(index) if made is None else (made[index][:, :4], made)
            ((x * weight).sum() + every.square().sum()).backward()
        found.append(table.weight.grad)
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    assert not found[0][:5].any() and found[0][5:40].any()


@torch.no_grad()
def test_own_vectors_are_left_out_while_training():
    torch.manual_seed(0)
    plain = Table(LOG.num_items, 3)
    table = AttributeComposed(plain, LOG.items.attributes, drop=0.25)
    table.weight.zero_()
    table.weight[: LOG.num_items] = 1.0
    log = known(new=4)
    table.fit_statistics(log)
    clicked = torch.from_numpy(log.support > 0)
    share = torch.stack([table.all_rows()[:, 0] for _ in range(400)]).mean(0)
    assert not share[~clicked].any() and abs(float(share[clicked].mean()) - 0.75) < 0.02
    read = torch.stack([table(torch.arange(40))[:, 0] for _ in range(400)]).mean(0)
    assert not read[~clicked].any() and abs(float(read[clicked].mean()) - 0.75) < 0.02
    assert table.eval().all_rows()[clicked].eq(1).all()
    table.weight[LOG.num_items :] = 1.0
    assert not table.train().all_rows()[:4].any()  # no candidates while training
    assert table(torch.arange(4)).gt(0).any() and table.eval().all_rows()[:4].gt(0).any()


@pytest.mark.covering
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("scope", "base"), [("head", "sr_gnn"), ("encoder", "sr_gnn"), ("", "sr_gnn"), ("", "gru4rec"), ("", "tagnn")]
)
def test_stacked_is_the_loop(order, scope, base):
    """With the table in scope, whose rows are read one by one and scored in sums, and without."""
    found = []
    for stacked in (True, False):
        system = filled(build("dropout_net", LOG.items, base=base, width=4))
        adaptation = Adaptation(Scope(scope), step=Gradient(0.1), steps=2, order=order, stacked=stacked)
        adaptation.bind(system.recommender)
        tasks = task_batch(last_clicks(LOG).take(slice(0, 4)), num_items=LOG.num_items)
        losses = adaptation.run(system.recommender, tasks, SoftmaxLoss())
        scores = adaptation.run(system.recommender, tasks, SoftmaxLoss(), score=True)
        assert not adaptation.fell_back and bool(adaptation.tables) == (scope == "")
        found.append([losses, scores, *torch.autograd.grad(losses.sum(), list(system.recommender.parameters()))])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("inner", ["cbml", "maml", "melu"])
def test_an_adaptation_wraps_it_and_is_saved(inner, tmp_path):
    system = build(inner, LOG.items, base="dropout_net", options={"base": "sr_gnn"}, width=4)
    for _ in train(system, known(), epochs=1, batch_size=8):
        pass
    assert system.adaptation is not None and not system.adaptation.fell_back
    scores = system.scores(SESSIONS)
    system.save(tmp_path)
    torch.testing.assert_close(load(tmp_path).scores(SESSIONS), scores, rtol=0, atol=0)
    system.adaptation.task_chunk = 1
    torch.testing.assert_close(system.scores(SESSIONS), scores, rtol=0, atol=1e-10)


def kinds(new: int) -> tuple[EventLog, EventLog]:
    """Walks round a ring of ten kinds, any item of the next kind; training knows all but so many items."""
    random = np.random.default_rng(0)
    kind = (random.integers(0, 10, 300)[:, None] + np.arange(4)) % 10
    clicks = kind + 10 * random.integers(0, 6, kind.shape)
    frame = pd.DataFrame({"s": np.repeat(np.arange(300), 4), "i": clicks.ravel(), "t": np.arange(1200)})
    items = EntityTable.read(pd.DataFrame({"i": range(60), "kind": [f"k{i % 10}" for i in range(60)]}), key="i")
    log = EventLog.read(frame, session="s", item="i", time="t", items=items)
    split = split_by_item(log, test=new / 60, valid=0.0)
    return split.train, split.test


@pytest.mark.parametrize("base", ["sr_gnn", "gru4rec"])
@pytest.mark.parametrize("name", ["plain", "dropout_net"])
def test_it_ranks_items_without_clicks(name, base):
    learn, test = kinds(new=6)
    samples = last_clicks(test)
    queries = samples.take(learn.support[samples.target] == 0)
    torch.manual_seed(0)
    options = {"base": base} if name == "dropout_net" else {}
    system = build(base if name == "plain" else name, learn.items, width=8, **options)
    for _ in train(system, learn, epochs=8, optimizer=Adam(lr=0.05), batch_size=20):
        pass
    found = evaluate(system, queries, ks=(6,)).metrics["hit@6"]
    assert (found > 0.5) == (name == "dropout_net"), found


@torch.no_grad()
def test_it_starts_as_the_loaded_system():
    plain = build("sr_gnn", LOG.items, width=6).eval()
    system = build("dropout_net", LOG.items, width=6).eval()
    system.load_matching(plain)
    torch.testing.assert_close(system.scores(SESSIONS), plain.scores(SESSIONS), rtol=0, atol=1e-12)


def test_invalid_arguments_are_refused():
    bare = LOG.items.without("categorical")
    with pytest.raises(InputError, match="attribute-composed items"):
        build("dropout_net", bare)
    with pytest.raises(InputError, match="wrap this system with it"):
        build("dropout_net", LOG.items, base="maml")
    with pytest.raises(InputError, match="no table of items"):
        build("dropout_net", LOG.items, base="caser")
