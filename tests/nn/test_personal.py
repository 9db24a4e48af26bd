"""The personal re-ranker: its features against plain loops, its candidates, and what it must not read."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.nn.losses.proposed import ProposedSoftmaxLoss
from graphmeta.nn.score_terms import past_neighbours, personal, session_features, short_histories
from graphmeta.nn.score_terms import personal_features as features
from graphmeta.nn.score_terms.personal import PersonalReranker
from graphmeta.nn.score_terms.personal_statistics import lift_of_values, repurchases
from graphmeta.sampling.baskets import leave_one_out, next_items
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.user_histories import UserHistories

ITEMS = 30
DAY = 86400.0


def log_of(baskets=True, seed=0, sessions=60):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 6, sessions)
    session = np.repeat(np.arange(sessions), lengths)
    time = np.sort(random.uniform(0, 100, sessions))[session] * DAY
    time = time if baskets else time + np.concatenate([np.arange(n) for n in lengths])
    table = pd.DataFrame({"s": session, "i": random.integers(0, ITEMS, len(session)), "t": time})
    table["u"] = random.integers(0, 5, sessions)[session]
    shop = pd.DataFrame({"i": np.arange(ITEMS), "kind": [f"k{n % 4}" for n in range(ITEMS)]})
    shop.loc[3, "kind"] = None
    items = EntityTable.read(shop, key="i")
    return EventLog.read(table.drop_duplicates(["s", "i"]), session="s", item="i", time="t", user="u", items=items)


LOG = log_of()
ITEMS_OF_LOG = LOG.num_items


def attached(log, samples):
    return UserHistories.of(log).attached(samples, log)


def past_of(log, samples, row):
    """The user's earlier sessions of one sample: (age, days, items)."""
    start, user = log.starts[samples.session[row]], log.session_user[samples.session[row]]
    own = [s for s in range(log.num_sessions) if log.session_user[s] == user and log.time[log.ptr[s + 1] - 1] < start]
    return [
        (len(own) - n, (start - log.starts[s]) / DAY, log.item[log.ptr[s] : log.ptr[s + 1]].tolist())
        for n, s in enumerate(own)
    ]


def computed(log, samples):
    """Every pair of a sample and an item, and the events of the histories."""
    batch = session_batch(samples, num_items=log.num_items)
    size = len(samples) * log.num_items
    sample, item = torch.arange(size) // log.num_items, torch.arange(size) % log.num_items
    past = batch["history"]
    where = past.batch * log.num_items + past.n_id
    for store in ("days",):
        past[store] = past[store].double()
    return batch, features.PastEvents.of(batch, where, size), sample, item


def test_item_features_are_those_of_a_loop():
    samples = attached(LOG, last_clicks(LOG))
    _, past, sample, item = computed(LOG, samples)
    interval = torch.linspace(3, 60, LOG.num_items, dtype=torch.float64)
    found = features.item_columns(past, sample, interval[item]).reshape(len(samples), LOG.num_items, -1)
    for s in range(len(samples)):
        sessions = past_of(LOG, samples, s)
        for i in range(LOG.num_items):
            own = [(age, days) for age, days, items in sessions for one in items if one == i]
            bought = bool(own)
            expected = [float(bought), math.log1p(len(own)) / 2]
            for decay in (0.8, 0.9, 0.95, 0.98, 1.0):
                share = sum(decay ** (a - 1) for a, _ in own) / (sum(decay ** (a - 1) for a, *_ in sessions) + 0.5)
                expected.append(math.log1p(share / 0.003) / 4)
                expected += [3 * share] if decay in (0.95, 1.0) else []
            for half in (7, 28, 90):
                share = sum(0.5 ** (d / half) for _, d in own) / (sum(0.5 ** (d / half) for _, d, _ in sessions) + 0.5)
                expected.append(math.log1p(share / 0.003) / 4)
            last = min((a for a, _ in own), default=400)
            nearest, farthest = min((d for _, d in own), default=1000), max((d for _, d in own), default=0)
            expected += [float(last == n) for n in (1, 2, 3)] + [math.log(last) / 3, math.log(nearest + 0.3) / 3]
            gap = farthest - nearest if bought else 0
            usual = max((gap + 2 * float(interval[i])) / (max(len(own) - 1, 0) + 2), 0.1)
            expected += [math.log(usual) / 4 * bought, math.log((nearest + 0.5) / usual) * bought]
            expected += [math.log(farthest + 0.3) / 4 * bought]
            expected += [math.log1p(len(own) / (farthest + 14) / 0.002) / 4 * bought]
            np.testing.assert_allclose(found[s, i].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert found.shape[2] == features.PER_ITEM


def test_attribute_features_are_those_of_a_loop():
    samples = attached(LOG, last_clicks(LOG))
    _, past, sample, item = computed(LOG, samples)
    kind = LOG.items.attributes["kind"]
    codes, values = kind.codes, kind.size
    share = torch.rand(values, dtype=torch.float64)
    found = features.attribute_columns(past, sample, item, torch.from_numpy(codes).long(), values, share)
    found = found.reshape(len(samples), LOG.num_items, -1)
    for s in range(len(samples)):
        events = [(a, d, i) for a, d, items in past_of(LOG, samples, s) for i in items]
        total = sum(0.98 ** (a - 1) for a, *_ in events) + 3
        for i in range(LOG.num_items):
            if codes[i] == 0:
                assert not found[s, i].any()
                continue
            same = [(a, d, j) for a, d, j in events if codes[j] == codes[i]]
            mine = sum(0.98 ** (a - 1) for a, *_ in same)
            own = sum(0.98 ** (a - 1) for a, _, j in same if j == i)
            last = min((d for _, d, _ in same), default=1000.0)
            first = max((d for _, d, _ in same), default=0.0)
            usual = max((max(first - last, 0) + 20) / (len(same) + 1), 0.2)
            expected = [
                math.log1p((mine + 3 * float(share[codes[i]])) / total / 0.001) / 4,
                own / (mine + 1),
                math.log(last + 0.3) / 3,
                math.log((last + 0.5) / usual) * bool(same),
                mine / total,
            ]
            np.testing.assert_allclose(found[s, i].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_features_of_shared_sessions_and_of_samples_are_those_of_a_loop():
    samples = attached(LOG, last_clicks(LOG))
    batch, past, sample, _ = computed(LOG, samples)
    together = features.together_columns(past, batch, sample, LOG.num_items).reshape(len(samples), LOG.num_items, -1)
    own = features.sample_columns(past, batch)
    for s in range(len(samples)):
        present = set(samples.item[samples.begin[s] : samples.end[s]].tolist())
        sessions = past_of(LOG, samples, s)
        weight = [0.98 ** (a - 1) for a, *_ in sessions]
        overlap = [sum(i in present for i in items) / math.sqrt(len(items)) for *_, items in sessions]
        common = [w * o for w, o in zip(weight, overlap, strict=True)]
        near = [w * math.exp(min(2 * o, 10)) for w, o in zip(weight, overlap, strict=True)]
        for i in range(LOG.num_items):
            has = [i in items for *_, items in sessions]
            mine, close = (sum(v for v, h in zip(each, has, strict=True) if h) for each in (common, near))
            expected = [
                math.log1p(mine / (sum(weight) + 0.5) / 0.01) / 4,
                mine / (sum(common) + 1),
                math.log1p(close / (sum(near) + 0.5) / 0.003) / 4,
            ]
            np.testing.assert_allclose(together[s, i].numpy(), expected, rtol=1e-5, atol=1e-6)
        events = [i for *_, items in sessions for i in items]
        mean, length = max(len(events), 1) / max(len(sessions), 1), len(samples.item[samples.begin[s] : samples.end[s]])
        gap = sessions[-1][1] if sessions else 30.0
        expected = [
            math.log1p(len(sessions)) / 4,
            len(set(events)) / max(len(events), 1),
            math.log(mean),
            math.log(gap + 0.1) / 3,
            math.log(length + 1) / 2,
            math.log((length + 1) / mean),
        ]
        np.testing.assert_allclose(own[s].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_intervals_between_purchases_are_those_of_a_loop():
    found = repurchases(LOG)
    gaps, again, buyers = {}, {}, {}
    last = {}
    for s in np.argsort(LOG.starts, kind="stable"):
        user = LOG.session_user[s]
        for i in LOG.item[LOG.ptr[s] : LOG.ptr[s + 1]]:
            buyers.setdefault(i, set()).add(user)
            if (user, i) in last:
                gaps.setdefault(i, []).append(math.log((LOG.starts[s] - last[user, i]) / DAY + 0.5))
                again.setdefault(i, set()).add(user)
            last[user, i] = LOG.starts[s]
    every = [gap for own in gaps.values() for gap in own]
    usual = sum(every) / len(every)
    for i in range(LOG.num_items):
        own, count = gaps.get(i, []), len(buyers.get(i, ()))
        expected = [
            math.exp((sum(own) + 5 * usual) / (len(own) + 5)),
            (sum(own) + 5 * usual) / (len(own) + 5) / 4,
            (len(again.get(i, ())) + 1) / (count + 3),
            math.log1p(count) / 6,
        ]
        np.testing.assert_allclose(found[i], expected, rtol=1e-9)


def test_baskets_are_learned_by_leaving_any_item_out():
    samples = leave_one_out(LOG, per_session=3)
    assert next_items(LOG).target.tolist() == leave_one_out(LOG).target.tolist()
    for s in range(len(samples)):
        session = samples.session[s]
        whole = LOG.item[LOG.ptr[session] : LOG.ptr[session + 1]].tolist()
        context = samples.item[samples.begin[s] : samples.end[s]].tolist()
        assert sorted([*context, samples.target[s]]) == sorted(whole) and samples.target[s] not in context
    count = np.bincount(samples.session, minlength=LOG.num_sessions)
    assert count.tolist() == [min(n, 3) if n >= 2 else 0 for n in LOG.lengths]
    ordered = log_of(baskets=False)
    assert len(next_items(ordered)) == len(prefixes(ordered))


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    made = gm.build("personal_reranker", LOG.items, width=8)
    made.fit_statistics(LOG)
    for weight in made.recommender.head.score_terms["personal"].parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return made.eval()


def test_lifts_of_values_are_those_of_a_loop():
    kind = LOG.items.attributes["kind"]
    found = lift_of_values(LOG, kind.codes, kind.size)
    sessions = [LOG.item[LOG.ptr[s] : LOG.ptr[s + 1]] for s in range(LOG.num_sessions)]
    values = [[kind.codes[i] for i in set(items.tolist())] for items in sessions]
    for a in range(1, kind.size):
        for b in range(1, kind.size):
            both = sum(own.count(a) > 1 if a == b else (a in own and b in own) for own in values)
            alone = sum(a in own for own in values) * sum(b in own for own in values) / LOG.num_sessions
            assert found[a, b] == pytest.approx(math.log((both + 5) / (alone + 5)))
    assert not found[0].any() and not found[:, 0].any()


def test_features_of_sessions_like_the_present_one_are_those_of_a_loop():
    samples = attached(LOG, last_clicks(LOG))
    batch, past, sample, _ = computed(LOG, samples)
    kind = LOG.items.attributes["kind"]
    codes = torch.from_numpy(kind.codes).long()
    found = features.alike_columns(past, batch, sample, codes, kind.size).reshape(len(samples), LOG.num_items, 2)
    for s in range(len(samples)):
        present = samples.item[samples.begin[s] : samples.end[s]]
        own = {int(kind.codes[i]) for i in present} - {0}
        sessions, first, second = past_of(LOG, samples, s), [], []
        for age, days, items in sessions:
            weight = 0.98 ** (age - 1)
            common = sum(int(kind.codes[i]) in own for i in items)
            first.append(weight * math.exp(min(4 * common / math.sqrt(len(items) * max(len(own), 1)), 20)))
            hours = (24 * days) % 24
            size = abs(math.log(len(items) / (len(present) + 1)))
            same_day = round(days) % 7 == 0
            second.append(weight * math.exp(-1.5 * size - min(hours, 24 - hours) / 4) * (1 + same_day))
        for i in range(LOG.num_items):
            has = [i in items for *_, items in sessions]
            shares = [
                sum(w for w, h in zip(each, has, strict=True) if h) / (sum(each) + floor)
                for each, floor in ((first, 0.5), (second, 0.1))
            ]
            expected = [math.log1p(share / 0.003) / 4 for share in shares]
            np.testing.assert_allclose(found[s, i].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_features_of_the_session_are_those_of_a_loop(system):
    term = system.recommender.head.score_terms["personal"]
    samples = last_clicks(LOG)
    batch = session_batch(samples, num_items=ITEMS_OF_LOG)
    key = torch.arange(len(samples) * ITEMS_OF_LOG)
    sample, item = key // ITEMS_OF_LOG, key % ITEMS_OF_LOG
    near = term._neighbours(batch, key, ITEMS_OF_LOG)
    length = torch.tensor([len(set(samples.item[b:e])) for b, e in zip(samples.begin, samples.end, strict=True)])
    context = session_features.context_columns(near, sample, length.float(), term.sessions)
    kind = LOG.items.attributes["kind"]
    codes, lift = torch.from_numpy(kind.codes).long(), torch.from_numpy(lift_of_values(LOG, kind.codes, kind.size))
    shared = session_features.shared_columns(batch, sample, item, codes, kind.size, lift.float())
    sets = [set(LOG.item[LOG.ptr[s] : LOG.ptr[s + 1]].tolist()) for s in range(LOG.num_sessions)]
    count = np.array([sum(i in own for own in sets) for i in range(ITEMS_OF_LOG)])
    context, shared = context.view(len(samples), ITEMS_OF_LOG, -1), shared.view(len(samples), ITEMS_OF_LOG, -1)
    for s in range(0, len(samples), 5):
        clicks = samples.item[samples.begin[s] : samples.end[s]].tolist()
        distinct = sorted(set(clicks))
        for i in range(ITEMS_OF_LOG):
            lifts, cosines, shares, recent, last = [], [], [], [], [0.0, 0.0]
            for j in distinct:
                both = sum(i in own and j in own for own in sets)
                if j == i or not both:
                    continue
                ago = min(len(clicks) - 1 - max(n for n, one in enumerate(clicks) if one == j), 7)
                cosine = both / math.sqrt(count[i] * count[j])
                lifts.append(math.log((both + 1) / (count[i] * count[j] / len(sets) + 1)))
                cosines.append(cosine)
                shares.append(both / (count[j] + 10))
                recent.append(cosine / (ago + 1))
                last = [cosine, both / (count[j] + 10)] if ago == 0 else last
            expected = [
                sum(lifts) / len(distinct),
                sum(lifts) / 4,
                max([*lifts, 0]),
                math.log1p(sum(shares) / len(distinct) / 0.002) / 4,
                math.log1p(sum(cosines) / 0.01) / 4,
                5 * max([*cosines, 0]),
                math.log1p(sum(recent) / 0.01) / 4,
                5 * last[0],
                math.log1p(last[1] / 0.002) / 4,
                len(lifts) / len(distinct),
            ]
            np.testing.assert_allclose(context[s, i].numpy(), expected, rtol=1e-4, atol=1e-4)
            value = int(kind.codes[i])
            among = [int(kind.codes[j]) for j in distinct]
            every = sum(float(lift[a, value]) for a in among)
            expected = [2 * among.count(value) / len(among), value in among, 2 * every / len(among), every / 2]
            np.testing.assert_allclose(shared[s, i].numpy(), np.array(expected) * (value > 0), rtol=1e-4, atol=1e-4)


def test_candidates_of_large_catalogues_are_near_own_and_popular_items(system, monkeypatch):
    """Scores of candidates are the same, whichever others there are."""
    monkeypatch.setattr(personal, "EVERY_ITEM", 5)
    term = system.recommender.head.score_terms["personal"]
    assert isinstance(term, PersonalReranker) and system.reads_history
    samples = attached(LOG, last_clicks(LOG)).take(np.arange(8))
    batch = session_batch(samples, num_items=ITEMS_OF_LOG)

    def product(row, column):
        return torch.sin(row + column.float())

    row, column, value = term(batch, product)
    pairs = set(zip(row.tolist(), column.tolist(), strict=True))
    assert len(pairs) == len(row) == len(value)
    past = batch["history"]
    assert set(zip(past.batch.tolist(), past.n_id.tolist(), strict=True)) <= pairs
    assert {(s, int(i)) for s in range(8) for i in term.popular} <= pairs
    every = torch.arange(8 * ITEMS_OF_LOG)
    whole = term.values_of(batch, every, product)
    torch.testing.assert_close(value, whole[row * ITEMS_OF_LOG + column], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("every", [4096, 5])
@pytest.mark.first(1)
def test_proposed_candidates_estimate_the_full_softmax(system, monkeypatch, every):
    """With all items proposed the loss is the full softmax; the sum over sampled ones is right on average. Both hold
    in a large catalogue too, where items that are no candidates have no value."""
    monkeypatch.setattr(personal, "EVERY_ITEM", every)
    monkeypatch.setattr(personal, "LIKELY", 1)
    monkeypatch.setattr(personal, "PAST_ITEMS", 0)
    head = system.recommender.head
    term = head.score_terms["personal"]
    monkeypatch.setattr(term, "training", True)
    monkeypatch.setitem(term._buffers, "popular", term.popular[:2])
    samples = attached(LOG, last_clicks(LOG)).take(np.arange(12))
    batch = session_batch(samples, num_items=ITEMS_OF_LOG)
    states, candidates = system.recommender.encode(batch)
    full = torch.nn.functional.cross_entropy(head(states, batch, candidates), batch["sample"].target, reduction="none")
    monkeypatch.setattr(personal, "RANDOM", 40 * ITEMS_OF_LOG)
    torch.testing.assert_close(ProposedSoftmaxLoss()(head, states, batch, candidates), full, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(personal, "RANDOM", 3)
    torch.manual_seed(0)
    own = head(states, batch, candidates)[torch.arange(12), batch["sample"].target]
    sums = [(ProposedSoftmaxLoss()(head, states, batch, candidates) + own).exp() for _ in range(400)]
    exact = (full + own).exp()
    mean, error = torch.stack(sums).mean(0), torch.stack(sums).std(0) / 20
    assert ((mean - exact).abs() < 5 * error + 1e-3 * exact).all()
    with pytest.raises(gm.InputError, match="proposes some"):
        plain = gm.build("niser", LOG.items, width=8)
        ProposedSoftmaxLoss()(plain.recommender.head, states, batch, candidates)


def test_scores_do_not_depend_on_the_batch_or_on_other_users(system):
    samples = attached(LOG, last_clicks(LOG))
    together = system.scores(samples)
    order = np.random.default_rng(0).permutation(len(samples))
    torch.testing.assert_close(system.scores(samples.take(order)), together[order], rtol=1e-4, atol=1e-5)
    for row in range(0, len(samples), 7):
        torch.testing.assert_close(system.scores(samples.take(np.array([row]))), together[[row]], rtol=1e-4, atol=1e-5)


def test_a_history_changes_the_scores_and_what_is_later_does_not(system):
    samples = attached(LOG, last_clicks(LOG))
    plain = system.scores(replace(samples, earlier=None))
    assert not torch.allclose(plain, system.scores(samples))
    row = len(samples) // 2
    start = LOG.starts[samples.session[row]]
    earlier = LOG.without(LOG.time >= start)  # neither later sessions nor anyone's future
    known = UserHistories.of(earlier).attached(samples, LOG)
    one = np.array([row])
    torch.testing.assert_close(system.scores(known.take(one)), system.scores(samples.take(one)))


def test_an_empty_session_is_ranked_by_the_history(system):
    user = LOG.users.ids[0]
    best = [one.item for one in system.recommend([], 5, user=user)]
    other = system.recommend([], 5, user=LOG.users.ids[1])
    assert len(best) == 5 and [one.score for one in other] != [one.score for one in system.recommend([], 5, user=user)]
    alone = system.recommend_many([[], [3, 4]], 5, users=[user, user])
    assert [one.item for one in alone[0]] == best


def test_it_is_trained_on_the_last_quarter_and_refitted(tmp_path):
    split = gm.split_by_time(log_of(sessions=200), test=0.1, valid=0.1)
    made = gm.fit(split, "personal_reranker", epochs=1, width=8)
    assert "niser (refitted)" in made.notes["history"]
    known = split.train.num_sessions + split.valid.num_sessions
    assert len(made.histories.sessions) == known
    made.save(tmp_path / "kept", keep_histories=True)
    made.save(tmp_path / "plain")
    kept, plain = gm.load(tmp_path / "kept"), gm.load(tmp_path / "plain")
    user = split.train.users.ids[0]
    assert plain.histories is None and kept.recommend([1], 5, user=user) == made.recommend([1], 5, user=user)
    assert kept.recommend([1], 5) == plain.recommend([1], 5, user=user)
    made.save(tmp_path / "kept")
    assert gm.load(tmp_path / "kept").histories is None, "histories of an earlier save are removed"


def test_attributes_that_do_not_separate_items_are_not_read():
    """Twenty values of 3,000 items do not, twenty of 1,000 do; the system says what it ignores."""
    table = pd.DataFrame({"i": np.arange(3000), "fine": np.arange(3000) % 40, "coarse": np.arange(3000) % 19})
    items = EntityTable.read(table, key="i")
    few = items.take(np.arange(1000))
    for shop, read in ((items, {"fine"}), (few, {"fine", "coarse"})):
        term = PersonalReranker(len(shop), list(shop.attributes.values()))
        assert {name for name, one in shop.columns.items() if term.reads_column(name, one)} == read
        assert len(term.values) == len(read)


def test_neighbours_by_shared_users_are_those_of_a_loop():
    similar, similarity = past_neighbours.shared_users(LOG, neighbours=40)
    of_user = [{int(i) for i in LOG.item[LOG.session_user[LOG.session] == u]} for u in range(len(LOG.users))]
    users = [sum(i in own for own in of_user) for i in range(LOG.num_items)]
    for i in range(LOG.num_items):
        found = {int(j): float(v) for j, v in zip(similar[i], similarity[i], strict=True) if v}
        both = {j: sum(i in own and j in own for own in of_user) for j in range(LOG.num_items) if j != i}
        expected = {j: (n / users[i]) ** 0.75 * (n / users[j]) ** 0.25 for j, n in both.items() if n}
        assert found == pytest.approx(expected)
        assert (np.diff(similarity[i]) <= 1e-9).all(), "the nearest first"
    few, values = past_neighbours.shared_users(LOG, neighbours=3)
    np.testing.assert_array_equal(values, similarity[:, :3])
    alone = past_neighbours.shared_users(replace(LOG, users=None, session_user=None), neighbours=3)
    assert not alone[1].any() and few.shape == alone[0].shape


def test_features_of_items_near_earlier_ones_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(past_neighbours, "READ", 4)
    random = torch.Generator().manual_seed(0)
    similar = torch.stack([torch.randperm(LOG.num_items, generator=random)[:6] for _ in range(LOG.num_items)])
    similarity = torch.rand(similar.shape, generator=random, dtype=torch.float64)
    similarity[similarity < 0.3] = 0.0
    samples = attached(LOG, last_clicks(LOG))
    _, past, sample, _ = computed(LOG, samples)
    known = past_neighbours.PastItems(past, LOG.num_items)
    found = past_neighbours.similar_columns(known, torch.arange(len(sample)), similar, similarity)
    found = found.reshape(len(samples), LOG.num_items, -1)
    likely, expected_likely = known.likely(similar, items=2, neighbours=3).tolist(), []
    for s in range(len(samples)):
        weight = {}
        for age, _, items in past_of(LOG, samples, s):
            for i in items:
                weight[i] = weight.get(i, 0) + 0.9 ** (age - 1)
        every = sum(weight.values()) + 0.5
        read = sorted(weight, key=lambda i: (-round(weight[i], 9), i))[:4]
        expected_likely += [s * LOG.num_items + int(i) for j in read[:2] for i in similar[j, :3]]
        for i in range(LOG.num_items):
            near = [(weight[j], float(similarity[j, similar[j] == i].sum())) for j in read]
            share = sum(w * v / every for w, v in near)
            most = max([v * min(w, 1) for w, v in near], default=0)
            expected = [math.log1p(share / 0.002) / 4, math.log1p(share / 0.03) / 2, 5 * most]
            np.testing.assert_allclose(found[s, i].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert likely == expected_likely and found.any(0).any(0).all()


def test_an_empty_session_is_not_scored_by_the_base(system):
    """The base never saw one: its query is the layers' bias, an arbitrary direction, at full length."""
    samples = attached(LOG, last_clicks(LOG)).take(np.arange(6))
    empty = replace(samples, begin=samples.end)
    table = system.recommender.features.features.item.weight
    before, plain = system.scores(empty), system.scores(samples)
    kept = table.detach().clone()
    with torch.no_grad():
        table.copy_(kept.roll(1, 0))
        after, changed = system.scores(empty), system.scores(samples)
        table.copy_(kept)
    torch.testing.assert_close(after, before)
    assert not torch.allclose(changed, plain)


def events_of(batch):
    past = batch["history"]
    return [
        sorted(zip(past.age[own].tolist(), past.n_id[own].tolist(), past.days[own].tolist(), strict=True))
        for own in (past.batch == s for s in range(batch["sample"].num_nodes))
    ]


def test_histories_are_shortened_to_their_last_sessions(monkeypatch):
    """Of every number of sessions, none included, as often as the share says; the batch keeps its own."""
    monkeypatch.setattr(short_histories, "KNOWN", (0, 1, 3))
    torch.manual_seed(0)
    samples = attached(LOG, last_clicks(LOG))
    samples = samples.take(np.tile(np.flatnonzero(samples.earlier.sessions >= 4), 20))
    batch = session_batch(samples, num_items=ITEMS_OF_LOG)
    whole = events_of(batch)
    found = events_of(short_histories.with_short_histories(batch, 0.6))
    assert events_of(batch) == whole and events_of(short_histories.with_short_histories(batch, 0.6)) == found
    counts = dict.fromkeys((0, 1, 3, None), 0)
    for own, full in zip(found, whole, strict=True):
        known = max((age for age, *_ in own), default=0)
        counts[known if known in counts else None] += 1
        assert own == [event for event in full if event[0] <= known]
    share = {known: count / len(samples) for known, count in counts.items()}
    assert share == pytest.approx({0: 0.2, 1: 0.2, 3: 0.2, None: 0.4}, abs=4 * (0.25 / len(samples)) ** 0.5)
    plain = session_batch(replace(samples, earlier=None), num_items=ITEMS_OF_LOG)
    assert short_histories.with_short_histories(plain, 0.6) is plain
    assert short_histories.with_short_histories(batch, 0.0) is batch


@pytest.mark.parametrize("every", [4096, 5])
def test_training_reads_a_shortened_history_as_ranking_reads_one_of_that_length(system, monkeypatch, every):
    """So users of whom little is known, or nothing, are ranked by weights that were trained for them."""
    monkeypatch.setattr(personal, "EVERY_ITEM", every)
    monkeypatch.setattr(personal, "LIKELY", 1)
    head = system.recommender.head
    term = head.score_terms["personal"]
    samples = attached(LOG, last_clicks(LOG))
    batch = session_batch(samples, num_items=ITEMS_OF_LOG)
    states, candidates = system.recommender.encode(batch)
    with monkeypatch.context() as training:
        training.setattr(term, "training", True)
        training.setattr(term, "short", 0.7)
        found = head(states, batch, candidates)
    known = np.minimum(batch["sample"].read_sessions.numpy(), 1000)
    assert (known < samples.earlier.sessions).any() and (known == 1000).any()
    earlier = samples.earlier
    earlier = replace(earlier, since=np.maximum(earlier.since, earlier.until - known))
    same = session_batch(replace(samples, earlier=earlier), num_items=ITEMS_OF_LOG)
    torch.testing.assert_close(found, head(states, same, candidates))
    assert not torch.allclose(found, head(states, batch, candidates)), "ranking reads all of them"


def test_scores_are_those_of_blocks(system, monkeypatch):
    samples = attached(LOG, last_clicks(LOG))
    whole, term = system.scores(samples), system.recommender.head.score_terms["personal"]
    sizes, forward = [], PersonalReranker.forward
    monkeypatch.setattr(personal, "PAIRS", 5 * ITEMS_OF_LOG + 1)
    monkeypatch.setattr(
        PersonalReranker,
        "forward",
        lambda self, batch, product: sizes.append(batch["sample"].num_nodes) or forward(self, batch, product),
    )
    torch.testing.assert_close(system.scores(samples), whole, rtol=1e-4, atol=1e-5)
    assert term.samples_at_once == 5 and set(sizes[:-1]) == {5} and sum(sizes) == len(samples)
