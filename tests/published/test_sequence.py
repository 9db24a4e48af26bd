"""The sequence baselines: scores against a plain loop, losses against their definition, users where there are some."""

import numpy as np
import pytest
import torch

from graphmeta.errors import InputError
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.load import load
from graphmeta.sampling.samples import Samples, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

LOG = fake_log(sessions=60)
SESSIONS = [[3], [1, 2, 1, 2, 5, 7, 7], [4, 4]]
USERS = np.array([0, 7, -1])


pytestmark = pytest.mark.usefixtures("float64")


def made(name, *, users=LOG.users, **arguments):
    """The system in evaluation, with biases that are not zero."""
    torch.manual_seed(0)
    system = build(name, LOG.items, users=users, **arguments).double().eval()
    features = system.recommender.features
    table = getattr(features, "output", features.item).weight
    torch.nn.init.normal_(table[:, -1])
    return system, system.recommender, table.detach()


def found(system, *, users=USERS):
    return system.scores(sessions_without_target([np.array(session) for session in SESSIONS], users=users))


def assert_scores(scores, queries, table):
    wanted = torch.stack([table[:, :-1] @ query + table[:, -1] for query in queries])
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-12)


@torch.no_grad()
def test_youtube_dnn_is_the_formula():
    system, _, table = made("youtube_dnn", width=5)
    queries = [sum(table[item, :-1] for item in session) / (len(session) + 1) for session in SESSIONS]
    assert_scores(found(system), queries, table)


@torch.no_grad()
def test_youtube_dnn_with_a_tower_is_the_formula():
    system, model, table = made("youtube_dnn", width=5, tower=(6, 4))
    queries = []
    for session in SESSIONS:
        hidden = sum(model.features.item.weight[item] for item in session) / (len(session) + 1)
        for layer in (model.head.project[0], model.head.project[2]):
            hidden = torch.relu(layer.weight @ hidden + layer.bias)
        queries.append(hidden)
    assert table.shape == (40, 5)
    assert_scores(found(system), queries, table)


@torch.no_grad()
def test_wavenet_is_the_formula():
    """Two gated layers of dilations 1 and 2, residual and skip connections, two ReLUs."""
    system, model, table = made("wavenet", width=5, layers=2)
    encoder, queries = model.encoder, []
    for session in SESSIONS:
        hidden, total = [table[item, :-1] for item in session], torch.zeros(5)
        for layer, dilation in zip(encoder.layers, (1, 2), strict=True):
            before = [hidden[t - dilation] if t >= dilation else torch.zeros(5) for t in range(len(hidden))]
            sums = [layer.filters(torch.cat([new, old])) for new, old in zip(hidden, before, strict=True)]
            units = [torch.tanh(one[:5]) * torch.sigmoid(one[5:]) for one in sums]
            hidden = [new + layer.residual(z) for new, z in zip(hidden, units, strict=True)]
            total = total + layer.skip(units[-1])
        queries.append(torch.relu(encoder.output(torch.relu(total))))
    assert_scores(found(system), queries, table)


def caser_by_hand(patterns, rows, length):
    """z for the clicks whose vectors these are."""
    width = len(rows[0])
    image = torch.zeros(length, width)
    image[max(0, length - len(rows)) :] = torch.stack(rows[-length:])
    parts = []
    for height, layer in enumerate(patterns.horizontal, 1):
        places = torch.stack([image[p : p + height].flatten() for p in range(length - height + 1)])
        parts.append(torch.relu(places @ layer.weight.t() + layer.bias).amax(0))
    parts.append((patterns.vertical.weight @ image).t().flatten())
    return torch.relu(patterns.join.weight @ torch.cat(parts) + patterns.join.bias)


@torch.no_grad()
def test_caser_is_the_formula_with_and_without_users():
    system, model, table = made("caser", width=4, horizontal=3, vertical=2)
    patterns, users = model.encoder.encoders
    assert table.shape == (40, 2 * 4 + 1)
    queries = []
    for session, user in zip(SESSIONS, USERS, strict=True):
        z = caser_by_hand(patterns, [model.features.item.weight[item] for item in session], 5)
        queries.append(torch.cat([z, torch.zeros(4) if user < 0 else users.users.user.weight[user]]))
    assert_scores(found(system), queries, table)


@torch.no_grad()
def test_caser_without_users_is_the_formula():
    system, model, table = made("caser", users=None, width=4, length=3)
    assert table.shape == (40, 4 + 1) and system.users is None
    queries = [
        caser_by_hand(model.encoder, [model.features.item.weight[item] for item in session], 3)
        for session in SESSIONS
    ]  # fmt: skip
    assert_scores(found(system, users=None), queries, table)


@torch.no_grad()
def test_bpr_mf_is_the_formula_whatever_was_clicked():
    system, model, table = made("bpr_mf", width=5)
    vectors = model.encoder.users.user.weight
    queries = [torch.zeros(5) if user < 0 else vectors[user] for user in USERS]
    scores = found(system)
    assert_scores(scores, queries, table)
    torch.testing.assert_close(scores[2], table[:, -1])
    others = sessions_without_target([np.array(session[::-1] + [9]) for session in SESSIONS], users=USERS)
    assert torch.equal(system.scores(others), scores)


NAMES = [entry.name for entry in CATALOGUE.values() if entry.family == "sequence"]


@pytest.mark.parametrize("name", NAMES)
def test_the_scores_after_each_click_are_those_of_the_prefix(name):
    """One pass over a session answers for all its prefixes, so training at every click is right."""
    system, model, _ = made(name, width=4)
    session = np.array(SESSIONS[1])
    batch = session_batch(sessions_without_target([session], users=np.array([3])), num_items=LOG.num_items)
    batch["sample"].last, batch["sample"].num_nodes = torch.arange(len(session)), len(session)
    with torch.no_grad():
        states, candidates = model.encode(batch)
        every = model.head(states, batch, candidates)
    prefixes = sessions_without_target([session[: t + 1] for t in range(len(session))], users=np.full(len(session), 3))
    torch.testing.assert_close(every, system.scores(prefixes), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_batch_mates(name):
    system, _, _ = made(name, width=4)
    samples = sessions_without_target(
        [np.array(session) for session in [*SESSIONS, [8] * 30]], users=np.array([0, 7, -1, 2])
    )
    together = system.scores(samples)
    for row in range(4):
        torch.testing.assert_close(system.scores(samples.take([row]))[0], together[row], rtol=0, atol=1e-12)


def of_one(session, user=1):
    """The session as one training sample: all but its last click known."""
    ends = np.array([len(session) - 1])
    return Samples(
        np.array(session), np.array([0]), ends, np.array(session[-1:]), np.zeros(1, int), user=np.array([user])
    )


def test_caser_learns_from_three_targets_and_three_negatives_each():
    system, model, table = made("caser", width=4)
    system.fit_statistics(LOG)
    session = [1, 2, 3, 4, 5]
    torch.manual_seed(3)
    losses = system.losses(of_one(session)).detach()
    torch.manual_seed(3)
    negatives, at = system.loss.loss.negatives, 0
    for ahead in (1, 2, 3):
        clicks = [t for t in range(4) if t + ahead < 5]
        target = torch.tensor([session[t + ahead] for t in clicks])
        items, counts = negatives(target, torch.full((len(clicks),), 1), 40)
        assert items.shape == (len(clicks), 3) and counts.all()
        for row, t in enumerate(clicks):
            z = caser_by_hand(model.encoder.encoders[0], [model.features.item.weight[i] for i in session[: t + 1]], 5)
            scores = table[:, :-1] @ torch.cat([z, model.encoder.encoders[1].users.user.weight[1]]) + table[:, -1]
            wanted = -torch.sigmoid(scores[target[row]]).log() - torch.sigmoid(-scores[items[row]]).log().sum()
            torch.testing.assert_close(losses[at], wanted.detach())
            at += 1
    assert at == len(losses) == 4 + 3 + 2


def test_bpr_mf_compares_every_click_but_the_first_with_one_the_user_never_made():
    system, model, table = made("bpr_mf", width=4)
    system.fit_statistics(LOG)
    session = [1, 2, 3]
    torch.manual_seed(3)
    losses = system.losses(of_one(session)).detach()
    torch.manual_seed(3)
    items, _ = system.loss.loss.negatives(torch.tensor([2, 3]), torch.tensor([1, 1]), 40)
    assert not set(items.flatten().tolist()) & set(LOG.item[LOG.session_user[LOG.session] == 1].tolist())
    scores = table[:, :-1] @ model.encoder.users.user.weight[1].detach() + table[:, -1]
    wanted = [-torch.sigmoid(scores[t] - scores[n]).log() for t, n in zip([2, 3], items.flatten(), strict=True)]
    torch.testing.assert_close(losses, torch.stack(wanted))


@pytest.mark.parametrize("name", ["youtube_dnn", "wavenet"])
@pytest.mark.parametrize("loss", ["cross_entropy", "hinge_max", "bpr"])
@pytest.mark.filterwarnings("ignore:.* does not read")
def test_losses_by_name(name, loss):
    system, _, _ = made(name, width=4, loss=loss, negatives=5)
    system.fit_statistics(LOG)
    torch.manual_seed(3)
    losses = system.losses(of_one([1, 2, 3, 4]))
    scores = system.scores(sessions_without_target([np.arange(1, t + 2) for t in range(3)]))
    torch.manual_seed(3)
    if loss == "cross_entropy":
        wanted = torch.nn.functional.cross_entropy(scores, torch.tensor([2, 3, 4]), reduction="none")
    else:
        items, counts = system.loss.loss.negatives(torch.tensor([2, 3, 4]), torch.ones(3, dtype=torch.long), 40)
        wanted = system.loss.loss.comparison(scores[range(3), [2, 3, 4]], scores.gather(1, items), counts)
    torch.testing.assert_close(losses, wanted)


def test_an_unknown_loss_names_the_known_ones():
    with pytest.raises(InputError, match="loss='warp' must be one of cross_entropy, bpr"):
        build("wavenet", LOG.items, loss="warp")


def test_missing_users_are_refused_only_if_needed():
    assert {name for name in NAMES if CATALOGUE[name].needs_users} == {"bpr_mf"}
    with pytest.raises(InputError, match="bpr_mf needs users; name the log's user column"):
        build("bpr_mf", LOG.items)
    assert build("caser", LOG.items, users=LOG.users).users is LOG.users
    assert build("caser", LOG.items).users is None
    assert build("wavenet", LOG.items, users=LOG.users).users is None


@pytest.mark.parametrize(("name", "users"), [("caser", None), ("caser", LOG.users), ("bpr_mf", LOG.users)])
def test_users_survive_saving(name, users, tmp_path):
    system, _, _ = made(name, users=users, width=4)
    system.fit_statistics(LOG)
    system.save(tmp_path)
    again = load(tmp_path).double().eval()
    torch.testing.assert_close(found(again), found(system), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_the_ring(name):
    """After item n comes n + 1; a user's sessions begin anywhere, so bpr_mf can learn no more than what is frequent."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    system = build(name, LOG.items, users=LOG.users, width=16)
    history = list(train(system, LOG, epochs=6, optimizer=Adam(lr=3e-2), batch_size=10))
    assert history[-1].loss < 0.8 * history[0].loss
