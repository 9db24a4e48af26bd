"""What is sampled: never a positive where that can be helped, as often as was asked for, the same under one seed."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import RankingLoss
from graphmeta.nn.losses.negatives import PerSampleNegatives, SharedNegatives, in_batch_targets, uniform
from graphmeta.nn.losses.pairwise import RANKING, Hinge
from graphmeta.nn.readout import Last
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import session_batch

ITEMS = 8


def log_of(sessions: dict[str, list[int]]) -> EventLog:
    """One session a user, of these items; every item i is clicked by a last user 2^i times or so."""
    rows = [(user, f"i{item}", user) for user, clicks in sessions.items() for item in clicks]
    rows += [("many", f"i{item}", "many") for item in range(ITEMS) for _ in range(1 + item * item)]
    rows.sort(key=lambda row: row[0] != "many")
    frame = pd.DataFrame(rows, columns=["s", "item", "user"])
    return EventLog.read(frame, session="s", item="item", user="user")


def numbered(log: EventLog, *names: str) -> list[int]:
    return [log.items.ids.tolist().index(name) for name in names]


def surprise(counts, expected) -> float:
    """Pearson's chi square a degree of freedom: near 1 if the counts follow what is expected."""
    return float(((counts - expected) ** 2 / expected).sum() / (len(counts) - 1))


# Shared


def test_in_batch_negatives_are_the_other_targets():
    target = torch.tensor([3, 1, 3, 5])
    items, counts = SharedNegatives()(target, None, ITEMS)
    assert items.tolist() == [3, 1, 3, 5]
    for row, own in enumerate(target.tolist()):
        assert counts[row].tolist() == [item != own for item in items.tolist()]


@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
def test_sampled_negatives_follow_the_power_of_support(alpha):
    log = log_of({"a": [0, 1]})
    negatives = SharedNegatives(in_batch=False, sampled=20_000, alpha=alpha)
    negatives.fit_statistics(log)
    torch.manual_seed(0)
    items, counts = negatives(torch.tensor([2, 6]), None, ITEMS)
    found = np.bincount(items.numpy(), minlength=ITEMS)
    weight = log.support.astype(float) ** alpha
    assert surprise(found, 20_000 * weight / weight.sum()) < 3
    if alpha:
        assert surprise(found, np.full(ITEMS, 20_000 / ITEMS)) > 30
    assert torch.equal(counts, torch.stack([items != 2, items != 6]))


def test_without_a_log_every_item_is_as_likely():
    torch.manual_seed(0)
    items, _ = SharedNegatives(in_batch=False, sampled=20_000)(torch.tensor([0]), None, ITEMS)
    assert surprise(np.bincount(items.numpy(), minlength=ITEMS), np.full(ITEMS, 20_000 / ITEMS)) < 3


def test_an_item_without_clicks_is_hardly_sampled():
    log = log_of({"a": [0, 1]})
    few = log.select(log.item != numbered(log, "i7")[0]).aligned_to(log.items)
    negatives = SharedNegatives(in_batch=False, sampled=5_000, alpha=1.0)
    negatives.fit_statistics(few)
    torch.manual_seed(0)
    items, _ = negatives(torch.tensor([0]), None, ITEMS)
    assert numbered(log, "i7")[0] not in items.tolist()


# Each sample's own


@pytest.mark.parametrize("sample", [uniform, in_batch_targets])
def test_neither_target_nor_history_where_that_can_be_helped(sample):
    log = log_of({"a": [0, 1, 2], "b": [5]})
    negatives = PerSampleNegatives(sample, count=6)
    negatives.fit_statistics(log)
    users = log.users.ids.tolist()
    target = torch.tensor(numbered(log, "i0", "i5", "i3", "i7", "i6") * 4)
    user = torch.tensor([users.index("a"), users.index("b"), -1, users.index("a"), users.index("b")] * 4)
    torch.manual_seed(0)
    items, counts = negatives(target, user, ITEMS)
    assert items.shape == counts.shape == (20, 6) and counts.all()
    clicked = {users.index("a"): set(numbered(log, "i0", "i1", "i2")), users.index("b"): set(numbered(log, "i5"))}
    for row, own, whose in zip(items.tolist(), target.tolist(), user.tolist(), strict=True):
        assert own not in row and not clicked.get(whose, set()) & set(row)


def test_a_user_who_clicked_all_items_has_no_negatives_and_nothing_else_changes():
    log = log_of({"a": [0]})
    negatives = PerSampleNegatives(uniform, count=3)
    negatives.fit_statistics(log)
    users = log.users.ids.tolist()
    target = torch.tensor([0, 0])
    _, counts = negatives(target, torch.tensor([users.index("many"), users.index("a")]), ITEMS)
    assert counts.tolist() == [[False] * 3, [True] * 3]


def test_a_catalogue_of_one_item_has_no_negatives():
    items, counts = PerSampleNegatives(uniform, count=2)(torch.tensor([0, 0]), None, 1)
    assert items.tolist() == [[0, 0]] * 2 and not counts.any()


def test_uniform_covers_all_but_the_target_evenly():
    torch.manual_seed(0)
    items, _ = PerSampleNegatives(uniform, count=10)(torch.full((2_000,), 3), None, ITEMS)
    found = np.bincount(items.flatten().numpy(), minlength=ITEMS)
    assert found[3] == 0
    assert surprise(np.delete(found, 3), np.full(ITEMS - 1, 20_000 / (ITEMS - 1))) < 3


def test_local_draws_the_batch_s_targets_as_often_as_they_are():
    target = torch.tensor([1, 1, 1, 4])
    torch.manual_seed(0)
    found = np.bincount(in_batch_targets(target, 20_000, ITEMS).numpy(), minlength=ITEMS)
    assert found[[1, 4]].sum() == 20_000
    assert surprise(found[[1, 4]], np.array([15_000, 5_000])) < 5


@pytest.mark.parametrize(
    "negatives",
    [SharedNegatives(sampled=9), PerSampleNegatives(uniform), PerSampleNegatives(in_batch_targets, count=2)],
)
def test_one_seed_one_answer(negatives):
    target = torch.tensor([1, 2, 4])
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        answers.append(torch.cat([negatives(target, None, 1000)[0].flatten() for _ in range(4)]))
    assert torch.equal(answers[0], answers[1]) and not torch.equal(answers[0], answers[2])


@pytest.mark.parametrize(
    "negatives", [SharedNegatives(), PerSampleNegatives(uniform), PerSampleNegatives(in_batch_targets, count=2)]
)
def test_no_samples_have_no_negatives(negatives):
    items, counts = negatives(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), ITEMS)
    assert items.numel() == counts.numel() == 0 and len(counts) == 0


# The loss


def problem(task=None):
    item = np.array([0, 3, 2, 2, 6, 1])
    samples = Samples(item, np.array([0, 2, 3]), np.array([2, 3, 6]), np.array([5, 1, 4]), np.arange(3))
    batch = session_batch(samples, num_items=ITEMS, task=task, num_tasks=2)
    torch.manual_seed(0)
    features = ItemFeatures(ITEMS, 3, bias=True).double()
    torch.nn.init.normal_(features.item.weight)
    x, table = features(batch["item"].n_id)
    return batch, x[batch["event"].item], table, samples.target


@pytest.mark.parametrize("task", [None, np.array([0, 0, 1])])
@pytest.mark.parametrize("negatives", [SharedNegatives(sampled=4), PerSampleNegatives(uniform, count=3)])
def test_ranking_loss_is_the_plain_loop(negatives, task):
    batch, states, table, target = problem(task)
    torch.manual_seed(5)
    found = RankingLoss(Hinge(), negatives)(Dot(Last(), bias=True), states, batch, table)
    torch.manual_seed(5)
    items, counts = negatives(torch.from_numpy(target), None, ITEMS)
    real = batch["sample"].real.tolist() if task is not None else range(3)
    for row, sample in enumerate(real):
        state = states[int(batch["sample"].last[sample])]

        def score(item, state=state):
            return float((state @ table[item, :3] + table[item, 3]).detach())

        mine = items if items.dim() == 1 else items[row]
        counted = [int(i) for i, c in zip(mine, counts[row], strict=True) if c]
        wanted = [max(0, 1 + score(i) - score(target[row])) for i in counted]
        assert float(found[row].detach()) == pytest.approx(sum(wanted) / len(wanted), abs=1e-12)


@pytest.mark.parametrize("name", RANKING)
def test_ranking_loss_passes_the_user_to_the_sampler(name):
    """A user whose history is the whole catalogue leaves nothing to compare with."""
    batch, states, table, _ = problem()
    log = log_of({"a": [0]})
    negatives = PerSampleNegatives(uniform, count=2)
    negatives.fit_statistics(log)
    batch["sample"].user = torch.full((3,), log.users.ids.tolist().index("many"))
    found = RankingLoss(RANKING[name](), negatives)(Dot(Last(), bias=True), states, batch, table)
    own = torch.stack([states[last] @ table[t, :3] for last, t in zip([1, 2, 5], [5, 1, 4], strict=True)])
    own = own + table[[5, 1, 4], 3]
    wanted = -torch.nn.functional.logsigmoid(own) if name == "binary" else torch.zeros(3, dtype=own.dtype)
    torch.testing.assert_close(found, wanted)
