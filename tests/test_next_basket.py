"""Next-basket evaluation against plain loops; every next-item system scores sessions without a click."""

import math
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.baselines import PersonalFrequency, Popularity, TifuKNN
from graphmeta.data.events import EventLog
from graphmeta.data.splits import split_by_time
from graphmeta.datasets.session_logs import tafeng
from graphmeta.errors import DivergedError, InputError
from graphmeta.evaluation.next_basket import evaluate_next_basket, last_baskets
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.catalogue import RANKING, build
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.testing import fake_log
from tests.catalogue import LOG, made
from tests.oracles import ties

pytestmark = pytest.mark.filterwarnings("ignore:.* gives all items the same score")

ITEMS = 15


def baskets(seed: int = 0, *, users: int = 25) -> pd.DataFrame:
    """One to five baskets of each user, a day apart, with some items twice in a basket."""
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for basket in range(generator.integers(1, 6)):
            start = 86_400.0 * (basket + generator.uniform(0, 0.5))
            for at, item in enumerate(generator.integers(0, ITEMS, generator.integers(1, 6))):
                rows.append((f"{user}#{basket}", f"i{item}", start + at, f"u{user}"))
    return pd.DataFrame(rows, columns=["session", "item", "time", "user"])


def read(frame: pd.DataFrame) -> EventLog:
    return EventLog.read(frame, session="session", item="item", time="time", user="user")


class Fixed:
    """Scores that depend on the number of earlier sessions; constant within groups of three items."""

    reads_history = True

    def __init__(self, log: EventLog, *, reads: bool = True) -> None:
        self.items, self.num_items, self.reads_history, self.seen = log.items, log.num_items, reads, []

    def row(self, sessions: int) -> list[float]:
        return [float((7 * (n // 3) + sessions) % 5) for n in range(self.num_items)]

    def scores(self, samples: Samples) -> torch.Tensor:
        self.seen.append(samples)
        known = np.zeros(len(samples), int) if samples.earlier is None else samples.earlier.sessions
        return torch.tensor([self.row(int(n)) for n in known])


def precision(row: list[float], truth: list[int], k: int) -> float:
    """Average precision over random order of ties, by the place of each target, given which the others are ahead."""
    total = 0.0
    for target in truth:
        own = ties.places(row, target)
        for place in [r for r in own if r <= k]:
            others = [[q for q in ties.places(row, other) if q != place] for other in truth if other != target]
            total += (1 + sum(np.mean(np.array(at) < place) for at in others)) / place / len(own)
    return total / min(k, len(truth))


def slow(log: EventLog, model: Fixed, ks: tuple[int, ...]) -> tuple[dict[str, float], list[int]]:
    """Means over users of the metrics, by loops, and the number of earlier sessions."""
    frame, values, sessions = log.to_frame(), {}, []
    number = {item: n for n, item in enumerate(model.items.ids)}
    for _, own in frame.groupby("user"):
        starts = own.groupby("session")["time"].min().sort_values()
        last = starts.index[-1]
        before = {number[i] for i in own[own.session != last]["item"]}
        truth = {number[i] for i in own[own.session == last]["item"]}
        sessions.append(len(starts) - 1)
        row = model.row(len(starts) - 1)
        values.setdefault("repeat_share", []).append(len(truth & before) / len(truth))
        for k in ks:
            hits = {i: ties.share_within(row, i, k) for i in truth}
            values.setdefault(f"recall@{k}", []).append(sum(hits.values()) / len(truth))
            values.setdefault(f"phr@{k}", []).append(ties.any_within(row, list(truth), k))
            ideal = sum(1 / math.log2(1 + r) for r in range(1, min(k, len(truth)) + 1))
            gains = [[(r <= k) / math.log2(1 + r) for r in ties.places(row, i)] for i in truth]
            values.setdefault(f"ndcg@{k}", []).append(sum(map(np.mean, gains)) / ideal)
            values.setdefault(f"map@{k}", []).append(precision(row, list(truth), k))
            for name, part in (("repeat", truth & before), ("explore", truth - before)):
                if part:
                    values.setdefault(f"recall_{name}@{k}", []).append(sum(hits[i] for i in part) / len(part))
    return {name: sum(each) / len(each) for name, each in values.items()}, sessions


@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_their_formulas(seed) -> None:
    log = read(baskets(seed))
    expected, sessions = slow(log, Fixed(log), (2, 5))
    result = evaluate_next_basket(Fixed(log), log, ks=(2, 5), batch_size=7)
    assert result.metrics == pytest.approx(expected) and result.samples == 25
    slices = result.slices["known sessions"]
    assert [slices[n]["samples"] for n in ("0", "1", "2", "3-5")] == [
        sum(low <= n <= high for n in sessions) for low, high in ((0, 0), (1, 1), (2, 2), (3, 5))
    ]
    one = pd.DataFrame(baskets(seed)).groupby("user").filter(lambda own: own.session.nunique() == 2)
    if len(one):
        alone, _ = slow(read(one), Fixed(log), (2,))
        assert slices["1"]["recall@2"] == pytest.approx(alone["recall@2"])
    assert str(result).startswith("25 users, the items of the last session ranked among")
    assert len(result.ranks) == result.ptr[-1]


def test_a_query_has_no_click_no_target_and_no_future() -> None:
    log = read(baskets())
    model = Fixed(log)
    evaluate_next_basket(model, log, ks=(3,))
    for samples in model.seen:
        assert (samples.lengths == 0).all() and (samples.target == -1).all()
        assert (samples.earlier.histories.time[samples.earlier.latest(None)[0]].size) == samples.earlier.events.sum()
        columns = samples.earlier.columns()
        assert (columns.days[columns.age >= 1] > 0).all()
    plain = Fixed(log, reads=False)
    evaluate_next_basket(plain, log, ks=(3,))
    assert all(samples.earlier is None for samples in plain.seen)


def test_history_of_another_log_is_the_same_as_one_log() -> None:
    log = read(baskets())
    before, last = last_baskets(log)
    assert last.num_sessions == 25 and before.num_sessions == log.num_sessions - 25
    assert before.items is log.items and last.users is log.users
    for model in (PersonalFrequency(before), TifuKNN(before, neighbours=3), Fixed(log)):
        whole, parts = (
            evaluate_next_basket(model, log, ks=(3,)),
            evaluate_next_basket(model, last, history=before, ks=(3,)),
        )
        assert torch.equal(whole.ranks, parts.ranks) and whole.metrics == parts.metrics
    split = split_by_time(log, test=0.3, valid=0.2)
    assert evaluate_next_basket(Fixed(split.train), split.test, history=split, ks=(3,)).slices["known sessions"]["3-5"][
        "samples"
    ]


def test_another_users_future_and_the_target_do_not_change_a_ranking() -> None:
    frame = baskets()
    log = read(frame)
    before, last = last_baskets(log)
    first = last.users.ids[last.session_user[0]]  # its last session begins before those of all others
    other = frame.copy()
    late = (frame.user != first) & (frame.time > last.starts[0])
    assert late.any()
    other.loc[late, "item"] = "i1"
    changed = read(other).aligned_to(log.items, log.users)
    for model in (PersonalFrequency(before), TifuKNN(before, neighbours=3)):
        found = [evaluate_next_basket(model, one, ks=(3,)) for one in (log, changed)]
        ranks = [one.ranks[: one.ptr[1]] for one in found]
        assert len(ranks[0]) and torch.equal(*ranks)


def test_items_unknown_to_the_model_are_left_out_and_counted() -> None:
    frame = baskets()
    frame.loc[frame.index[-1], "item"] = "new"
    log = read(frame)
    known = log.select(log.items.ids[log.item] != "new")
    result = evaluate_next_basket(Popularity(known), log, ks=(3,))
    assert result.left_out.clicks == 1 and "1 click on unknown items" in str(result)


def test_what_cannot_be_evaluated_is_refused() -> None:
    log, other = read(baskets()), read(baskets().replace(r"^i", "other", regex=True))
    for call, line in (
        (
            lambda: evaluate_next_basket(Popularity(log), log.aligned_to(log.items), ks=(3,)),
            "the log has no users; name its user",
        ),
        (lambda: last_baskets(log.aligned_to(log.items)), "the log has no users; name its user"),
        (
            lambda: evaluate_next_basket(Popularity(log), last_clicks(log), ks=(3,)),
            "takes a log with users, not a Samples",
        ),
        (lambda: evaluate_next_basket(Popularity(log), log, ks=(ITEMS,)), "every model would score 1"),
        (lambda: evaluate_next_basket(Popularity(other), log, ks=(3,)), "no session has an item known to the model"),
        (lambda: evaluate_next_basket(Popularity(log), log, ks=(3,), steps=2), "does not adapt"),
    ):
        with pytest.raises(InputError, match=line):
            call()

    class Broken(Fixed):
        def scores(self, samples: Samples) -> torch.Tensor:
            return super().scores(samples) * torch.nan

    with pytest.raises(DivergedError):
        evaluate_next_basket(Broken(log), log, ks=(3,))


@pytest.mark.by_kind
@pytest.mark.parametrize("name", RANKING)
def test_every_next_item_system_ranks_a_next_basket(name) -> None:
    system, _ = made(name, {})
    result = evaluate_next_basket(system, LOG, ks=(3,))
    assert result.samples == 20 and (result.ranks >= 1).all()


@pytest.mark.parametrize("name", ["maml", "multi_ft", "melu", "mamo", "meta_hin", "cbml"])
def test_a_system_with_users_as_tasks_adapts_to_what_is_known(name) -> None:
    system, _ = made(name, {"anchor": "user", "lr": 1.0})
    assert system.reads_history
    adapted, start = (evaluate_next_basket(system, LOG, ks=(3,), steps=steps) for steps in (1, 0))
    assert not torch.equal(adapted.ranks, start.ranks)
    few = evaluate_next_basket(system, LOG, ks=(3,), steps=1, batch_size=3)
    torch.testing.assert_close(few.ranks, adapted.ranks, rtol=0, atol=0.51)


@pytest.mark.by_kind
@pytest.mark.parametrize("name", RANKING)
def test_a_session_without_a_click_has_the_same_scores_beside_others(name) -> None:
    """Among sessions with clicks, and alone."""
    system, samples = made(name, {})
    empty = replace(samples.take(slice(0, 1)), begin=samples.end[:1], end=samples.end[:1], target=np.array([-1]))
    mixed = replace(
        samples,
        begin=np.append(samples.end[:1], samples.begin[1:]),
        target=np.append(-1, samples.target[1:]),
    )
    alone, together = system.scores(empty), system.scores(mixed)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1:], system.scores(samples)[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GRAPHMETA_DATA"), reason="GRAPHMETA_DATA names no folder with public logs")
def test_popularity_on_ta_feng_is_the_published_figure() -> None:
    known, following = tafeng()
    assert (known.num_items, len(known.users), known.num_sessions) == (11_997, 13_858, 77_369)
    found = evaluate_next_basket(Popularity(known), following, history=known).metrics
    assert (round(found["recall@10"], 4), round(found["ndcg@10"], 4)) == (0.0803, 0.0875)


def test_a_system_that_reads_no_history_ranks_the_same_for_all_users() -> None:
    log = fake_log(sessions=60)
    system = build("sr_gnn", log.items, width=4)
    with pytest.warns(UserWarning, match="gives all items the same score .* of a random order"):
        result = evaluate_next_basket(system, log)
    assert result.metrics["recall@10"] == pytest.approx(10 / 40)
    assert result.candidates == 40 and evaluate(system, log).candidates == 40


def test_ranks_are_found_by_the_ids_of_the_log() -> None:
    """A log in another order, with unknown items: each user's items with the rank that a loop gives them."""
    frame = baskets(3)
    model = Fixed(read(frame))
    mixed = frame.sample(frac=1, random_state=0)
    mixed.loc[mixed.index[:20], "item"] = "unknown"
    log = read(mixed)
    result = gm.evaluate_next_basket(model, log, ks=(3,))
    known = mixed[mixed.item != "unknown"]
    for user in result.users:
        own = log.to_frame().query("user == @user")
        starts = own.groupby("session")["time"].min().sort_values()
        last = set(own[own.session == starts.index[-1]].item) & set(known.item)
        earlier = known[(known.user == user) & (known.session != starts.index[-1])].session.nunique()
        row = model.row(earlier)
        number = {item: n for n, item in enumerate(model.items.ids)}
        rank = {i: sum(s > row[number[i]] for s in row) + (sum(s == row[number[i]] for s in row) + 1) / 2 for i in last}
        assert result.of_user(user) == rank and rank
    assert len(result.items) == len(result.ranks) and len(result.users) == result.samples
    with pytest.raises(InputError, match="user 'nobody' is not among the"):
        result.of_user("nobody")
