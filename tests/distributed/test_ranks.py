"""Two ranks train as one does: weights, memories, statistics, order, negatives, evaluation, checkpoints."""

import os
import signal
import time
import warnings
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from graphmeta.distributed import current
from graphmeta.distributed.gradients import own_part
from graphmeta.distributed.group import Alone
from graphmeta.errors import InputError, LostProcess
from graphmeta.nn.features.sharded import shard_items, whole_items
from graphmeta.nn.losses.sampled import InBatch, Popularity, SampledSoftmaxLoss, Uniform
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.fit import fit
from graphmeta.testing import fake_log, fake_ratings
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions
from tests.distributed.ranks import ranks

LOG = fake_log(sessions=41, items=23, length=7)
RATINGS = fake_ratings(users=24)
BASE = {"base": "sr_gnn"}  # no dropout, whose noise differs by rank
# The catalogue's name, options, and settings of the training.
CASES = {
    "sr_gnn": ("sr_gnn", {}, {}),
    "sampled softmax": ("sr_gnn", {}, {"loss": SampledSoftmaxLoss(Uniform(9), Popularity(5), InBatch())}),
    "cosine": ("niser", {"dropout": 0.0}, {}),
    "clicks": ("sr_gnn", {}, {"clicks": 30}),
    "in-batch negatives": ("gru4rec", {"dropout": 0.0}, {}),
    "cbml": ("cbml", BASE, {}),
    "maml": ("maml", BASE, {}),
    "second-order maml": ("maml", {**BASE, "order": 2}, {}),
    "melu": ("melu", BASE, {}),
    "mamo": ("mamo", BASE, {}),
    "users as tasks": ("maml", {**BASE, "anchor": "user"}, {}),
    "unseen negatives": ("meta_cf_g", {}, {}),
    "mamo of ratings": ("mamo_rating", {}, {}),
}


def trained(case, *, sharded=False, epochs=2, **more):
    """Weights and buffers after about 20 steps in 64 bits, losses, and validation metrics."""
    name, options, settings = CASES[case]
    log = RATINGS if CATALOGUE[name].predicts_ratings else LOG
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    system = build(name, log.items, users=log.users, width=6, **options)
    if sharded:
        shard_items(system.recommender.features, system.num_items, current())
    valid = None if CATALOGUE[name].predicts_ratings else log
    size = 4 if system.episodic else 12  # the last batch has one sample, fewer than ranks
    settings = TrainOptions(**settings, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = train(system, log, epochs=2, batch_size=size, valid=valid, optimizer=Adam(lr=1e-2), options=settings)
        reports = list(islice(made, epochs))
    torch.set_default_dtype(torch.float32)
    whole_items(system)
    found = {name: tensor.clone() for name, tensor in system.state_dict().items()}
    return found, [report.loss for report in reports], [report.valid for report in reports]


def difference(one, other):
    """The largest difference of two states."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one if one[name].numel())


QUICK = ["mamo"]
SHARDED = ["sr_gnn", "sampled softmax", "cosine", "in-batch negatives"]


@pytest.mark.slow
@pytest.mark.parametrize("case", SHARDED)
@pytest.mark.parametrize("size", [2, 3])
def test_a_sharded_item_table_is_exact(case, size, tmp_path):
    alone, losses, valid = trained(case)
    (first, *found), *others = ranks(size, tmp_path, partial(trained, case, sharded=True))
    assert all(difference(first, other) == 0 for other, *_ in others)
    assert difference(alone, first) < 1e-10
    assert losses == pytest.approx(found[0], rel=1e-10)
    assert valid == found[1]


@pytest.mark.parametrize("case", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in CASES])
def test_two_ranks_train_as_one(case, tmp_path):
    alone, losses, valid = trained(case)
    (first, *found), (second, *again) = ranks(2, tmp_path, partial(trained, case))
    assert difference(first, second) == 0
    assert difference(alone, first) < 1e-10
    assert losses == pytest.approx(found[0], rel=1e-10)
    assert valid == found[1] and found == again


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sr_gnn", "mamo"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_checkpoint_resumes_in_any_number_of_processes(case, before, after, sharded, tmp_path):
    if sharded and case == "mamo":
        pytest.skip("a system that adapts has no shards")
    whole, *_ = trained(case)
    folder = tmp_path / "checkpoint"
    ranks(before, tmp_path, partial(trained, case, sharded=sharded, epochs=1, checkpoint=Checkpoint(folder)))
    resumed = ranks(after, tmp_path, partial(trained, case, sharded=sharded, checkpoint=Checkpoint(folder, True)))
    assert all(difference(whole, state) < 1e-10 for state, *_ in resumed)
    assert [len(losses) for _, losses, _ in resumed] == [2] * after


def lost(folder):
    """Train two epochs; rank 1 is killed in the second, and rank 0 has a LostProcess."""
    steps = []

    def progress(batches):
        for batch in batches:
            steps.append(batch)
            if current().rank == 1 and len(steps) == len(batches) + 5:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    begin = time.monotonic()
    try:
        trained("sr_gnn", checkpoint=Checkpoint(folder), progress=progress)
    except LostProcess as error:
        return [str(error), str(time.monotonic() - begin)]


@pytest.mark.slow
def test_the_end_of_a_rank_ends_the_others_with_an_intact_checkpoint(tmp_path):
    with pytest.raises(AssertionError):
        ranks(2, tmp_path, partial(lost, tmp_path / "checkpoint"))
    message, _ = torch.load(tmp_path / "result-0.pt", weights_only=True)
    assert message.startswith("another process of this training has ended") and "\n" not in message
    resumed, losses, _ = trained("sr_gnn", checkpoint=Checkpoint(tmp_path / "checkpoint", True))
    assert difference(resumed, trained("sr_gnn")[0]) < 1e-10 and len(losses) == 2


class Counter(torch.nn.Module):
    """A part that writes what its own rank has seen."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def update_after_step(self):
        self.seen += 1 + current().rank


def with_counter():
    system = build("sr_gnn", LOG.items, width=4)
    system.recommender.counter = Counter()
    list(train(system, LOG, epochs=1, batch_size=50))


@pytest.mark.slow
def test_ranks_that_differ_are_reported(tmp_path):
    with pytest.raises(AssertionError, match="after epoch 1, ranks differ in recommender.counter.seen; what a part"):
        ranks(2, tmp_path, with_counter)


def on_other_samples():
    log = fake_log(sessions=20 + current().rank)
    list(train(build("sr_gnn", log.items, width=4), log, epochs=1))


@pytest.mark.slow
def test_ranks_with_other_samples_are_reported(tmp_path):
    with pytest.raises(AssertionError, match="the ranks have different training samples"):
        ranks(2, tmp_path, on_other_samples)


def test_without_torchrun_fit_refuses_to_be_distributed():
    with pytest.raises(InputError, match="run it as torchrun --nproc-per-node 2 script.py"):
        fit(LOG, "sr_gnn", distributed=True)


def test_systems_that_cannot_be_sharded_are_refused_before_training():
    for name in ("cbml", "personal_reranker"):
        with pytest.raises(InputError, match="cannot be trained with shard_items"):
            fit(LOG, name, shard_items=True)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_the_parts_of_a_batch_are_the_batch(size, rows):
    group = type("Ranks", (Alone,), {"size": size})
    parts = [own_part(type("Rank", (group,), {"rank": rank})(), np.arange(rows)) for rank in range(size)]
    counting = [part for part, sharing in parts if sharing.weight]
    assert np.concatenate(counting).tolist() == list(range(rows))
    assert all(len(part) for part, _ in parts)
