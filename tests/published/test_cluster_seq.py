"""ClusterSeq's parts by hand, and what its graph must not know."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from graphmeta.errors import InputError
from graphmeta.nn.conditioning.cluster import Assignment, Autoencoders
from graphmeta.nn.heads.attention_decoder import AttentionDecoder
from graphmeta.plots import user_clusters
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.sampling.samples import last_clicks, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.tasks import task_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

LOG = replace(fake_log(sessions=50, length=4), users=None, session_user=None)  # a session counts as a user

pytestmark = pytest.mark.usefixtures("float64")


def made(log=LOG, **arguments):
    torch.manual_seed(0)
    system = build("cluster_seq", log.items, width=5, graph=6, code=3, clusters=4, negatives=7, **arguments).eval()
    system.fit_statistics(log)
    return system


def numpy_of(module):
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def autoencoders(temperature=0.1, clusters=3):
    torch.manual_seed(2)
    return Autoencoders(6, 2, clusters=clusters, temperature=temperature)


def test_autoencoders_are_the_formula():
    part, x = autoencoders(temperature=0.3), torch.randn(5, 6)
    w, b = ([p.detach().numpy() for p in ps] for ps in (part.weights, part.biases))
    errors, codes = np.zeros((5, 3)), np.zeros((5, 3, 2))
    for k in range(3):
        for s in range(5):
            inside = np.maximum(x[s].numpy() @ w[0][k] + b[0][k, 0], 0)
            codes[s, k] = inside @ w[1][k] + b[1][k, 0]
            again = np.maximum(codes[s, k] @ w[2][k] + b[2][k, 0], 0) @ w[3][k] + b[3][k, 0]
            errors[s, k] = ((again - x[s].numpy()) ** 2).sum() / 6
    share = np.exp(-errors / 0.3) / np.exp(-errors / 0.3).sum(1, keepdims=True)
    np.testing.assert_allclose(part(x).detach(), (share[:, :, None] * codes).sum(1), atol=1e-12)
    mean = share.mean(0)
    for balance in (0.0, 0.7):
        wanted = (share * errors).sum(1).mean() + balance * sum(m * np.log(m * 3) for m in mean)
        np.testing.assert_allclose(part.loss(x, balance=balance).detach(), wanted, atol=1e-12)


def test_at_zero_temperature_only_the_best_encoder_counts():
    hard, x = autoencoders(temperature=0), torch.randn(7, 6)
    best = hard.errors(x).argmin(1)
    torch.testing.assert_close(hard(x), hard.encode(x)[best, torch.arange(7)])
    soft = autoencoders(temperature=1e-5)
    torch.testing.assert_close(soft(x), hard(x))
    torch.testing.assert_close(hard.loss(x, balance=0.0), hard.errors(x).amin(1).mean())


def test_even_clusters_cost_nothing_and_one_for_all_the_most():
    part, x = autoencoders(), torch.randn(6, 6)
    with torch.no_grad():
        for weight in (*part.weights, *part.biases):
            weight.copy_(weight[:1].expand_as(weight))
    torch.testing.assert_close(part.loss(x, balance=5.0), part.loss(x, balance=0.0))
    hard = autoencoders(temperature=0)
    with torch.no_grad():
        hard.biases[3][1:] += 100
    torch.testing.assert_close(hard.loss(x, balance=1.0) - hard.loss(x, balance=0.0), torch.tensor(3.0).log())


def test_sizes_and_the_effective_number_of_clusters():
    """By hand: hard clusters of sizes 1, 3 and 0, one cluster for all, and memberships that say nothing."""
    hard = torch.eye(3)[[1, 1, 0, 1]]
    found = Assignment(torch.zeros(4, 2), hard, 1 - hard)
    assert found.sizes == [1, 3, 0] and found.shares == [0.25, 0.75, 0.0] and found.largest_membership == 1
    assert found.distinct == pytest.approx(np.exp(-0.25 * np.log(0.25) - 0.75 * np.log(0.75)))
    for same in (torch.eye(3)[[2, 2, 2]], torch.full((3, 3), 1 / 3), torch.tensor([[0.2, 0.5, 0.3]]).expand(3, -1)):
        assert Assignment(torch.zeros(3, 2), same, same).distinct == pytest.approx(1)
    even = Assignment(torch.zeros(3, 2), torch.eye(3), torch.eye(3))
    assert even.distinct == pytest.approx(3) and even.sizes == [1, 1, 1]


def test_clusters_of_users_are_those_that_gate_the_decoder():
    system, samples = made(), last_clicks(LOG)
    system.train()
    found = system.clusters(samples)
    assert system.training
    batch = session_batch(samples, num_items=LOG.num_items)
    code = system.recommender.head.readout
    system.eval()
    x = code.user(system.recommender.encode(batch)[0], batch).detach()
    torch.testing.assert_close(found.vectors, x)
    torch.testing.assert_close(found.membership, code.clusters.membership(code.clusters.errors(x)).detach())
    mixed = torch.einsum("sk,ksc->sc", found.membership, code.clusters.encode(found.vectors))
    torch.testing.assert_close(mixed, code(system.recommender.encode(batch)[0], batch))
    log = fake_log(sessions=50)  # with users: one row for each
    assert made(log).clusters(log).membership.shape == (len(log.users), 4)
    assert sum(system.clusters(LOG).sizes) == LOG.num_sessions
    with pytest.raises(InputError, match="no users to assign"):
        system.clusters(samples.take(slice(0, 0)))
    with pytest.raises(InputError, match="other item indices"):
        system.clusters(fake_log(sessions=9, items=12))


def test_the_picture_has_a_bar_for_each_cluster_and_a_point_for_each_user(tmp_path, monkeypatch):
    drawn, save = [], user_clusters.save
    monkeypatch.setattr(user_clusters, "save", lambda figure, path: (drawn.append(figure), save(figure, path)))
    torch.manual_seed(0)
    vectors, membership = torch.randn(9, 5), torch.eye(3)[[0, 0, 0, 0, 0, 1, 1, 1, 1]]
    user_clusters.clusters(Assignment(vectors, membership, membership), tmp_path / "clusters.png")
    assert (tmp_path / "clusters.png").read_bytes().startswith(b"\x89PNG")
    left, right = drawn[0].axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([500 / 9, 400 / 9, 0])
    assert [text.get_text() for text in left.texts] == ["5", "4", "0"] and "1.99 of 3" in left.get_title(loc="left")
    assert [len(line.get_xdata()) for line in right.lines] == [5, 4, 0]
    place, explained = user_clusters.principal_components(vectors)
    _, values, axes = np.linalg.svd(vectors.numpy() - vectors.numpy().mean(0))
    wanted = (vectors.numpy() - vectors.numpy().mean(0)) @ axes[:2].T
    np.testing.assert_allclose(np.abs(place.numpy()), np.abs(wanted), atol=1e-6)
    np.testing.assert_allclose(explained, values[:2] ** 2 / (values**2).sum(), rtol=1e-6)
    flat, none = user_clusters.principal_components(torch.ones(4, 1))
    assert flat.tolist() == [[0, 0]] * 4 and none == [0, 0]


def test_the_decoder_is_the_formula():
    torch.manual_seed(0)
    part = AttentionDecoder(3, 4)
    batch = session_batch(sessions_without_target([np.array([1, 2, 1]), np.array([5]), np.array([3, 4])]), num_items=9)
    states = torch.randn(6, 4 + 3 + 2)
    found, cell = part(states, batch), part.cell
    for row, (a, b) in enumerate([(0, 3), (3, 4), (4, 6)]):
        h, s, e = states[a:b, :4], states[b - 1, :4], states[b - 1, 4:7]
        energy = torch.stack(
            [part.score.weight[0] @ torch.tanh(part.of_each.weight @ one + part.of_state.weight @ s) for one in h]
        )
        c = (energy.exp() / energy.exp().sum()) @ h
        next_state = cell(torch.cat([e, c])[None], s[None])[0]
        z = part.output.weight @ torch.cat([next_state, c]) + part.output.bias
        torch.testing.assert_close(found[row], z)


def test_the_graph_is_the_formula():
    system = made()
    features, w = system.recommender.features, numpy_of(system.recommender.features)
    e = w["item.weight"] @ w["project.weight"].T
    known = [set(LOG.item[a : b - 1].tolist()) for a, b in zip(LOG.ptr, LOG.ptr[1:], strict=False)]
    degree = np.array([sum(item in items for items in known) for item in range(LOG.num_items)])
    met = np.stack([e[sorted(items)].mean(0) for items in known])
    g = np.zeros((LOG.num_items, 6))
    for item in range(LOG.num_items):
        total = sum(
            (met[u] / np.sqrt(len(known[u]) * degree[item]) for u in range(len(known)) if item in known[u]), np.zeros(6)
        )
        g[item] = w["spread.lin_rel.weight"] @ total + w["spread.lin_rel.bias"] + w["spread.lin_root.weight"] @ e[item]
    g = np.maximum(g, 0) / np.sqrt(np.maximum(degree, 1))[:, None]
    np.testing.assert_allclose(features.neighbourhood().detach(), g, atol=1e-12)
    person = system.recommender.head.readout.user
    samples = sessions_without_target([np.array([3, 9, 3]), np.array([0])])
    batch = session_batch(samples, num_items=LOG.num_items)
    found = person(system.recommender.encode(batch)[0], batch).detach()
    w = numpy_of(person)
    for row, items in enumerate([[3, 9, 3], [0]]):
        wanted = np.maximum(w["linear.weight"] @ g[items].sum(0) / np.sqrt(len(items)) + w["linear.bias"], 0)
        np.testing.assert_allclose(found[row], wanted, atol=1e-12)


def test_the_graph_never_holds_query_targets():
    """Other last clicks, which is what training asks about: the same graph, and the same code for everybody."""
    query = LOG.ptr[1:] - 1
    item = LOG.item.copy()
    item[query] = (item[query] + 11) % LOG.num_items
    other = replace(LOG, item=item)
    one, two = made(LOG), made(other)
    assert torch.equal(one.recommender.features.edges, two.recommender.features.edges)
    batches = [task_batch(last_clicks(log), num_items=LOG.num_items).query for log in (LOG, other)]
    assert not torch.equal(batches[0]["sample"].target, batches[1]["sample"].target)
    codes = [s.recommender.summary(batch) for s, batch in zip((one, two), batches, strict=True)]
    assert torch.equal(*codes)
    item[query - 1] = (item[query - 1] + 11) % LOG.num_items  # a known click does change it
    assert not torch.equal(made(replace(LOG, item=item)).recommender.summary(batches[0]), codes[0])


def test_a_new_users_code_does_not_depend_on_the_batch():
    system, people = made(), [np.array([3, 9, 4]), np.array([0]), np.array([3, 9, 4]), np.arange(7)]

    def codes(some):
        return system.recommender.summary(task_batch(sessions_without_target(some), num_items=LOG.num_items).query)

    together = codes(people)
    torch.testing.assert_close(together[0], together[2], rtol=0, atol=1e-12)
    for row, person in enumerate(people):
        torch.testing.assert_close(codes([person])[0], together[row], rtol=0, atol=1e-12)
    assert len({tuple(code) for code in together.detach().numpy().round(9).tolist()}) == 3


def test_the_code_gates_the_decoders_rows():
    system = made(steps=0)
    samples = last_clicks(LOG).take(slice(0, 4))
    tasks = task_batch(samples, num_items=LOG.num_items)
    found, plain = system.scores(samples), system.recommender
    codes = plain.summary(tasks.query)
    gates = system.adaptation.start.gates
    assert set(system.adaptation.names) == {key.replace("/", ".") for key in gates}
    for task in range(4):
        gated = copy.deepcopy(plain)
        for name in system.adaptation.names:
            parameter, gate = gated.get_parameter(name), torch.sigmoid(gates[name.replace(".", "/")](codes[task]))
            assert len(gate) == len(parameter)
            with torch.no_grad():
                parameter.mul_(gate.reshape(-1, *(1,) * (parameter.dim() - 1)))
        alone = session_batch(samples.take(slice(task, task + 1)), num_items=LOG.num_items)
        torch.testing.assert_close(gated(alone)[0], found[task])


def test_the_loss_is_ranking_and_clustering():
    system, samples = made(), last_clicks(LOG).take(slice(0, 9))
    plain, clustering = (made(weight=0.0).losses(samples), system.clustering(samples))
    torch.testing.assert_close(system.losses(samples), plain + 0.1 * clustering)
    readout = system.recommender.head.readout
    batch = session_batch(samples, num_items=LOG.num_items)
    people = readout.user(system.recommender.encode(batch)[0], batch)
    torch.testing.assert_close(clustering, readout.clusters.loss(people))


@pytest.mark.parametrize("order", [1, 2])
def test_all_users_stacked_give_what_the_loop_gives_and_everything_learns(order):
    system, samples = made(steps=2, lr=0.2, order=order), last_clicks(LOG).take(slice(0, 5))
    answers = []
    for stacked in (True, False):
        system.adaptation.stacked = stacked
        losses = system.losses(samples)
        answers.append([losses, *torch.autograd.grad(losses.mean(), list(system.parameters()))])
        assert not system.adaptation.fell_back
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    names = [name for name, _ in system.named_parameters()]
    assert [n for n, slope in zip(names, answers[0][1:], strict=True) if not slope.abs().sum() > 0] == []


def test_second_order_gradients_are_those_of_finite_differences():
    system, samples = made(steps=2, lr=0.2, order=2), last_clicks(LOG).take(slice(0, 5))
    learned, random = list(system.parameters()), torch.Generator().manual_seed(1)
    slopes = torch.autograd.grad(system.losses(samples).mean(), learned)
    direction = [torch.randn(p.shape, generator=random) for p in learned]
    analytic = sum((slope * d).sum() for slope, d in zip(slopes, direction, strict=True))
    values, small = [], 1e-6
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(learned, direction, strict=True):
                p.add_(sign * small * d)
            values.append(system.losses(samples).mean())
    torch.testing.assert_close((values[0] - values[1]) / (2 * small), analytic, rtol=1e-5, atol=1e-8)


def test_the_graph_is_saved(tmp_path):
    system = made()
    list(train(system, LOG, epochs=1, optimizer=Adam(lr=1e-2)))
    assert system.recommender.features.edges.shape == (2, 150)
    system.save(tmp_path)
    again = load(tmp_path).double().eval()
    samples = last_clicks(LOG)
    torch.testing.assert_close(again.scores(samples), system.eval().scores(samples), rtol=0, atol=1e-5)
    assert torch.equal(again.recommender.features.edges, system.recommender.features.edges)
