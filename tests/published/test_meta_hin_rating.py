"""MetaHIN on ratings against a loop over paths and people written out; what of the graph it knows, and what not."""

import dataclasses

import numpy as np
import pytest
import torch

from graphmeta.errors import InputError
from graphmeta.nn.encoders.metapath import MetaPaths, PathFeatures
from graphmeta.nn.features.content import ContentFeatures
from graphmeta.published.catalogue import build
from graphmeta.sampling.few_shot import RandomQueries, random_queries
from graphmeta.system import System
from graphmeta.testing import fake_ratings

LOG = fake_ratings()
TASKS = RandomQueries(queries=4, min_events=6)(LOG).take(np.array([0, 3, 5]))
PATH_LR, LR, KNOWN, MOST = 0.5, 0.1, 5, 4


def made(**arguments) -> System:
    torch.manual_seed(0)
    system = build(
        "meta_hin_rating", LOG.items, users=LOG.users, width=3, size=3, hidden=8, known=KNOWN, neighbours=MOST,
        path_lr=PATH_LR, lr=LR, **arguments,
    ).eval()  # fmt: skip
    system.fit_statistics(LOG)
    return system


def counted(most: int) -> list[list[list[int]]]:
    """Neighbours of each path and item, by counting people and values: what tasks ask about is not counted."""
    query = random_queries(LOG, np.ones(LOG.num_events, dtype=bool))[1]
    assert query.sum() == 10 * LOG.num_sessions
    people = [set(LOG.item[(LOG.session == s) & ~query].tolist()) for s in range(LOG.num_sessions)]
    times = [sum(i in one for one in people) for i in range(LOG.num_items)]
    genre, rate = LOG.items.several["genre"], LOG.items.attributes["rate"]
    genres = [set(genre.codes[genre.ptr[i] : genre.ptr[i + 1]].tolist()) for i in range(LOG.num_items)]

    def liked(values: set[int], of) -> set[int]:
        """For each value its most rated items."""
        found = set()
        for value in values:
            holders = [j for j in range(LOG.num_items) if value in of(j)]
            found |= set(sorted(holders, key=lambda j: (-times[j], j))[:most])
        return {j for j in found if times[j] > 0}

    paths = [[[i] for i in range(LOG.num_items)], [], [], []]
    for i in range(LOG.num_items):
        shared = {j: sum({i, j} <= one for one in people) for j in range(LOG.num_items)}
        paths[1].append(sorted((j for j in shared if shared[j]), key=lambda j: (-shared[j], j))[:most] or [i])
        alike = liked({int(rate.codes[i])}, lambda j: {int(rate.codes[j])})
        paths[2].append(sorted(alike, key=lambda j: (-times[j], j))[:most] or [i])
        alike = liked(genres[i], genres.__getitem__)
        paths[3].append(sorted(alike, key=lambda j: (-times[j], j))[:most] or [i])
    return paths


def test_neighbours_are_those_counted_by_hand() -> None:
    around = made().recommender.features.context
    for path, wanted in enumerate(counted(MOST)[1:]):
        for item, near in enumerate(wanted):
            assert around.neighbour[path, item, : int(around.number[path, item])].tolist() == near


def test_query_ratings_of_training_are_no_edges_of_the_graph() -> None:
    """Other items in the places that are asked about: the neighbours stay as they are."""
    query = random_queries(LOG, np.ones(LOG.num_events, dtype=bool))[1]
    other = dataclasses.replace(LOG, item=np.where(query, (LOG.item + 11) % LOG.num_items, LOG.item))
    found = []
    for log in (LOG, other):
        system = made()
        system.fit_statistics(log)
        found.append(system.recommender.features.context)
    assert torch.equal(found[0].neighbour, found[1].neighbour) and torch.equal(found[0].number, found[1].number)
    known = dataclasses.replace(LOG, item=np.where(query, LOG.item, (LOG.item + 11) % LOG.num_items))
    system = made()
    system.fit_statistics(known)
    assert not torch.equal(found[0].neighbour, system.recommender.features.context.neighbour)


@pytest.mark.usefixtures("float64")
def test_features_are_means_over_neighbours() -> None:
    contents, around = ContentFeatures(LOG.items, 2), MetaPaths(LOG.num_items, ["genre"], most=4)
    around.fit_statistics(LOG)
    rows = torch.tensor([4, 4, 29, 0])
    found, every = PathFeatures(contents, around)(rows)
    torch.testing.assert_close(found, around(rows, contents.content))
    torch.testing.assert_close(every, contents.content(torch.arange(LOG.num_items)))


def person_by_hand(system: System, t: int, around: list[list[list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ratings and path weights of one person: each path by itself, in plain tensors."""
    head, gates = system.recommender.head, system.adaptation.start.gates
    contents = system.recommender.features.contents.content(torch.arange(LOG.num_items))
    names = [name for name, _ in head.layers.named_parameters()]

    def context(known: np.ndarray, p: int, layer: list[torch.Tensor]) -> torch.Tensor:
        means = [contents[around[p][i]].mean(0) for i in known]
        mean = sum(means) / len(means) if means else torch.zeros_like(contents[0])
        return torch.nn.functional.leaky_relu(layer[0] @ mean + layer[1])

    def ratings(part, ptr, contexts, weights: list[torch.Tensor]) -> torch.Tensor:
        out, (a, b, c, d, e, f) = [], weights
        for row in range(ptr[t], ptr[t + 1]):
            who = head.readout.readout.content(torch.from_numpy(part.user[row : row + 1]))[0]
            known = part.item[part.begin[row] : part.end[row]][-KNOWN:]
            assert part.target[row] not in known
            x = torch.cat([who, contexts(known), contents[part.target[row]]])
            out.append(head.mean + e @ torch.relu(c @ torch.relu(a @ x + b) + d) + f)
        return torch.cat(out)

    def loss(p: int, layer: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
        found = ratings(TASKS.support, TASKS.support_ptr, lambda known: context(known, p, layer), weights)
        own = slice(TASKS.support_ptr[t], TASKS.support_ptr[t + 1])
        return ((found - torch.from_numpy(TASKS.support.value[own])) ** 2).mean()

    everything = TASKS.support.target[TASKS.support_ptr[t] : TASKS.support_ptr[t + 1]][-KNOWN:]
    ends = []
    for p, path in enumerate(head.readout.paths):
        layer, shared = [path.weight, path.bias], [weight for _, weight in head.layers.named_parameters()]
        slopes = torch.autograd.grad(loss(p, layer, shared), layer)
        layer = [w - PATH_LR * slope for w, slope in zip(layer, slopes, strict=True)]
        opened = [
            torch.sigmoid(gates[f"head/layers/{n.replace('.', '/')}"](context(everything, p, layer))) for n in names
        ]
        weights = [w * o.reshape(w.shape) for w, o in zip(shared, opened, strict=True)]
        slopes = torch.autograd.grad(loss(p, layer, weights), weights)
        weights = [w - LR * slope for w, slope in zip(weights, slopes, strict=True)]
        ends.append((loss(p, layer, weights).detach(), layer, weights))
    share = torch.softmax(-torch.stack([end[0] for end in ends]), 0)
    fused = [sum(a * end[2][k] for a, end in zip(share, ends, strict=True)) for k in range(len(names))]

    def mixed(known: np.ndarray) -> torch.Tensor:
        return sum(a * context(known, p, end[1]) for p, (a, end) in enumerate(zip(share, ends, strict=True)))

    return ratings(TASKS.query, TASKS.query_ptr, mixed, fused).detach(), share


@pytest.mark.usefixtures("float64")
def test_it_is_the_formulas_user_by_user() -> None:
    system, around = made(), counted(MOST)
    found = system.scores(TASKS).squeeze(1)
    weights = system.adaptation.adapted(system.recommender, system._tasks(TASKS.latest(KNOWN)), system.loss)
    for t in range(len(TASKS)):
        wanted, share = person_by_hand(system, t, around)
        assert share.max() - share.min() > 1e-4, "the paths should differ here"
        torch.testing.assert_close(weights["head.readout.mix"][t].detach(), share, rtol=0, atol=1e-9)
        own = slice(TASKS.query_ptr[t], TASKS.query_ptr[t + 1])
        torch.testing.assert_close(found[own], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_path_weights_do_not_depend_on_the_query_rating(order: int) -> None:
    system, random = made(order=order), np.random.default_rng(0)

    def weights(**parts) -> dict[str, torch.Tensor]:
        tasks = dataclasses.replace(TASKS, **parts)
        return system.adaptation.adapted(system.recommender, system._tasks(tasks), system.loss)

    def rated(part):
        return dataclasses.replace(part, value=random.random(len(part)))

    query = dataclasses.replace(rated(TASKS.query), target=random.permutation(TASKS.query.target))
    straight, leaked, known = weights(), weights(query=query), weights(support=rated(TASKS.support))
    assert "head.readout.mix" in straight
    assert all(torch.equal(weight, leaked[name]) for name, weight in straight.items())
    assert not torch.allclose(straight["head.readout.mix"], known["head.readout.mix"], atol=1e-4)


def test_a_context_is_of_known_items_and_not_of_query_items() -> None:
    system = made()
    recommender, tasks = system.recommender, system._tasks(TASKS)
    contexts = []
    for target in (TASKS.query.target, (TASKS.query.target + 1) % LOG.num_items):
        moved = dataclasses.replace(TASKS, query=dataclasses.replace(TASKS.query, target=target))
        contexts.append(recommender.summary(system._tasks(moved).query))
    assert torch.equal(*contexts)
    fewer = dataclasses.replace(TASKS, query=TASKS.query.latest(1))
    assert not torch.allclose(recommender.summary(system._tasks(fewer).query), recommender.summary(tasks.query))


def test_paths_are_those_named() -> None:
    assert len(made().recommender.head.readout.paths) == 4  # items, other people's, rate, genre
    one = made(paths=["genre"])
    assert len(one.recommender.head.readout.paths) == 3
    torch.testing.assert_close(
        one.recommender.features.context.neighbour[1], made().recommender.features.context.neighbour[2]
    )
    assert made(paths=[]).recommender.features.context.neighbour.shape == (1, LOG.num_items, MOST)
    with pytest.raises(InputError, match="no attribute 'director' to make a path of; there are: rate, genre"):
        made(paths=["director"])


def test_what_it_changes() -> None:
    system = made()
    adaptation, recommender = system.adaptation, system.recommender
    assert adaptation.names == [f"head.layers.{n}.{kind}" for n in (0, 2, 4) for kind in ("weight", "bias")]
    moved = (adaptation.names, adaptation.own[0])
    decision, own = (sum(recommender.get_parameter(n).numel() for n in names) for names in moved)
    assert adaptation.memory(7, 20) == 4 * 7 * 4 * 2 * (decision + 4 * own)  # four paths, each with weights and slopes
    assert adaptation.own[3] == ["head.readout.paths.3.weight", "head.readout.paths.3.bias"]
