"""A stream: tested before trained, blind to the future, taken up where it was put down; its questions by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from graphmeta.data.splits import period_edges
from graphmeta.errors import InputError
from graphmeta.published.catalogue import build
from graphmeta.retrain.period import Period
from graphmeta.retrain.strategy import FineTune, Full, Reservoir
from graphmeta.retrain.stream import PeriodReport, Pretraining, overall, stream
from graphmeta.retrain.testing import StreamEvaluation, UnclickedSampler
from graphmeta.retrain.transfer import Transfer
from graphmeta.retrain.transfer_net import TransferNet
from graphmeta.sampling.histories import every_event, sessions_by_user
from graphmeta.sampling.samples import prefixes
from graphmeta.storage import state_hash
from graphmeta.testing import fake_log
from graphmeta.training.run import Checkpoint

LOG = fake_log(sessions=40, items=40)
EDGES = period_edges(LOG, events=48)
EVALUATION = StreamEvaluation(negatives=6, ks=(1, 5))
QUICK = Full(epochs=1, batch_size=64)
SMALL = partial(TransferNet, hidden=6)
STRATEGIES = {
    "full": QUICK,
    "fine_tune": FineTune(epochs=1),
    "reservoir": Reservoir(size=20, epochs=1),
    "transfer": Transfer(net=SMALL, rounds=1, offline=1),
}


def built(name: str = "mf", log=LOG):
    torch.manual_seed(0)
    return build(name, log.items, users=log.users, width=4)


def through(system, strategy, log=LOG, *, evaluation=EVALUATION, **options):
    return stream(
        system, log, edges=EDGES, strategy=strategy, begin=Pretraining(2, QUICK), evaluation=evaluation, **options
    )


def told(report: PeriodReport) -> PeriodReport:
    """A report but for its times."""
    return replace(report, test_seconds=0, train_seconds=0, train_cpu_seconds=0)


def with_other_end(log=LOG):
    """The same log, but for which items the last period's clicks are on."""
    item, last = log.item.copy(), log.time >= EDGES[-2]
    item[last] = (item[last] + 7) % log.num_items
    return replace(log, item=item)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_later_period_changes_nothing_before_it(name):
    runs = [list(map(told, through(built(log=log), STRATEGIES[name], log))) for log in (LOG, with_other_end())]
    assert runs[0][:-1] == runs[1][:-1] and len(runs[0]) == len(EDGES) - 3
    assert runs[0][-1] != runs[1][-1]


SCRATCH = Full(epochs=1, batch_size=64, from_scratch=True)


@pytest.mark.parametrize(
    ("strategy", "around"),
    [*((one, "mf") for one in (*STRATEGIES.values(), SCRATCH)), (STRATEGIES["transfer"], "sr_gnn")],
    ids=[*STRATEGIES, "scratch", "transfer around sr_gnn"],
)
def test_taken_up_again_it_is_as_if_never_put_down(strategy, around, tmp_path):
    whole, parts = built(around), built(around)
    expected = list(map(told, through(whole, strategy)))
    place = Checkpoint(tmp_path)
    first = through(parts, strategy, checkpoint=place)
    for _ in range(2):
        next(first)
    other = built(around)
    found = list(map(told, through(other, strategy, checkpoint=replace(place, resume=True))))
    assert found == expected
    again = built(around)  # after the last period nothing is left to train
    assert list(map(told, through(again, strategy, checkpoint=replace(place, resume=True)))) == expected
    for resumed in (other, again):
        assert state_hash(resumed) == state_hash(whole)
        assert np.array_equal(resumed.events, whole.events)


def test_another_stream_is_not_taken_up(tmp_path):
    next(through(built(), QUICK, checkpoint=Checkpoint(tmp_path)))
    with pytest.raises(InputError, match="a checkpoint of another stream .different: strategy."):
        next(through(built(), FineTune(), checkpoint=Checkpoint(tmp_path, resume=True)))


def test_it_is_tested_before_it_is_trained():
    order = []

    class Noted(StreamEvaluation):
        def measure(self, system, period):
            order.append(("test", period.number, state_hash(system)))
            return super().measure(system, period)

    class Trained(FineTune):
        def retrain(self, system, state, period):
            order.append(("train", period.number, state_hash(system)))
            state = super().retrain(system, state, period)
            order.append(("trained", period.number, state_hash(system)))
            return state

    evaluation = Noted(EVALUATION.negatives, EVALUATION.ks)
    list(through(built(), Trained(epochs=1), evaluation=evaluation))
    numbers = range(2, len(EDGES) - 1)
    assert [step[:2] for step in order] == [(what, n) for n in numbers for what in ("test", "train", "trained")]
    hashes = [step[2] for step in order]
    assert hashes[0::3] == hashes[1::3]  # what is tested is what training begins with
    assert hashes[3::3] == hashes[2:-1:3]  # and what it made is tested next
    assert len(set(hashes)) == len(numbers) + 1


def test_new_users_and_items_have_their_rows_from_the_beginning_and_keep_them():
    torch.manual_seed(0)
    log = fake_log(sessions=24, items=200)
    edges = period_edges(log, events=30)
    system = build("mf", log.items, users=log.users, width=4)
    tables = [system.recommender.get_parameter(f"{n}.weight") for n in ("features.item", "head.readout.user")]
    began, number = [table.detach().clone() for table in tables], np.searchsorted(edges, log.time, "right") - 1
    since = [np.full(len(table), len(edges)) for table in tables]
    for first, whom in zip(since, (log.item, log.session_user[log.session]), strict=True):
        np.minimum.at(first, whom, number)
        assert ((first > 2) & (first < len(edges))).any()
    reports = stream(
        system, log, edges=edges, strategy=FineTune(epochs=1), begin=Pretraining(1, QUICK), evaluation=EVALUATION
    )
    for report in reports:  # all of a period's clicks are asked about, also those by and on the new
        assert report.rows == (number == report.period).sum()
        for table, before, first in zip(tables, began, since, strict=True):
            same = (table == before).all(1).numpy()
            assert (same == (first > report.period)).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_session_encoder_goes_through_every_strategy(name):
    evaluation = replace(EVALUATION, samples=prefixes, max_length=5)
    reports = list(through(built("sr_gnn"), STRATEGIES[name], evaluation=evaluation))
    assert len(reports) == len(EDGES) - 3
    for report in reports:
        assert all(0 <= value <= 1 for value in (*report.sampled.values(), *report.full.values()))


def test_what_is_learned_shows():
    """On a ring of items whose order is the rule, an encoder gets better as it is retrained."""
    evaluation, learned = replace(EVALUATION, samples=prefixes), Full(epochs=15, batch_size=32)
    before, after = stream(
        built("sr_gnn"), LOG, edges=EDGES[1:5], strategy=learned, begin=Pretraining(1, QUICK), evaluation=evaluation
    )
    assert after.full["hit@5"] > before.full["hit@5"] + 0.2


def test_the_rows_of_a_period_are_its_clicks_and_candidates_what_has_appeared():
    period = Period.of(LOG, EDGES, 3)
    rows = EVALUATION.rows(period)
    inside = (LOG.time >= EDGES[3]) & (LOG.time < EDGES[4])
    assert sorted(rows.target) == sorted(LOG.item[inside])

    class Fixed:
        """Scores that are known: the higher the number, the better."""

        @staticmethod
        def scores(samples):
            return torch.arange(LOG.num_items, dtype=torch.float32).expand(len(samples), -1)

    found = EVALUATION.measure(Fixed(), period)
    count, sampled, full = found.rows, found.sampled, found.full
    seen = np.flatnonzero(period.past.support)
    rank = np.array([1 + (seen > target).sum() for target in rows.target])
    assert count == len(rows) and full["hit@5"] == pytest.approx((rank <= 5).mean())
    assert full["ndcg@5"] == pytest.approx(np.where(rank <= 5, 1 / np.log2(1 + rank), 0).mean())
    assert sampled["hit@5"] > full["hit@5"]


def test_known_and_new_users_are_measured_apart_and_make_up_the_whole():
    log = sessions_by_user(LOG)
    reports = list(through(built(log=log), QUICK, log))
    number, user = np.searchsorted(EDGES, log.time, "right") - 1, log.session_user[log.session]
    since = np.full(len(log.users), len(EDGES))
    np.minimum.at(since, user, number)
    assert {name for report in reports for name in report.users} == {"known", "new"}
    for report in reports:
        new = since[user[number == report.period]] == report.period
        sizes = {"known": int((~new).sum()), "new": int(new.sum())}
        assert {n: part.rows for n, part in report.users.items()} == {n: size for n, size in sizes.items() if size}
        for kind in ("sampled", "full"):
            for metric, mean in getattr(report, kind).items():
                total = sum(part.rows * getattr(part, kind)[metric] for part in report.users.values())
                assert mean == pytest.approx(total / report.rows)
    means, rows = overall(reports, users="new"), [report.users["new"] for report in reports if "new" in report.users]
    expected = sum(one.rows * one.full["hit@5"] for one in rows) / sum(one.rows for one in rows)
    assert means["full"]["hit@5"] == pytest.approx(expected)


def test_sampled_items_are_unclicked_distinct_and_uniform():
    log = sessions_by_user(fake_log(sessions=12, items=20))
    seen, rows = np.flatnonzero(log.support), every_event(log).take(np.array([0]))
    touched = set(np.searchsorted(seen, log.item[log.session == 0]))
    free, count = sorted(set(range(len(seen))) - touched), np.zeros(len(seen))
    sample = UnclickedSampler(log, seen, np.random.default_rng(0))
    runs, each = 1500, 5
    for _ in range(runs):
        (sampled,) = sample(rows, each)
        assert len(set(sampled)) == each
        count[sampled] += 1
    assert set(np.flatnonzero(count)) == set(free)
    expected = runs * each / len(free)
    chi_square = ((count[free] - expected) ** 2 / expected).sum() / (1 - each / len(free))
    assert chi_square < len(free) - 1 + 4 * np.sqrt(2 * (len(free) - 1))


def test_few_items_are_sampled_as_far_as_there_are():
    plain = EVALUATION.fitted(LOG, EDGES, 2)
    assert plain == EVALUATION
    with pytest.warns(UserWarning, match=r"in period \d a user or session has only (\d+) items .* instead of 39;"):
        fewer = replace(EVALUATION, negatives=39).fitted(LOG, EDGES, 2)
    left = []
    for number in range(2, len(EDGES) - 1):
        past = LOG.before(EDGES[number + 1])
        users = past.session_user[past.session]
        for user in np.unique(users[past.time >= EDGES[number]]):
            left.append(past.num_items - len(np.unique(past.item[users == user])))
    assert fewer.negatives == min(left) < 39 and fewer.ks == EVALUATION.ks
    with pytest.warns(UserWarning, match="and lists are of 5$|and lists are of 5;"):
        assert replace(EVALUATION, negatives=39, ks=(5, 39)).fitted(LOG, EDGES, 2).ks == (5,)
    with pytest.warns(UserWarning, match="that number is sampled in every period"):
        report = next(through(built(), QUICK, evaluation=replace(EVALUATION, negatives=39)))
    assert report.sampled["hit@5"] >= report.full["hit@5"]


def test_nothing_to_sample_from_is_refused_before_training():
    with pytest.raises(InputError, match="lists of 7 need at least 7 negatives, not 6"):
        replace(EVALUATION, ks=(1, 7)).fitted(LOG, EDGES, 2)
    few = fake_log(sessions=40, items=6)  # each session has all items
    with pytest.raises(InputError, match="has clicked every item, so none is left to sample"):
        EVALUATION.fitted(few, period_edges(few, events=48), 2)

    with pytest.raises(InputError, match="of 5 periods, the first 5 are for pretraining"):
        next(
            stream(built(), LOG, edges=EDGES, strategy=QUICK, begin=Pretraining(len(EDGES) - 1), evaluation=EVALUATION)
        )


def test_custom_metrics_of_a_stream_are_reported_for_both_rankings():
    evaluation = replace(EVALUATION, metrics={"mean rank": lambda rank: rank, "first": lambda rank: rank <= 1})
    reports = list(through(built(), QUICK, evaluation=evaluation))
    plain = list(through(built(), QUICK))
    for report, other in zip(reports, plain, strict=True):
        assert report.sampled.items() > other.sampled.items() and report.full.items() > other.full.items()
        assert report.full["first"] == report.full["hit@1"] and report.sampled["first"] == report.sampled["hit@1"]
        assert 1 <= report.sampled["mean rank"] < report.full["mean rank"]
    means = overall(reports)["full"]
    assert means["first"] == pytest.approx(means["hit@1"])
    with pytest.raises(InputError, match="'hit@1' is already the name of a metric"):
        next(through(built(), QUICK, evaluation=replace(EVALUATION, metrics={"hit@1": lambda rank: rank})))


def test_means_are_weighted_by_rows():
    one = PeriodReport(0, 0.0, 10, {"hit@5": 0.1}, {"hit@5": 0.0}, 0, 0, 0)
    reports = [one, replace(one, period=1, rows=30, sampled={"hit@5": 0.5}), replace(one, period=2, rows=0, sampled={})]
    assert overall(reports)["sampled"]["hit@5"] == pytest.approx(0.4)
    assert overall(reports, since=1)["sampled"]["hit@5"] == pytest.approx(0.5)


def test_periods_by_time_and_by_count():
    times = np.array([0.0, 1, 1, 1, 5, 20, 21, 22])
    log = replace(LOG, time=times, item=LOG.item[:8], session=np.zeros(8, np.int64))
    assert period_edges(log, seconds=5)[:-1].tolist() == [0, 5, 20]
    assert period_edges(log, events=2)[:-1].tolist() == [0, 5, 21]  # what happens at once stays together
    assert period_edges(log, events=100)[:-1].tolist() == [0]
    assert period_edges(log, seconds=5)[-1] > 22
    for wrong in ({}, {"seconds": 1, "events": 1}, {"seconds": 0}, {"events": -1}):
        with pytest.raises(InputError, match="either seconds= or events= above 0"):
            period_edges(log, **wrong)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_deployed_system_is_in_eval_mode(name):
    system = built("gru4rec" if name == "full" else "mf").train()
    for _ in through(system, STRATEGIES[name]):
        assert not any(part.training for part in system.modules())


def test_scores_that_are_not_finite_are_not_measured():
    class Broken(Full):
        def retrain(self, system, state, period):
            torch.nn.init.constant_(system.recommender.features.item.weight, torch.nan)
            return state

    with pytest.raises(InputError, match="scores are not finite"):
        list(through(built(), Broken()))
