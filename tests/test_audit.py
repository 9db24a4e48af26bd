"""The audit finds published leaks in re-implementations of them, and none in their corrections or in the library."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.baselines import ItemKNN, Popularity, SessionKNN
from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split, split_by_time
from graphmeta.evaluation.audit import LabelledSessions, Verdict, audit, audit_model
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.sampling.samples import prefixes
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.testing import Mixture, fake_log
from tests.catalogue import LOG, made

SPLIT = split_by_time(fake_log(sessions=120, items=30, mixture=Mixture(random=0.2, users=15)), test=0.2, valid=0.2)
ITEMS = SPLIT.train.num_items
VECTORS = torch.randn(ITEMS, 16, generator=torch.Generator().manual_seed(0))


# Re-implementations, of a dozen lines each, of what the released code of published models does.


def line_graph(sessions: list[np.ndarray]) -> torch.Tensor:
    """DHCN (Xia et al. 2021): session vectors are averaged over the sessions of the batch that share items."""
    sets = [set(map(int, one)) for one in sessions]
    shared = torch.tensor([[len(one & other) / len(one | other) for other in sets] for one in sets])
    vectors = torch.stack([VECTORS[torch.from_numpy(one)].mean(0) for one in sessions])
    vectors = vectors + (shared / shared.sum(1, keepdim=True)) @ vectors
    return vectors @ VECTORS.T


def batch_transitions(sessions: list[np.ndarray]) -> torch.Tensor:
    """DGNN: item vectors pass messages along the transitions of all sessions of the batch."""
    graph = torch.eye(ITEMS)
    for one in sessions:
        graph[one[:-1], one[1:]] += 1
    vectors = (graph / graph.sum(1, keepdim=True)) @ VECTORS
    return torch.stack([vectors[int(one[-1])] for one in sessions]) @ VECTORS.T


def training_transitions(sessions: list[np.ndarray]) -> torch.Tensor:
    """The correction: transitions of the training sessions."""
    graph, log = torch.eye(ITEMS), SPLIT.train
    inside = np.flatnonzero(np.diff(log.session) == 0)
    graph[log.item[inside], log.item[inside + 1]] += 1
    vectors = (graph / graph.sum(1, keepdim=True)) @ VECTORS
    return torch.stack([vectors[int(one[-1])] for one in sessions]) @ VECTORS.T


def random_prefixes(ids: bool) -> dict[str, LabelledSessions]:
    """DIDN's validation: a random tenth of all prefixes, so most of a session's prefixes are trained on."""
    rows = LabelledSessions.of(prefixes(SPLIT.train), SPLIT.train)
    order = np.random.default_rng(0).permutation(len(rows))
    cut, parts = len(rows) // 10, {}
    for name, chosen in (("valid", order[:cut]), ("train", order[cut:])):
        session = [rows.session[at] for at in chosen] if ids else None
        parts[name] = LabelledSessions([rows.contexts[at] for at in chosen], rows.targets[chosen], session)
    return parts


def truncated(length: int, *, first: bool) -> dict[str, LabelledSessions]:
    """Contexts of limited length: the first clicks with an unchanged label (wrong), or the last ones."""
    rows = LabelledSessions.of(prefixes(SPLIT.train), SPLIT.train)
    contexts = [one[:length] if first else one[-length:] for one in rows.contexts]
    return {"train": replace(rows, contexts=contexts)}


def best_epoch(part: str):
    """A training that keeps the epoch with the best hit rate on a part of the split."""

    def fit(split: Split):
        torch.manual_seed(0)
        weight, best = torch.randn(ITEMS, ITEMS, requires_grad=True), (-1.0, torch.zeros(ITEMS, ITEMS))
        train, held = ((log.item[one.end - 1], torch.from_numpy(one.target)) for log, one in _samples(split, part))
        for _ in range(8):
            torch.nn.functional.cross_entropy(weight[train[0]], train[1]).backward()
            with torch.no_grad():
                weight -= 200 * weight.grad
                weight.grad.zero_()
                hit = float((weight[held[0]].argmax(1) == held[1]).float().mean())
                best = max(best, (hit, weight.clone()), key=lambda one: one[0])
        return lambda sessions: best[1][[int(one[-1]) for one in sessions]]

    return fit


def _samples(split: Split, part: str):
    return [(log, prefixes(log)) for log in (split.train, getattr(split, part))]


def verdicts(report) -> dict[str, str]:
    return {one.check: str(one.verdict) for one in report.findings}


@pytest.mark.parametrize("model", [line_graph, batch_transitions])
def test_a_graph_of_the_batch_is_a_fault(model) -> None:
    report = audit(SPLIT, model)
    assert {one.check for one in report.faults} >= {"alone = in a batch"} and not report.ok
    alone, together = report["alone = in a batch"].values["mrr"]
    assert "depend on the sessions beside it" in report["alone = in a batch"].text and alone != together
    assert {one.about for one in report.faults} == {"model"}


def test_the_graph_of_the_batch_holds_the_answer() -> None:
    """Among prefixes of its own session, in their order, a sample is linked to its target."""
    alone, together = audit(SPLIT, batch_transitions)["alone = in a batch"].values["mrr"]
    assert together > 1.5 * alone


@pytest.mark.parametrize("ids", [True, False])
def test_validation_on_random_prefixes_is_a_fault(ids: bool) -> None:
    report = audit(random_prefixes(ids))
    samples, chosen = prefixes(SPLIT.train), np.random.default_rng(0).random(SPLIT.train.num_events) < 0.1
    chosen = chosen[: len(samples)]
    assert not audit({"train": samples.take(~chosen), "valid": samples.take(chosen)}).ok
    assert [one.check for one in report.faults] == ["sessions in two parts"]
    assert "prefixes of one session are in both" in report.faults[0].text


@pytest.mark.parametrize(
    ("context", "target", "share"), [("ab", "c", 1), ("abcd", "e", 1), ("abc", "x", 1), ("ab", "x", 0), ("ax", "c", 0)]
)
def test_samples_without_ids_are_linked_to_those_one_click_before_or_after(
    context: str, target: str, share: float
) -> None:
    parts = {"train": LabelledSessions([[*"abc"]], ["d"]), "valid": LabelledSessions([[*context]], [target])}
    assert audit(parts)["sessions in two parts"].values == {"valid": share}


@pytest.mark.parametrize("source", [True, False])
def test_labels_after_truncation_are_a_fault(source: bool) -> None:
    log = SPLIT.train if source else None
    wrong = audit(truncated(2, first=True), source=log)
    assert [one.check for one in wrong.faults] == ["labels"] and "contexts were cut after" in wrong.faults[0].text
    assert audit(truncated(2, first=False), source=log).ok


def test_an_epoch_chosen_on_the_test_part_is_a_fault() -> None:
    report = audit(SPLIT, fit=best_epoch("test"))
    assert [one.check for one in report.faults] == ["training without the test part"]
    assert "chosen on the test part" in report.faults[0].text


def test_the_corrections_have_no_fault() -> None:
    report = audit(SPLIT, training_transitions, fit=best_epoch("valid"))
    assert report.ok, report
    assert report["training without the test part"].verdict is Verdict.OK
    assert audit(
        {"train": LabelledSessions.of(prefixes(SPLIT.train)), "valid": LabelledSessions.of(prefixes(SPLIT.valid))}
    ).ok


def test_a_training_that_reads_the_test_part_without_effect_is_a_warning() -> None:
    def fit(split: Split):
        assert split.test.num_events
        return ItemKNN(split.train)

    assert audit(SPLIT, fit=fit)["training without the test part"].verdict is Verdict.WARNING
    noise = np.random.default_rng(0)
    random = audit(SPLIT, fit=lambda split: lambda sessions: noise.random((len(sessions), ITEMS)))
    assert "fix the seed" in random["training without the test part"].text


class Cheat:
    """A model that reads something beside the context of a sample."""

    num_items, calls = LOG.num_items, 0

    def __init__(self, what: str) -> None:
        self.what = what

    def scores(self, samples) -> torch.Tensor:
        self.calls += 1
        scores = Popularity(LOG).scores(samples).clone()
        row = torch.arange(len(samples))
        if self.what == "target":
            scores[row, torch.from_numpy(samples.target.clip(min=0))] += 99
        if self.what == "future":
            scores[row, torch.from_numpy(samples.item[np.minimum(samples.end, len(samples.item) - 1)])] += 99
        if self.what == "place":
            scores[:, 0] += row
        if self.what == "calls":
            scores += self.calls * torch.arange(self.num_items)
        if self.what == "nan":
            scores[:, 1] = torch.nan
        if self.what == "time":
            scores[:, 0] += torch.from_numpy(samples.time[np.minimum(samples.end, len(samples.item) - 1)] % 1000)
        if self.what == "histories":
            known = samples.earlier.histories
            scores += torch.bincount(torch.from_numpy(known.item), minlength=self.num_items)
        return scores


OVERVIEW = ("sr_gnn", "bpr_mf", "personal_reranker", "dropout_net", "meta_tl", "stan", "up_cf")
CHEATS = {
    "target": "target invariance",
    "future": "future invariance",
    "time": "future invariance",
    "place": "another order",
    "calls": "the same again",
    "nan": "finite scores",
    "histories": "later sessions of users",
}


@pytest.mark.parametrize("what", CHEATS)
def test_a_model_that_reads_what_it_must_not_has_a_fault(what: str) -> None:
    samples = prefixes(LOG).take(slice(0, 40))
    samples = UserHistories.of(LOG).attached(samples, LOG)
    report = audit_model(Cheat(what), samples)
    assert CHEATS[what] in {one.check for one in report.faults}, report
    assert audit_model(Popularity(LOG), samples).ok


@pytest.mark.parametrize(
    "name", [name if name in OVERVIEW else pytest.param(name, marks=pytest.mark.slow) for name in CATALOGUE]
)
def test_no_system_of_the_catalogue_has_a_fault(name: str) -> None:
    system, samples = made(name, {})
    with torch.no_grad():  # weights that are zero at first (biases, last layers) hide what is read through them
        for weight in system.parameters():
            weight += 0.02 * torch.randn_like(weight)
    before = copy.deepcopy(system.state_dict())
    report = audit_model(system.eval(), samples, num_items=1 if CATALOGUE[name].predicts_ratings else None)
    assert report.ok, report
    assert all(torch.equal(value, before[key]) for key, value in system.state_dict().items())


def test_a_metric_must_give_chance_to_constant_scores_and_not_prefer_nan() -> None:
    def first_of_ties(scores: torch.Tensor, target: torch.Tensor) -> float:
        return float(((scores > scores.gather(1, target[:, None])).sum(1) < 20).double().mean())

    def sorted_down(scores: torch.Tensor, target: torch.Tensor) -> float:
        return float((scores.argsort(1, descending=True)[:, :20] == target[:, None]).any(1).double().mean())

    assert {one.check for one in audit(SPLIT, measure=first_of_ties).faults} == {
        "constant scores at chance",
        "NaN scores",
    }
    found = {one.check: one for one in audit(SPLIT, measure=sorted_down).faults}
    assert found["NaN scores"].text.endswith("NaN is ranked first")
    assert audit(SPLIT).ok


def test_a_split_with_shared_sessions_and_late_training_is_reported() -> None:
    log = fake_log(sessions=80, items=20)
    half = np.arange(80) % 2 == 0
    mixed = {"train": log.of_sessions(half), "test": log.of_sessions(~half)}
    found = verdicts(audit(mixed))
    assert found["sessions in two parts"] == "ok" and found["time order"] == "warning"
    both = verdicts(audit({"train": log, "test": log.of_sessions(~half)}))
    assert both["sessions in two parts"] == "fault" and both["identical sessions"] == "warning"


@pytest.mark.parametrize(("same", "verdict"), [(0, "ok"), (2, "note"), (3, "warning")])
def test_more_than_a_tenth_of_test_sessions_in_training_is_a_warning(same: int, verdict: str) -> None:
    def log_of(sessions: list[str]) -> EventLog:
        rows = [(f"{tag}{number}", item) for number, tag in enumerate(sessions) for item in (tag, "a", "b")]
        return EventLog.read(pd.DataFrame(rows, columns=["session", "item"]), session="session", item="item")

    train = log_of([f"train{number}" for number in range(20)])
    test = log_of([f"train{number}" for number in range(same)] + [f"test{number}" for number in range(20 - same)])
    assert verdicts(audit({"train": train, "test": test}))["identical sessions"] == verdict


def test_the_shuffle_test_measures_the_order() -> None:
    """On a ring the next item follows from the last click, which a shuffled context hides."""
    split = split_by_time(fake_log(sessions=400, items=200), test=0.3)
    values = audit(split)["order of clicks"].values
    assert values["as it is"] > values["shuffled"] and values["p"] < 0.001
    still = audit(split, Popularity(split.train)).series["model order"]["means"]
    assert still["as it is"] == still["shuffled"] == still["last click alone"]


def test_drift_is_compared_with_chance() -> None:
    split = split_by_time(fake_log(sessions=300, items=40, mixture=Mixture(random=1.0)), test=0.5)
    shifted = replace(split.test, item=(split.test.item + 20) % split.test.num_items)
    same, other = (audit(one)["popularity drift"] for one in (split, replace(split, test=shifted)))
    assert (same.verdict, other.verdict) == (Verdict.OK, Verdict.NOTE)
    assert other.values["distance"] > 2 * other.values["distance of random parts"]


def test_new_items_users_and_repeats_are_counted() -> None:
    split = split_by_time(fake_log(sessions=100, items=500, mixture=Mixture(repeats=0.5, users=40)))
    report = audit(split)
    assert report["new items"].values["left out"] == split.unknown > 0
    item, ptr = split.test.item, split.test.ptr
    last = [item[b - 1] in item[a : b - 1] for a, b in zip(ptr[:-1], ptr[1:], strict=True) if b - a > 1]
    assert report["repeats"].values["share of targets"] == pytest.approx(np.mean(last))
    known = np.isin(np.unique(split.test.session_user), np.unique(split.train.session_user)).mean()
    assert report["users in two parts"].values["share with training sessions"] == pytest.approx(known)


def test_the_report_is_text_json_and_a_frame() -> None:
    report = gm.audit(SPLIT, SessionKNN(SPLIT.train))
    document = report.document()
    assert document["ok"] and len(document["findings"]) == len(report.to_frame()) == len(report.findings)
    assert str(report).splitlines()[0] == document["headline"]
    with pytest.raises(KeyError, match="there are sessions in two parts"):
        report["nonsense"]


def test_mistakes_have_one_line_with_the_remedy() -> None:
    with pytest.raises(gm.InputError, match="split a log with split_by_time"):
        audit(LOG)  # pyright: ignore
    with pytest.raises(gm.InputError, match="name them train, valid, test"):
        audit({"training": LOG})
    with pytest.raises(gm.InputError, match="pass it as 'train'"):
        audit({"test": LOG})
    with pytest.raises(gm.InputError, match="pass a log, samples, or LabelledSessions"):
        audit({"train": [[1, 2]]})
    with pytest.raises(gm.InputError, match="lengths"):
        LabelledSessions([[1]], [2, 3])
    with pytest.raises(gm.InputError, match="pass num_items="):
        audit_model(lambda sessions: sessions, prefixes(LOG))
    with pytest.raises(gm.InputError, match="not a str"):
        audit(SPLIT, "stan")  # pyright: ignore
