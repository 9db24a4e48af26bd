"""Learning how to retrain: which step moves what, which rows are transferred, and that it learns to."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.data.splits import period_edges
from graphmeta.errors import InputError
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Last, UserEmbedding
from graphmeta.published.catalogue import build
from graphmeta.published.models.streaming import TransferOptions, sml
from graphmeta.recommender import Recommender
from graphmeta.retrain import transfer
from graphmeta.retrain.period import Period
from graphmeta.retrain.strategy import Full
from graphmeta.retrain.transfer import Transfer, TransferWrapper
from graphmeta.retrain.transfer_net import TransferNet
from graphmeta.sampling.histories import every_event
from graphmeta.sampling.session_batch import session_batch
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.optimizers import Adam

LOG = fake_log(sessions=40, items=30)
EDGES = period_edges(LOG, events=60)
SMALL = partial(TransferNet, hidden=6)


def built(name: str):
    torch.manual_seed(0)
    return build(name, LOG.items, users=LOG.users, width=4)


def through(system, **options) -> TransferWrapper:
    torch.manual_seed(1)
    old = {n: system.recommender.get_parameter(n).detach().clone() for n in Transfer()._names(system)}
    return TransferWrapper(system.recommender, old, {n: SMALL(old[n].shape[1]) for n in old}, **options)


def snapshot(module: nn.Module) -> dict:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict, module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def steps(monkeypatch, name: str) -> list[tuple[bool, set[str], set[str]]]:
    """Of each step of two periods: whether it is the nets', which weights of the nets it moved, and of the system."""
    found, original = [], Transfer._step

    def noted(self, learner, *rest, **options):
        nets, body = snapshot(learner.wrapper.nets), snapshot(system)
        original(self, learner, *rest, **options)
        found.append((options["nets"], moved(nets, learner.wrapper.nets), moved(body, system)))

    monkeypatch.setattr(Transfer, "_step", noted)
    system, one = built(name), Transfer(net=SMALL, rounds=2, tuned=("head",))
    state = one.begin(system, Period.of(LOG, EDGES, 0))
    for number in (1, 2):
        state = one.retrain(system, state, Period.of(LOG, EDGES, number))
    return found


@pytest.mark.parametrize("name", ["mf", "sr_gnn"])
def test_step_1_leaves_theta_untouched_and_step_2_all_else(monkeypatch, name):
    found = steps(monkeypatch, name)
    assert [nets for nets, _, _ in found] == [False, True, False, True, False, True, False]
    for nets, theta, body in found:
        assert bool(theta) == nets and bool(body) != nets
        allowed = ("recommender.features.item", "recommender.head")  # "encoder" is not among the tuned
        assert all(weight.startswith(allowed) for weight in body)


def test_step_2_samples_negatives_of_the_new_period_and_the_system_keeps_its_sampler(monkeypatch):
    used, original = [], transfer.train

    def noted(learner, log, **options):
        nets = any(weight.requires_grad for weight in learner.wrapper.nets.parameters())
        used.append((nets, learner.loss.negatives.sample))
        return original(learner, log, **options)

    monkeypatch.setattr(transfer, "train", noted)
    system, one, period = built("mf"), Transfer(net=SMALL, rounds=1), Period.of(LOG, EDGES, 1)
    own = system.loss.negatives.sample
    one.retrain(system, one.retrain(system, one.begin(system, period), period), Period.of(LOG, EDGES, 2))
    past = Period.of(LOG, EDGES, 2).past
    assert [nets for nets, _ in used] == [False, True, False, True, False]
    for nets, recent in used:
        assert not nets or recent.items.tolist() == np.unique(past.item[past.time >= EDGES[2]]).tolist()
    assert all(sample is own for nets, sample in used if not nets) and system.loss.negatives.sample is own
    assert own.since == -np.inf and own.items.tolist() == np.unique(past.item).tolist()


@pytest.mark.parametrize("name", ["gru4rec", "wavenet"])
def test_a_loss_at_all_positions_is_trained_through_the_networks_too(name):
    system, one = built(name), Transfer(net=SMALL, rounds=1)
    before, state = snapshot(system), one.begin(system, Period.of(LOG, EDGES, 0))
    for number in (1, 2):
        state = one.retrain(system, state, Period.of(LOG, EDGES, number))
    assert "recommender.features.item.weight" in moved(before, system)


def test_offline_leaves_out_the_last_step_1(monkeypatch):
    kinds, original = [], Transfer._step
    monkeypatch.setattr(Transfer, "_step", lambda *a, **o: kinds.append(1 + o["nets"]) or original(*a, **o))
    system, one = built("mf"), Transfer(net=SMALL, rounds=2, offline=2)
    state = one.begin(system, Period.of(LOG, EDGES, 0))
    for number in (1, 2, 3):
        state = one.retrain(system, state, Period.of(LOG, EDGES, number))
    assert kinds == [1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1]


def transferred(net: dict, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """The transfer of each row, as section 4.1 prints it, with the biases of the public code."""

    def gelu(x):
        return x * (1.702 * x).sigmoid()

    made = []
    for w, hat in zip(old, new, strict=True):
        stacked = torch.stack([w, hat, (w * hat / (w.norm() + 1e-8)).detach()])
        for name in ("first", "second"):
            stacked = gelu(net[f"{name}.weight"] @ stacked + net[f"{name}.bias"][:, None])
        hidden = gelu(net["full.weight"] @ stacked.flatten() + net["full.bias"])
        made.append(net["out.weight"] @ hidden + net["out.bias"])
    return torch.stack(made)


class Naive:
    """Algorithms 1 and 2 for matrix factors trained by the softmax over all items, whole periods per plain step."""

    names = ("features.item.weight", "head.readout.user.weight")

    def __init__(self, system: System, state: dict, *, rates: tuple[float, float], transferred_again: bool) -> None:
        self.old = {n: system.recommender.get_parameter(n).detach().clone() for n in self.names}
        self.nets = {n: transfer._with_prefix(state, f"net/{n}/") for n in self.names}
        self.hat, self.rates, self.again = {n: w.clone() for n, w in self.old.items()}, rates, transferred_again

    def served(self) -> dict:
        return {n: transferred(self.nets[n], self.old[n], self.hat[n]) for n in self.names}

    def step(self, clicks: tuple, *, theta: bool) -> None:
        moving = [w for net in self.nets.values() for w in net.values()] if theta else list(self.hat.values())
        for weight in moving:
            weight.requires_grad_(True)
        tables, (user, item) = self.served(), clicks
        scores = tables[self.names[1]][user] @ tables[self.names[0]].T
        loss = torch.stack([row.logsumexp(0) - row[i] for row, i in zip(scores, item, strict=True)]).mean()
        slopes = torch.autograd.grad(loss, moving)
        for weight, slope in zip(moving, slopes, strict=True):
            weight.requires_grad_(False)
            weight -= self.rates[theta] * slope

    def first(self, clicks: tuple) -> None:
        """A new period: W ← what is served, Ŵ ← W, one step 1."""
        self.hat = {n: w.clone() for n, w in self.old.items()}
        self.step(clicks, theta=False)

    def alternated(self, before: tuple, now: tuple, *, rounds: int, online: bool) -> None:
        def line_4() -> None:
            self.step(now, theta=True)

        def line_5() -> None:
            if self.again:
                self.hat = self.served()
            self.step(before, theta=False)

        if online:  # Algorithm 2: lines 4 and 5 by turns, then "run line 4" and transfer
            for _ in range(rounds):
                line_4()
                line_5()
            line_4()
        else:  # Algorithm 1: step 1, which the first had already, then step 2
            for number in range(rounds):
                if number:
                    line_5()
                line_4()
        self.old = self.served()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("restart", [transfer.Retrained(), transfer.Transferred()])
@pytest.mark.parametrize("offline", [0, 2, 3])
def test_a_stream_is_the_printed_algorithms(offline: int, restart: transfer.Restart) -> None:
    head = Dot(UserEmbedding(len(LOG.users), 4))
    system = System(
        Recommender(ItemFeatures(LOG.num_items, 4), Clicks(), head),
        LOG.items,
        users=LOG.users,
        samples=every_event,
        limits={"max_length": 0},
    )
    rates, periods = (0.5, 0.2), [Period.of(LOG, EDGES, number) for number in range(4)]
    one = Transfer(
        net=SMALL,
        rounds=2,
        offline=offline,
        restart_from=restart,
        weights=partial(torch.optim.SGD, lr=rates[0]),
        theta=partial(torch.optim.SGD, lr=rates[1]),
        batch_sizes=(1000, 1000),
        penalty=0.0,
    )
    torch.manual_seed(3)
    for weight in system.recommender.parameters():
        nn.init.normal_(weight)
    state = one.begin(system, periods[0])
    naive = Naive(system, state, rates=rates, transferred_again=isinstance(restart, transfer.Transferred))
    clicks = []
    for period in periods[1:]:
        log = period.past
        chosen = torch.from_numpy(np.flatnonzero((log.time >= period.begin) & (log.time < np.inf)))
        clicks.append((torch.from_numpy(log.session_user[log.session])[chosen], torch.from_numpy(log.item)[chosen]))
        state = one.retrain(system, state, period)
        if len(clicks) > 1:
            naive.alternated(*clicks[-2:], rounds=2, online=len(clicks) - 1 >= offline)
        naive.first(clicks[-1])
        for name, table in naive.served().items():
            torch.testing.assert_close(system.recommender.get_parameter(name).detach(), table, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["mf", "sr_gnn"])
def test_losses_and_gradients_are_those_of_a_plain_transferred_system(name):
    system, other = built(name), built(name)
    between = through(system)
    with torch.no_grad():
        for weight in system.recommender.parameters():
            weight.add_(0.1)
    other.load_state_dict(system.state_dict())
    made = between.served()
    with torch.no_grad():
        for table, rows in made.items():
            other.recommender.get_parameter(table).copy_(rows)
    samples = system.training_samples(LOG).take(np.arange(12))
    batch = session_batch(samples.latest(system.max_length), num_items=LOG.num_items)
    between.learn(nets=False)
    losses = []
    for recommender, of in ((between, system), (other.recommender, other)):
        of.fit_statistics(LOG)
        torch.manual_seed(5)  # the same negatives
        losses.append(recommender(batch, of.loss))
    torch.testing.assert_close(*losses)
    for one in losses:
        one.sum().backward()
    for table in made:  # chain rule: the gradient of the plain table, through the net
        own = system.recommender.get_parameter(table).detach().clone().requires_grad_()
        rows = between.nets[table.replace(".", ":")](between.old[table], own)
        rows.backward(other.recommender.get_parameter(table).grad)
        torch.testing.assert_close(system.recommender.get_parameter(table).grad, own.grad, rtol=1e-4, atol=1e-6)


def test_the_penalty_is_on_the_rows_that_a_batch_touches():
    system = built("mf")
    samples = system.training_samples(LOG).take(np.array([3]))
    batch = session_batch(samples.latest(0), num_items=LOG.num_items)
    found = []
    for penalty in (0.0, 2.0):
        between = through(system, penalty=penalty)
        between.learn(nets=False)
        torch.manual_seed(5)
        found.append(between(batch, system.loss))
    torch.manual_seed(5)
    other, _ = system.loss.negatives(batch["sample"].target, batch["sample"].user, LOG.num_items)
    items, users = (system.recommender.get_parameter(f"{n}.weight") for n in ("features.item", "head.readout.user"))
    rows = items[batch["sample"].target], items[other[0]], users[batch["sample"].user]
    torch.testing.assert_close(found[1] - found[0], sum(row.square().sum() for row in rows)[None])


def test_rows_without_events_are_transferred_like_equal_rows():
    """Rows that no step 1 has touched are what step 2 meets of a newcomer, so they are transferred in service too."""
    log, name = fake_log(sessions=24, items=200), "features.item.weight"
    edges = period_edges(log, events=40)
    torch.manual_seed(0)
    system, one = build("mf", log.items, users=log.users, width=4), Transfer(net=SMALL, rounds=1)
    state = one.begin(system, Period.of(log, edges, 0))
    for number in (0, 1):
        before = system.recommender.get_parameter(name).detach().clone()
        state = one.retrain(system, state, now := Period.of(log, edges, number))
    unmet, net = now.past.support == 0, SMALL(4)
    net.load_state_dict(transfer._with_prefix(state, f"net/{name}/"))
    old, made = state[f"old/{name}"][unmet], system.recommender.get_parameter(name)[unmet]
    assert unmet.any() and torch.equal(state[f"retrained/{name}"][unmet], old)
    torch.testing.assert_close(made, net(old, old))
    assert not (made == before[unmet]).all(1).any()


def test_a_warm_up_moves_theta_alone_and_teaches_it_to_read_rows():
    """TransferWrapper untrained nets nothing is known of a past that the rows know; through warm ones, no less."""
    system, now = built("mf"), Period.of(LOG, EDGES, 1)
    Full(epochs=40, batch_size=64).retrain(system, {}, now)
    before, samples = snapshot(system), now.samples(system)

    def loss(of) -> float:
        torch.manual_seed(5)
        return float(of.losses(samples).detach().mean())

    found = []
    for epochs in (0, 10):
        one = Transfer(
            net=partial(TransferNet, hidden=64), warm_up=epochs, theta=Adam(1e-2, 0.0, 1.0), batch_sizes=(64, 16)
        )
        state = one.begin(system, now)
        assert not moved(before, system) and all(weight.requires_grad for weight in system.parameters())
        found.append(loss(one._learner(system, state)))
    assert found[1] < loss(system) < found[0] - 0.2


def test_a_frozen_weight_is_frozen_afterwards():
    system, one = built("sr_gnn"), Transfer(net=SMALL, rounds=1)
    system.recommender.encoder.requires_grad_(False)
    flags = [weight.requires_grad for weight in system.parameters()]
    one.retrain(system, one.begin(system, Period.of(LOG, EDGES, 0)), Period.of(LOG, EDGES, 1))
    assert [weight.requires_grad for weight in system.parameters()] == flags


def test_restarts_from_what_was_transferred(monkeypatch):
    assigned, original = [], transfer._assign
    monkeypatch.setattr(transfer, "_assign", lambda body, tables: assigned.append(tables) or original(body, tables))
    for choice, more in ((transfer.Retrained(), 0), (transfer.Transferred(), 3)):
        assigned.clear()
        system, one = built("mf"), Transfer(net=SMALL, rounds=3, restart_from=choice)
        state = one.begin(system, Period.of(LOG, EDGES, 0))
        for number in (1, 2):
            state = one.retrain(system, state, Period.of(LOG, EDGES, number))
        assert len(assigned) == 1 + 3 + more  # served; hat put back, recomputed, served; and after each step 2
    with pytest.raises(InputError, match=r"restart_from='retrained' must be Retrained\(\) or Transferred\(\)"):
        Transfer(restart_from="retrained")


class Blend(nn.Module):
    """A net with one weight: how much of the new row."""

    def __init__(self, width):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(1.0))

    def forward(self, old, new):
        return self.share * new + (1 - self.share) * old


def test_theta_learns_which_rows_to_trust():
    """Where the last period's rows are good and the new ones spoiled, step 2 turns from the new to the old."""
    system, still = built("mf"), Adam(lr=0.0, weight_decay=0.0)
    Full(epochs=40, batch_size=64).retrain(system, {}, Period.of(LOG, EDGES, 1))
    one = Transfer(net=Blend, rounds=4, weights=still, theta=Adam(lr=0.05, weight_decay=0.0, final=1))
    state = one.retrain(system, one.begin(system, Period.of(LOG, EDGES, 1)), Period.of(LOG, EDGES, 2))
    assert state["net/features.item.weight/share"] == 1.0  # no successor yet, nothing learned
    state |= {name: -table for name, table in state.items() if name.startswith("retrained/")}
    state = one.retrain(system, state, Period.of(LOG, EDGES, 3))
    assert state["net/features.item.weight/share"] < 0.9


def test_what_it_cannot_transfer_it_names():
    with pytest.raises(InputError, match=r"no embedding table in the scope \('encoder',\); its tables are features"):
        Transfer(tables=("encoder",)).begin(built("mf"), Period.of(LOG, EDGES, 0))
    with pytest.raises(InputError, match="transfer does not support systems with an adaptation"):
        Transfer().begin(built("maml"), Period.of(LOG, EDGES, 0))


class Own(nn.Module):
    """Features with a plain embedding."""

    def __init__(self):
        super().__init__()
        self.vectors = nn.Embedding(LOG.num_items, 4)

    def forward(self, n_id):
        return self.vectors(n_id), self.vectors.weight


class Bare(Own):
    def __init__(self):
        nn.Module.__init__(self)
        self.register_parameter("vectors", nn.Parameter(torch.randn(LOG.num_items, 4)))

    def forward(self, n_id):
        return self.vectors[n_id], self.vectors


def own(features) -> System:
    head = Dot(Last(), nn.Linear(4, 4))
    recommender = Recommender(features, GatedSessionGraph(4), head)
    recommender.header = nn.Linear(1, 1)
    return System(recommender, LOG.items)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, partial(torch.optim.AdamW, lr=0.01)])
def test_a_users_own_embedding_is_transferred_by_any_optimizer(optimizer):
    system = sml(own(Own()), rounds=1, net=TransferOptions(hidden=4))
    for weight in system.recommender.encoder.parameters():
        weight.requires_grad_(False)
    learned, before = {n: w.requires_grad for n, w in system.named_parameters()}, snapshot(system)
    one = replace(system.retraining, weights=optimizer, theta=optimizer)
    state = one.begin(system.eval(), Period.of(LOG, EDGES, 0))
    for number in (1, 2):
        state = one.retrain(system, state, Period.of(LOG, EDGES, number))
    assert "recommender.features.vectors.weight" in moved(before, system) and not system.training
    assert {n: w.requires_grad for n, w in system.named_parameters()} == learned


def test_requires_grad_of_a_system_in_service_is_never_set(monkeypatch):
    system, seen, original = built("mf"), [], Transfer._step

    def noted(self, learner, *rest, **options):
        original(self, learner, *rest, **options)
        seen.append(all(weight.requires_grad for weight in system.parameters()))

    monkeypatch.setattr(Transfer, "_step", noted)
    one = Transfer(net=SMALL, rounds=1, tuned=("head",))
    state = one.begin(system, Period.of(LOG, EDGES, 0))
    for number in (1, 2):
        state = one.retrain(system, state, Period.of(LOG, EDGES, number))
    assert seen == [True] * 5


def test_a_name_is_in_the_scope_only_below_a_dot():
    through = TransferWrapper(own(Own()).recommender, {}, {})
    through.learn(nets=False, tuned=("head",))
    learned = {name for name, weight in through.body.named_parameters() if weight.requires_grad}
    assert "head.project.weight" in learned and not any(name.startswith("header") for name in learned)
    with pytest.raises(InputError, match=r"in the scope \('',\); it has none \(graphmeta.protocols.EmbeddingTable\)"):
        sml(own(Bare())).retraining.begin(own(Bare()), Period.of(LOG, EDGES, 0))
