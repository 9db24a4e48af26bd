"""The graph around a session: against loops written from the definition, without anything of the future."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.ended import EndedSessions, Transitions
from graphmeta.sampling.samples import last_clicks, prefixes, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.sampling.task_layout import split_tasks
from graphmeta.sampling.tasks import task_batch

CONTAINS, OWNS, FOLLOWS = ("session", "contains", "item"), ("user", "owns", "session"), ("item", "follows", "item")
ALL = {"history": 2, "follows": 2, "attributes": True}


def busy_log(seed: int = 0, sessions: int = 60, items: int = 12, users: int = 5) -> EventLog:
    """Sessions that overlap in time, of few users, with equal times, an unknown user, and several values per item."""
    random = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), random.integers(1, 6, sessions))
    start = random.integers(0, 300, sessions)
    time = start[session] + random.integers(0, 30, len(session))
    frame = {"s": session, "i": random.integers(0, items, len(session)), "t": time.astype(float), "u": session % users}
    genre = ["|".join(f"g{k}" for k in random.permutation(4)[: n % 4]) for n in range(items)]
    table = pd.DataFrame(
        {"i": np.arange(items), "genre": genre, "brand": [f"b{n}" if (n := i % 3) else None for i in range(items)]}
    )
    people = pd.DataFrame({"u": np.arange(users), "city": [f"c{u % 2}" for u in range(users)]})
    log = EventLog.read(
        pd.DataFrame(frame).drop_duplicates(), session="s", item="i", time="t", user="u",
        items=EntityTable.read(table, key="i", several={"genre": "|"}), users=EntityTable.read(people, key="u"),
    )  # fmt: skip
    assert log.session_user is not None
    log.session_user[::11] = -1
    return log


LOG = busy_log()
assert LOG.session_user is not None and LOG.users is not None
USER: np.ndarray = LOG.session_user
USERS: EntityTable = LOG.users


def valid(batch) -> bool:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The node types {'sample'} are isolated")
        return batch.validate()


def clicks_of(log: EventLog, session: int) -> list[int]:
    return log.item[log.ptr[session] : log.ptr[session + 1]].tolist()


def ended_before(log: EventLog, session: int) -> list[int]:
    """Sessions that ended strictly before this one began, the earliest end first."""
    begin = log.time[log.ptr[session]]
    ends = [(log.time[log.ptr[s + 1] - 1], s) for s in range(log.num_sessions) if log.lengths[s]]
    return [s for end, s in sorted(ends) if end < begin]


def earlier_of(log: EventLog, user: int, begin: float) -> list[int]:
    """The user's sessions, the first to begin first, up to the first one that had not ended."""
    assert log.session_user is not None
    mine = [s for s in range(log.num_sessions) if log.lengths[s] and user >= 0 and log.session_user[s] == user]
    ended = [bool(log.time[log.ptr[s + 1] - 1] < begin) for s in mine]  # sessions are sorted by their begin
    return mine[: [*ended, False].index(False)]


def expected(log: EventLog, session: int, context: list[int], *, history: int, follows: int) -> dict:
    """The neighbourhood of a question by loops, in item numbers and values instead of rows."""
    assert log.session_user is not None and log.users is not None
    user, known = int(log.session_user[session]), ended_before(log, session)
    begin = float(log.time[log.ptr[session]])
    own = earlier_of(log, user, begin)[-history:] if history else []
    steps = Counter()
    for s in known:
        clicks = clicks_of(log, s)
        steps.update(zip(clicks, clicks[1:], strict=False))
    best = []
    for item in sorted(set(context)):
        after = sorted(((-count, b) for (a, b), count in steps.items() if a == item))[:follows]
        best += [(item, b, -count) for count, b in after]
    items = set(context) | {i for s in own for i in clicks_of(log, s)} | {b for _, b, _ in best}
    genre, brand, city = log.items.several["genre"], log.items.attributes["brand"], log.users.attributes["city"]
    return {
        "items": sorted(items),
        "session": [(s, number, float(begin - log.time[log.ptr[s + 1] - 1])) for number, s in enumerate(own)],
        "user": user,
        "contains": sorted((s, i, place) for s in own for place, i in enumerate(clicks_of(log, s))),
        "follows": sorted(best),
        "genre": sorted((i, int(c)) for i in items for c in genre.codes[genre.ptr[i] : genre.ptr[i + 1]] if c),
        "brand": sorted((i, int(brand.codes[i])) for i in items if brand.codes[i]),
        "city": [(user, int(city.codes[user]))] if user >= 0 else [],
    }  # fmt: skip


def found_in(batch, sample: int) -> dict:
    """The same read from the rows of a batch."""
    n_id = {kind: batch[kind].n_id.tolist() for kind in ("item", "session", "user", "genre", "brand", "city")}
    whose = {kind: batch[kind].batch.tolist() for kind in n_id}

    def ends(*relation: str) -> list[tuple[int, int, int]]:
        a, b = batch[relation].edge_index.tolist()
        rows = [(x, y, at) for at, (x, y) in enumerate(zip(a, b, strict=True)) if whose[relation[0]][x] == sample]
        assert all(whose[relation[2]][y] == sample for _, y, _ in rows)
        return rows

    session = batch["session"]
    mine = [at for at, of in enumerate(whose["session"]) if of == sample]
    owns, position = ends(*OWNS), batch[CONTAINS].position.tolist()
    weight = batch[FOLLOWS].weight
    assert sorted(y for _, y, _ in owns) == mine and len({x for x, _, _ in owns}) <= 1
    named = {
        kind: [(n_id[a][x], n_id[kind][y]) for x, y, _ in ends(a, "has", kind)]
        for a, kind in (("item", "genre"), ("item", "brand"), ("user", "city"))
    }
    rows = [at for at, of in enumerate(whose["item"]) if of == sample]
    assert len({n_id["item"][at] for at in rows}) == len(rows)
    return {
        "items": sorted(n_id["item"][at] for at in rows),
        "session": [(n_id["session"][at], int(session.order[at]), float(session.age[at])) for at in mine],
        "user": n_id["user"][whose["user"].index(sample)],
        "contains": sorted((n_id["session"][x], n_id["item"][y], position[at]) for x, y, at in ends(*CONTAINS)),
        "follows": sorted((n_id["item"][x], n_id["item"][y], int(weight[at])) for x, y, at in ends(*FOLLOWS)),
        **{kind: sorted(pairs) for kind, pairs in named.items()},
    }  # fmt: skip


@pytest.mark.covering
@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("follows", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_every_store_and_edge_against_loops(history: int, follows: int, seed: int) -> None:
    log = busy_log(seed)
    samples = prefixes(log)
    batch = SubgraphSampler(log, history=history, follows=follows, attributes=True)(samples)
    assert valid(batch)
    some = 0
    for sample in range(len(samples)):
        context = samples.item[samples.begin[sample] : samples.end[sample]].tolist()
        wanted = expected(log, int(samples.session[sample]), context, history=history, follows=follows)
        assert found_in(batch, sample) == wanted
        some += bool(wanted["contains"]) + bool(wanted["follows"])
    assert some > len(samples)


def same_batch(one, other) -> None:
    assert one.metadata() == other.metadata()
    for a, b in zip(one.stores, other.stores, strict=True):
        assert set(a.keys()) == set(b.keys())
        for name, value in a.items():
            same = torch.equal(value.nan_to_num(), b[name].nan_to_num()) if torch.is_tensor(value) else value == b[name]
            assert same, (a._key, name)


def test_of_another_log_the_same() -> None:
    """Samples of a later log know when their session began; also a sample whose first clicks are cut off."""
    earlier = LOG.before(150)
    later = LOG.after(150).aligned_to(earlier.items, earlier.users)
    samples = prefixes(later, max_length=2)
    batch = SubgraphSampler(earlier, **ALL)(samples)
    both = SubgraphSampler(earlier.graph, **ALL)(samples)
    same_batch(batch, both)
    starts = later.starts[samples.session]
    for sample in range(len(samples)):
        for session, _, age in found_in(batch, sample)["session"]:
            end = earlier.time[earlier.ptr[session + 1] - 1]
            assert end < starts[sample] and age == starts[sample] - end


@pytest.mark.parametrize("sampler", [ALL, {"history": 2}, {"follows": 3}, {"attributes": True}], ids=str)
def test_nothing_of_the_future_is_read(sampler: dict) -> None:
    """Without, or with other, clicks at or after a session's begin - its own rest, its user's and everybody's later
    sessions, the rest of sessions that are under way - the batch is the same bit for bit. That a session of the user is
    under way is known: later ones do not count then."""
    random = np.random.default_rng(3)
    samples = last_clicks(LOG)
    for sample in random.permutation(len(samples))[:25]:
        session = int(samples.session[sample])
        begin = LOG.time[LOG.ptr[session]]
        one = replace(samples.take(slice(sample, sample + 1)), start=np.array([begin]), item=samples.item.copy())
        first, last = LOG.time[LOG.ptr[:-1]], LOG.time[LOG.ptr[1:] - 1]
        late, later = last >= begin, first >= begin  # sessions that had not ended, and those that had not begun
        item = LOG.item.copy()
        item[late[LOG.session]] = random.integers(0, LOG.num_items, late[LOG.session].sum())
        time = LOG.time + np.where(LOG.time >= begin, random.integers(0, 1000, len(LOG.time)), 0.0)
        order = np.lexsort((time, LOG.session))
        user, others = USER.copy(), late & (USER[session] != USER)
        user[later] = random.integers(-1, len(USERS), later.sum())
        wanted = SubgraphSampler(LOG, **sampler)(one)
        for other in (
            LOG.without(later[LOG.session]),
            LOG.without((later | others)[LOG.session]),
            replace(LOG, item=item),
            replace(LOG, time=time[order], item=item[order]),
            replace(LOG, session_user=user),
        ):
            same_batch(SubgraphSampler(other, **sampler)(one), wanted)


def test_the_past_is_read() -> None:
    """The perturbation test would pass for a sampler that reads nothing: an ended session's click does change it."""
    samples = last_clicks(LOG)
    sample = next(
        n for n in range(len(samples) - 1, -1, -1) if found_in(SubgraphSampler(LOG, **ALL)(samples), n)["session"]
    )
    session = int(SubgraphSampler(LOG, **ALL)(samples.take(slice(sample, sample + 1)))["session"].n_id[-1])
    one = replace(samples.take(slice(sample, sample + 1)), item=samples.item.copy())
    before = SubgraphSampler(LOG, **ALL)(one)
    after = SubgraphSampler(LOG.without(LOG.session == session), **ALL)(one)
    assert before["session"].n_id.tolist() != after["session"].n_id.tolist()


@pytest.mark.parametrize("task", [False, True])
def test_the_stores_of_the_clicks_are_unchanged(task: bool) -> None:
    """Rows of clicks first, further items after them; without a neighbourhood the batch is that of session_batch."""
    samples = prefixes(LOG).take(slice(0, 40))
    tasks = {"task": np.arange(40) // 3, "num_tasks": 15} if task else {}
    flat = session_batch(samples, num_items=LOG.num_items, **tasks)
    same_batch(SubgraphSampler(LOG)(samples, **tasks), flat)
    batch = SubgraphSampler(LOG, **ALL)(samples, **tasks)
    assert (torch.isin(torch.arange(batch["item"].num_nodes), batch["event"].item)).sum() >= flat["item"].num_nodes * (
        not task
    )
    real = flat["sample"].get("real", torch.arange(40))
    for name in ("target", "user", "next_time"):
        assert torch.equal(
            batch["sample"][name][batch["sample"].get("real", real)].nan_to_num(),
            flat["sample"][name][real].nan_to_num(),
        )
    for mine, theirs in ((batch, flat), (flat, batch)):
        assert torch.equal(_clicks(mine), _clicks(theirs))
    first = (
        batch["event"]
        .item.new_full((batch["sample"].num_nodes,), 10**9)
        .scatter_reduce(0, batch["item"].batch, torch.arange(batch["item"].num_nodes), "amin")
    )
    count = (
        torch.zeros_like(first).scatter_add(0, flat["item"].batch, torch.ones_like(flat["item"].batch))
        if not task
        else None
    )
    if count is not None:
        assert ((batch["event"].item - first[batch["event"].batch]) < count[batch["event"].batch]).all()


@pytest.mark.parametrize("sessions", [[[3]], [[0]], [[11]], [[]]])
def test_a_single_click_or_none_has_its_further_items(sessions: list[list[int]]) -> None:
    """Further items after and before the only row of clicks."""
    samples = sessions_without_target([np.array(one, dtype=np.int64) for one in sessions])
    batch = SubgraphSampler(LOG, follows=12)(samples)
    clicked = sessions[0]
    counts = Counter(int(b) for s in LOG.sessions.argsort() for a, b in _steps(int(s)) if a in clicked)
    assert sorted(batch["item"].n_id.tolist()) == sorted({*clicked, *counts})
    assert batch["item"].n_id[batch["event"].item].tolist() == clicked


def _steps(session: int) -> list[tuple[int, int]]:
    """The transitions of a session of the log."""
    own = LOG.item[LOG.ptr[session] : LOG.ptr[session + 1]].tolist()
    return list(zip(own, own[1:], strict=False))


def _clicks(batch) -> torch.Tensor:
    real = batch["sample"].get("real", torch.arange(batch["sample"].num_nodes))
    keep = torch.isin(batch["event"].batch, real)
    columns = [batch["item"].n_id[batch["event"].item], batch["event"].order, batch["event"].time]
    return torch.stack([column[keep].double() for column in columns])


def test_each_task_of_a_batch_has_its_own_rows() -> None:
    samples = last_clicks(LOG, min_length=3)
    sampler = SubgraphSampler(LOG, **ALL)
    batch = task_batch(samples, num_items=LOG.num_items, make=sampler)
    assert batch.support is not None
    for whole in (batch.query, batch.support):
        assert valid(whole)
        for kind in ("item", "session", "user", "genre", "brand", "city"):
            rows = whole.rows[kind]
            assert whole[kind].num_nodes == rows * len(samples)
            task = torch.arange(whole[kind].num_nodes) // rows
            assert torch.equal(task, whole[kind].batch // whole.rows["sample"])
        for relation in whole.edge_types[2:]:
            size, (a, b) = whole.rows[relation], whole[relation].edge_index
            task = torch.arange(len(a)) // size
            assert torch.equal(task, a // whole.rows[relation[0]]) and torch.equal(task, b // whole.rows[relation[2]])
    flat = sampler(samples)
    for number, one in enumerate(split_tasks(batch.query)):
        assert valid(one)
        assert found_in(one, int(one["sample"].real[0])) == found_in(flat, number)


def test_support_samples_have_the_history_of_their_session() -> None:
    samples = last_clicks(LOG, min_length=3)
    batch = task_batch(samples, num_items=LOG.num_items, make=SubgraphSampler(LOG, history=2))
    assert batch.support is not None
    for support, query in zip(split_tasks(batch.support), split_tasks(batch.query), strict=True):
        last = query["session"].n_id[query["session"].batch == query["sample"].real[0]]
        for sample in support["sample"].real:
            assert torch.equal(support["session"].n_id[support["session"].batch == sample], last)


def test_followers_below_any_limit_against_counting() -> None:
    """Also with many pairs, where most are never counted."""
    log = busy_log(5, sessions=900, items=25)
    ended, random = EndedSessions(log), np.random.default_rng(0)
    item, time = random.integers(0, 25, 300), random.integers(-1, 400, 300).astype(float)
    rows, target, count = Transitions(log, ended).strongest(item, ended.limit(time), most=3)
    last = log.time[log.ptr[1:] - 1]
    for row in range(300):
        steps = Counter()
        for s in np.flatnonzero(last < time[row]).tolist():
            steps.update(b for a, b in zip(clicks_of(log, s), clicks_of(log, s)[1:], strict=False) if a == item[row])
        wanted = sorted(((-n, b) for b, n in steps.items()))[:3]
        assert [
            (-c, t) for t, c in zip(target[rows == row].tolist(), count[rows == row].tolist(), strict=True)
        ] == wanted


def test_without_times_the_query_is_now() -> None:
    samples = sessions_without_target([np.array([1, 2]), np.zeros(0, np.int64)], users=np.array([3, -1]))
    batch = SubgraphSampler(LOG, history=2, follows=1)(samples)
    last = [s for s in ended_before(LOG.without(LOG.time < 0), LOG.num_sessions - 1) if USER[s] == 3]
    assert set(batch["session"].n_id.tolist()) >= {last[-1]} or len(batch["session"].n_id) == 2
    ends = LOG.time[LOG.ptr[1:] - 1]
    theirs = np.flatnonzero(USER == 3)
    assert sorted(ends[batch["session"].n_id.numpy()]) == sorted(ends[theirs])[-2:]
    assert batch["session"].batch.tolist() == [0, 0] and (batch["session"].age >= 0).all()


def test_misuse_is_refused() -> None:
    without_users = replace(LOG, users=None, session_user=None)
    with pytest.raises(InputError, match="history needs the users of a log"):
        SubgraphSampler(without_users, history=1)
    with pytest.raises(InputError, match="follows"):
        SubgraphSampler(LOG, follows=-1)
    other = replace(last_clicks(LOG), item=LOG.item.copy(), start=None)
    with pytest.raises(InputError, match="of another log than the sampler's and have no times"):
        SubgraphSampler(LOG, history=1)(other)
    with pytest.raises(InputError, match="other item indices"):
        SubgraphSampler(LOG, history=1)(last_clicks(LOG.before(30)))
