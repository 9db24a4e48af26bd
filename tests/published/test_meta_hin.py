"""MetaHIN against a loop over paths and sessions written out, and its neighbours against counting by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.encoders.metapath import MetaPaths
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.sampling.samples import last_clicks, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log

LOG = fake_log(sessions=30)
WIDTH, SIZE = 4, 3
NAMES = ["colour", "size"]  # the attributes of random_log


def random_log(seed=3, sessions=60, items=12):
    """Sessions of random items, with repeats; two attributes, some values unknown; the last item is never clicked."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 6, sessions)
    session = np.repeat(np.arange(sessions), lengths)
    clicked = random.integers(0, items - 1, len(session)) ** 2 // (items - 1)
    table = pd.DataFrame({"item": np.arange(items)})
    table["colour"] = [None if n % 5 == 4 else f"c{n % 3}" for n in range(items)]
    table["size"] = [f"s{n % 2}" for n in range(items)]
    known = EntityTable.read(table, key="item")
    frame = pd.DataFrame({"s": session, "i": clicked})
    return EventLog.read(frame, session="s", item="i").aligned_to(known, None)


def by_hand(log, most, discount=0):
    """Neighbours of each path and item, by counting sets of sessions, each without its last click."""
    known = [log.item[log.session == s].tolist()[:-1] for s in range(log.num_sessions)]
    sessions, clicks = [set(clicked) for clicked in known], np.zeros(log.num_items, dtype=int)
    np.add.at(clicks, [i for clicked in known for i in clicked], 1)
    paths = [[], *([] for _ in log.items.attributes)]
    for i in range(log.num_items):
        shared = {j: sum({i, j} <= s for s in sessions) - discount for j in range(log.num_items)}
        paths[0].append(sorted((j for j in shared if shared[j] > 0), key=lambda j: (-shared[j], j))[:most] or [i])
        for path, attribute in zip(paths[1:], log.items.attributes.values(), strict=True):
            code = attribute.codes[i]
            alike = [j for j in range(log.num_items) if code > 0 and attribute.codes[j] == code and clicks[j] > 0]
            path.append(sorted(alike, key=lambda j: (-clicks[j], j))[:most] or [i])
    return paths


@pytest.mark.parametrize("discount", [0, 1, 2])
@pytest.mark.parametrize("most", [2, 5, 20])
def test_neighbours_are_those_counted_by_hand(most, discount):
    log = random_log()
    paths = MetaPaths(log.num_items, NAMES, most=most, discount=discount)
    paths.fit_statistics(log)
    for path, wanted in enumerate(by_hand(log, most, discount)):
        for item, near in enumerate(wanted):
            assert paths.number[path, item] == len(near)
            assert paths.neighbour[path, item, : len(near)].tolist() == near


def test_vectors_are_means_over_neighbours():
    log, table = random_log(), torch.randn(12, WIDTH)
    paths = MetaPaths(12, NAMES, most=5)
    before = paths(torch.arange(12), lambda index: table[index])
    torch.testing.assert_close(before, table.repeat(1, 4))  # before it is fitted, an item has itself alone
    paths.fit_statistics(log)
    found = paths(torch.tensor([3, 0, 11]), lambda index: table[index])
    for row, item in enumerate([3, 0, 11]):
        wanted = [table[item], *(table[near[item]].mean(0) for near in by_hand(log, 5))]
        torch.testing.assert_close(found[row], torch.cat(wanted))


def test_neighbours_come_from_the_training_log_alone():
    log = random_log()
    early = log.of_sessions(np.arange(log.num_sessions) < 40)
    early, whole = early.aligned_to(log.items, None), log
    found = [MetaPaths(12, NAMES, most=5) for _ in range(2)]
    found[0].fit_statistics(early)
    found[1].fit_statistics(whole)
    assert not torch.equal(found[0].neighbour, found[1].neighbour)
    system = build("meta_hin", log.items, width=WIDTH)
    system.fit_statistics(early)
    system.scores(last_clicks(whole))
    system.losses(last_clicks(whole, min_length=3))
    assert torch.equal(system.recommender.context.neighbour[..., :5], fitted(early).neighbour[..., :5])


def given_away(context, log):
    """Support samples, and those whose target is a neighbour of a known click only through their own session."""
    known = [log.item[log.session == s].tolist()[:-1] for s in range(log.num_sessions)]
    samples = [(s, clicks[:t], clicks[t]) for s, clicks in enumerate(known) for t in range(1, len(clicks))]
    near = [set(row[:size].tolist()) for row, size in zip(context.neighbour[0], context.number[0], strict=True)]
    alone = 0
    for s, before, target in samples:
        reached = [click for click in before if target in near[click] and click != target]
        others = [set(clicks) for other, clicks in enumerate(known) if other != s]
        alone += bool(reached) and not any({click, target} <= other for click in reached for other in others)
    return len(samples), alone


def test_a_support_target_is_no_neighbour_through_its_own_session():
    log = random_log(sessions=30, items=40)
    system = build("meta_hin", log.items, width=WIDTH)
    system.fit_statistics(log)
    samples, alone = given_away(system.recommender.context, log)
    assert samples > 30 and alone == 0
    system = build("meta_hin", log.items, width=WIDTH, discount=0)
    system.fit_statistics(log)
    assert given_away(system.recommender.context, log)[1] > samples / 10  # what the discount is for


def fitted(log):
    paths = MetaPaths(12, NAMES, most=20, discount=1)
    paths.fit_statistics(log)
    return paths


def test_a_session_alone_makes_no_neighbours():
    """Neighbours need a session, with the discount two; the last click of a session is in none."""
    frame = pd.DataFrame({"s": [0, 0, 0, 1, 1, 2, 2, 3, 3, 3], "i": list("abcabxyabd")})
    log = EventLog.read(frame, session="s", item="i")
    for discount, wanted in {0: [[0, 1], [0, 1], [2]], 1: [[0, 1], [1, 0], [2]], 2: [[0], [1], [2]]}.items():
        paths = MetaPaths(log.num_items, [], most=5, discount=discount)
        paths.fit_statistics(log)
        near = [paths.neighbour[0, i, : int(paths.number[0, i])].tolist() for i in range(3)]
        assert [sorted(one) for one in near] == [sorted(one) for one in wanted]


def made(**arguments):
    torch.manual_seed(0)
    system = build("meta_hin", LOG.items, width=WIDTH, size=SIZE, path_lr=0.7, lr=0.4, **arguments).eval()
    system.fit_statistics(LOG)
    return system


def session_by_hand(system, clicks, around, *, steps=True):
    """Scores of one session: each path by itself, prefix by prefix, in plain tensors; ``steps=False`` is the start."""
    model = system.recommender
    head, gates, paths = model.head, system.adaptation.start.gates, list(model.head.readout.paths)
    table = model.features.item.weight
    neighbours = [[[i] for i in range(LOG.num_items)], *around]

    def read(known, p, layer):
        """[S ; c^p] after these clicks."""
        batch = session_batch(sessions_without_target([known]), num_items=LOG.num_items)
        states = model.encoder(model.features(batch["item"].n_id)[0], batch)
        means = torch.stack([table[neighbours[p][i]].mean(0) for i in known]).mean(0)
        return states[-1], torch.nn.functional.leaky_relu(layer[0] @ means + layer[1])

    def loss(p, layer, weights):
        losses = []
        for n in range(1, len(clicks)):
            scores = table @ (weights[0] @ torch.cat(read(clicks[:n], p, layer)) + weights[1])
            losses.append(torch.logsumexp(scores, 0) - scores[clicks[n]])
        return torch.stack(losses).mean()

    ends = []
    for p, path in enumerate(paths):
        layer, shared = [path.weight, path.bias], [head.project.weight, head.project.bias]
        slopes = torch.autograd.grad(loss(p, layer, shared), layer)
        layer = [w - 0.7 * steps * slope for w, slope in zip(layer, slopes, strict=True)]
        context = read(clicks, p, layer)[1]
        opened = [torch.sigmoid(gates[f"head/project/{name}"](context)) for name in ("weight", "bias")]
        weights = [w * o.reshape(w.shape) for w, o in zip(shared, opened, strict=True)]
        slopes = torch.autograd.grad(loss(p, layer, weights), weights)
        weights = [w - 0.4 * steps * slope for w, slope in zip(weights, slopes, strict=True)]
        ends.append((float(loss(p, layer, weights).detach()) if steps else 0.0, layer, weights))
    share = torch.softmax(-torch.tensor([end[0] for end in ends]), 0)
    weight, bias = (sum(a * end[2][k] for a, end in zip(share, ends, strict=True)) for k in (0, 1))
    contexts = [read(clicks, p, end[1])[1] for p, end in enumerate(ends)]
    mixed = sum(a * context for a, context in zip(share, contexts, strict=True))
    return (table @ (weight @ torch.cat([read(clicks, 0, ends[0][1])[0], mixed]) + bias)).detach(), share


@pytest.mark.usefixtures("float64")
def test_it_is_the_formulas_session_by_session():
    system, sessions = made(), [np.array(clicks) for clicks in ([1, 2, 1, 5], [4, 4], [7, 8, 9])]
    found, around = system.scores(sessions_without_target(sessions)), by_hand(LOG, 20, 1)
    for row, clicks in zip(found, sessions, strict=True):
        wanted, share = session_by_hand(system, clicks, around)
        assert share.max() - share.min() > 1e-4, "the paths should differ here"
        torch.testing.assert_close(row, wanted, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.filterwarnings("ignore:.* does not read")
def test_without_steps_it_is_the_start_for_any_support(stacked):
    system, sessions = made(steps=0), [np.array(clicks) for clicks in ([1, 2, 1, 5], [4, 4], [7, 8, 9])]
    system.adaptation.stacked = stacked
    found, around = system.scores(sessions_without_target(sessions)), by_hand(LOG, 20, 1)
    for row, clicks in zip(found, sessions, strict=True):
        wanted, share = session_by_hand(system, clicks, around, steps=False)
        torch.testing.assert_close(share, torch.full_like(share, 0.25))
        torch.testing.assert_close(row, wanted, rtol=0, atol=1e-9)


def test_one_click_alone_is_answered_as_among_others():
    system, sessions = made(), [np.array(clicks) for clicks in ([5], [1, 2, 1], [4, 4])]
    alone, among = (
        system.scores(sessions_without_target(sessions[:1])),
        system.scores(sessions_without_target(sessions)),
    )
    torch.testing.assert_close(alone[0], among[0])


def test_paths_follow_the_attributes_there_are():
    assert len(made().recommender.head.readout.paths) == 4  # items, sessions, category, brand
    bare = EntityTable(LOG.items.ids, {})
    assert len(build("meta_hin", bare, width=WIDTH).recommender.head.readout.paths) == 2


def test_what_it_changes():
    names = made().adaptation
    assert names.names == ["head.project.weight", "head.project.bias"]
    assert names.own[1] == ["head.readout.paths.1.weight", "head.readout.paths.1.bias"]


def test_neighbours_are_saved(tmp_path):
    system, samples = made(), last_clicks(LOG).take(slice(0, 5))
    system.save(tmp_path)
    again = load(tmp_path).eval()
    assert torch.equal(again.recommender.context.neighbour, system.recommender.context.neighbour)
    assert torch.equal(again.scores(samples), system.scores(samples))


@pytest.mark.parametrize(
    ("base", "options"),
    [("bpr_mf", {}), ("caser", {}), ("asars_time_att", {}), ("asars_user_cat", {"temporal": True})],
)
def test_bases_whose_scored_vectors_are_not_the_read_ones(base, options):
    log = fake_log(sessions=20)
    system = build("meta_hin", log.items, users=log.users, base=base, width=WIDTH, options=options).eval()
    system.fit_statistics(log)
    assert system.scores(last_clicks(log)).isfinite().all()


def test_a_head_that_reads_states_beside_its_readout_is_refused():
    with pytest.raises(InputError, match="^TargetAttention reads the states of the clicks beside .* choose another"):
        build("meta_hin", LOG.items, base="tagnn", width=WIDTH)


@torch.no_grad()
def test_it_begins_nearly_as_its_base():
    system, base = made(), build("if_san", LOG.items, width=WIDTH)
    system.load_matching(base)
    system.adaptation.step.lr = system.adaptation.semantic.step.lr = 0.0
    for gate in system.adaptation.start.gates.values():
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, 100.0)
    samples = last_clicks(LOG)
    torch.testing.assert_close(system.scores(samples), base.scores(samples))
