"""A log or samples are ranked; what is numbered otherwise is brought over or refused, in one line."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.baselines import ItemKNN, Popularity
from graphmeta.data.events import EventLog
from graphmeta.data.splits import split_by_time
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate, evaluate_sampled, evaluate_tasks, sampled_negatives
from graphmeta.published.catalogue import build
from graphmeta.sampling.few_shot import sampled_tasks
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.testing import fake_log
from graphmeta.training.loop import train

SPLIT = split_by_time(fake_log(sessions=120))


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    system = build("sr_gnn", SPLIT.train.items, width=8)
    list(train(system, SPLIT.train, epochs=1))
    return system


def own_numbers(log: EventLog) -> EventLog:
    """The same events, numbered by themselves."""
    return EventLog.read(log.to_frame(), session="session", item="item", time="time", user="user")


def test_a_log_is_evaluated_on_its_last_clicks(system):
    result = evaluate(system, SPLIT.test)
    wanted = evaluate(system, last_clicks(SPLIT.test))
    assert torch.equal(result.ranks, wanted.ranks) and result.metrics == wanted.metrics


def test_a_log_numbered_by_itself_is_brought_to_the_items_of_the_system(system):
    other = own_numbers(SPLIT.test)
    assert not np.array_equal(other.items.ids, system.items.ids)
    assert evaluate(system, other).metrics == evaluate(system, SPLIT.test).metrics


def test_samples_numbered_otherwise_are_refused_by_every_evaluation(system):
    other = own_numbers(SPLIT.test)
    wrong = last_clicks(other)
    line = r"other item indices.*log.aligned_to\(model.items, model.users\)"
    with pytest.raises(InputError, match=line):
        evaluate(system, wrong)
    with pytest.raises(InputError, match=line):
        evaluate(system, wrong.take(np.arange(2)))
    with pytest.raises(InputError, match=line):
        evaluate_sampled(system, wrong, np.zeros((len(wrong), 3), dtype=np.int64), ks=(1,))
    with pytest.raises(InputError, match=line):
        evaluate_tasks(system, sampled_tasks(other))
    with pytest.raises(InputError, match=line):
        list(train(system, SPLIT.train, epochs=1, valid=wrong))
    with pytest.raises(InputError, match=line):
        system.scores(wrong)
    assert evaluate(system, prefixes(other.aligned_to(system.items))).samples > 0


def test_users_numbered_otherwise_are_refused_and_those_of_a_log_are_brought_over():
    system = build("bpr_mf", SPLIT.train.items, users=SPLIT.train.users, width=4)
    other = own_numbers(SPLIT.test)
    with pytest.raises(InputError, match="other user indices"):
        evaluate(system, last_clicks(other.aligned_to(system.items, other.users)))
    assert evaluate(system, other).metrics == evaluate(system, SPLIT.test).metrics


def test_a_log_of_other_ids_is_refused(system):
    strange = EventLog.read(pd.DataFrame({"s": [1, 1], "i": ["x", "y"]}), session="s", item="i")
    with pytest.raises(InputError, match=r"no session of the log has two items known to the model \(1 session"):
        evaluate(system, strange)
    with pytest.raises(InputError, match=r"no session of the log has two items known to the model"):
        evaluate(Popularity(SPLIT.train), strange)
    with pytest.raises(InputError, match=r"a list is neither a log nor samples; pass a log, or last_clicks\(log\)"):
        evaluate(system, ["i1", "i2"])


def test_a_baseline_takes_a_log_too():
    model = ItemKNN(SPLIT.train)
    assert evaluate(model, SPLIT.test).metrics == evaluate(model, last_clicks(SPLIT.test)).metrics


@pytest.mark.parametrize(
    ("ks", "line"),
    [
        (10, r"ks=10 must be several numbers; for one write ks=\(10,\)"),
        ("10", "must be several numbers"),
        ((), "must be whole numbers, 1 or more"),
        ((0,), "must be whole numbers, 1 or more"),
        ((5, 2.5), "must be whole numbers, 1 or more"),
        ((40,), "k=40 is not below the number of candidates, 40"),
    ],
)
def test_ks_are_whole_numbers_below_the_candidates(system, ks, line):
    with pytest.raises(InputError, match=line):
        evaluate(system, SPLIT.test, ks=ks)


def test_your_own_metric_is_averaged_over_samples_and_slices(system):
    result = evaluate(system, SPLIT.test, ks=(5,), metrics={"mean rank": lambda r: r, "first": lambda r: r <= 1})
    assert list(result.metrics) == ["hit@5", "mrr@5", "ndcg@5", "mean rank", "first"]
    assert result.metrics["mean rank"] == pytest.approx(float(result.ranks.mean()))
    assert result.metrics["first"] == pytest.approx(float((result.ranks <= 1).double().mean()))
    five = result.slices["context length"]["5+"]
    assert five["samples"] == result.samples and five["mean rank"] == result.metrics["mean rank"]
    assert "mean rank" not in result.slices["context length"]["1"]
    with pytest.raises(
        InputError, match=r"metric 'mean' gives values of shape \(\) for 12 samples; return one value per sample"
    ):
        evaluate(system, SPLIT.test, metrics={"mean": torch.mean})


def test_sampled_ranks_take_custom_metrics_too(system):
    samples = last_clicks(SPLIT.test)
    negatives = sampled_negatives(samples, SPLIT.test, count=9)
    result = evaluate_sampled(system, samples, negatives, ks=(5,), metrics={"mean rank": lambda r: r})
    assert result.metrics["mean rank"] == pytest.approx(float(result.ranks.mean()))
    assert result.slices["context length"]["5+"]["mean rank"] == result.metrics["mean rank"]
    with pytest.raises(InputError, match="'hit@5' is already the name of a metric"):
        evaluate_sampled(system, samples, negatives, ks=(5,), metrics={"hit@5": lambda r: r})
    with pytest.raises(InputError, match=r"metric 'mean' gives values of shape \(\) for 12 samples"):
        evaluate_sampled(system, samples, negatives, ks=(5,), metrics={"mean": torch.mean})


def test_a_metric_cannot_change_the_ranks(system):
    result = evaluate(system, SPLIT.test, metrics={"zero": lambda r: r.zero_()})
    assert torch.equal(result.ranks, evaluate(system, SPLIT.test).ranks)


def test_a_result_is_a_table(system):
    result = evaluate(system, SPLIT.test, ks=(5,), support=SPLIT.train.support)
    frame = result.to_frame()
    assert frame.index[0] == "all" and frame.loc["all", "mrr@5"] == result.metrics["mrr@5"]
    assert frame["samples"].tolist()[0] == result.samples and frame["samples"].dtype == np.int64
    told = str(result)
    assert told.startswith("12 samples, each target ranked among 40 items\n")
    assert "context length 5+" in told and "item events 10-99" in told and "tensor" not in told


@pytest.mark.parametrize("name", ["mf", "bpr_mf", "fine_tune"])
def test_a_system_of_users_alone_warns_if_all_are_unknown(name, recwarn):
    log = fake_log(sessions=40)
    system = build(name, log.items, users=log.users, width=4).eval()
    evaluate(system, log)
    assert not recwarn.list
    strangers = last_clicks(log)
    strangers = replace(strangers, user=np.full(len(strangers), -1))
    with pytest.warns(UserWarning, match="reads nothing but the user, and none of their users .* use another system"):
        evaluate(system, strangers)
    with pytest.warns(UserWarning, match=r"the samples have no users: all samples \(40\) get the same ranking"):
        evaluate(system, replace(strangers, user=None, users=None))


@pytest.mark.parametrize(
    ("name", "options"), [("caser", {}), ("meta_hin", {"base": "bpr_mf"}), ("asars_user_cat", {}), ("gru4rec", {})]
)
def test_a_system_that_reads_clicks_does_not_warn(name, options):
    log = fake_log(sessions=40)
    system = build(name, log.items, users=log.users, width=4, **options).eval()
    system.fit_statistics(log)
    strangers = last_clicks(log)
    evaluate(system, replace(strangers, user=np.full(len(strangers), -1)))
