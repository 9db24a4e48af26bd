"""Training recipes: values that follow the log, and what a training makes of them."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from graphmeta.cli.commands import Recipe
from graphmeta.data.splits import split_by_time
from graphmeta.errors import InputError
from graphmeta.nn.losses.sampled import InBatch, Popularity, SampledSoftmaxLoss
from graphmeta.protocols import PositionLoss
from graphmeta.published.catalogue import build
from graphmeta.published.fit import fit
from graphmeta.storage import state_hash
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.recipes import FULL_SOFTMAX, NEGATIVES, TrainingRecipe, adam
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

LOG = fake_log(sessions=80)
SPLIT = split_by_time(LOG)
SAMPLED = TrainingRecipe(epochs=2, batch_size=32, optimizer=Adam(1e-2, weight_decay=0.0), negatives=7)


class Size:
    """A log of this size."""

    def __init__(self, samples: int, items: int) -> None:
        self.num_events, self.num_sessions, self.num_items = samples + 10, 10, items


@pytest.mark.parametrize("samples", [1, 900, 70_000, 130_000, 800_000, 10**7])
def test_values_follow_the_size_of_the_log_and_stay_within_bounds(samples):
    found = TrainingRecipe().for_log(Size(samples, 2 * NEGATIVES))  # pyright: ignore[reportArgumentType]
    assert found.epochs is not None and found.batch_size is not None and isinstance(found.optimizer, Adam)
    assert 3 <= found.epochs <= 10 and 64 <= found.batch_size <= 512 and found.negatives == 0
    assert found.optimizer.lr == pytest.approx(4e-3 * min(found.batch_size / 128, 1))
    assert found.optimizer.weight_decay == 0
    assert found.batch_size in (64, 512) or samples / 2000 < found.batch_size <= samples / 1000
    many = TrainingRecipe().for_log(Size(samples, 2 * NEGATIVES + 1))  # pyright: ignore[reportArgumentType]
    assert many == replace(found, negatives=NEGATIVES)


def test_given_values_are_kept_and_the_rate_follows_the_batch():
    given = TrainingRecipe(epochs=2, negatives=0, batch_size=96, patience=3)
    found = given.for_log(Size(10**6, 10**5))  # pyright: ignore[reportArgumentType]
    assert found == replace(given, optimizer=adam(3e-3))
    assert FULL_SOFTMAX.for_log(LOG) == FULL_SOFTMAX
    assert TrainingRecipe(optimizer=adam(1.0)).over(FULL_SOFTMAX) == replace(FULL_SOFTMAX, optimizer=adam(1.0))
    assert TrainingRecipe(epochs=9).over(None) == TrainingRecipe(epochs=9)


def test_the_command_has_both_recipes_by_name():
    assert Recipe.full.of(epochs=None, lr=None) == FULL_SOFTMAX
    assert Recipe.sized.of(epochs=7, lr=0.5) == TrainingRecipe(epochs=7, optimizer=adam(0.5))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 1.5}, {"negatives": -1}, {"patience": True}])
def test_wrong_values_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainingRecipe(**wrong)


@pytest.mark.parametrize("name", ["sr_gnn", "niser", "gc_san", "if_san", "gru4rec", "tagnn", "bpr_mf", "maml", "cbml"])
def test_only_the_softmax_over_products_is_sampled(name):
    system = build(name, LOG.items, users=LOG.users, width=4)
    own = SAMPLED.loss(system)
    assert (own is not None) == (name in ("sr_gnn", "niser", "gc_san", "if_san", "gru4rec"))
    assert own is None or isinstance(own, PositionLoss) == isinstance(system.loss, PositionLoss)
    assert TrainingRecipe(negatives=0).loss(system) is None


def test_fit_trains_by_the_recipe():
    fitted = fit(SPLIT, "niser", width=4, recipe=SAMPLED)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        system = build("niser", SPLIT.train.items, users=SPLIT.train.users, width=4)
    options = TrainOptions(loss=SampledSoftmaxLoss(Popularity(7)))
    list(train(system, SPLIT, epochs=2, optimizer=Adam(1e-2, weight_decay=0.0), batch_size=32, options=options))
    assert state_hash(fitted) == state_hash(system)
    assert {key: fitted.notes[key] for key in ("epochs", "batch_size", "lr", "negatives")} == {
        "epochs": 2, "batch_size": 32, "lr": 1e-2, "negatives": 7
    }  # fmt: skip


@pytest.mark.parametrize("name", ["niser", "gc_san"])
def test_a_training_with_another_loss_resumes_bit_for_bit(name, tmp_path):
    loss = SampledSoftmaxLoss(Popularity(5, alpha=0.5), InBatch())

    def run(folder, epochs, resume=False, loss=loss):
        torch.manual_seed(0)
        system = build(name, LOG.items, users=LOG.users, width=4)
        options = TrainOptions(checkpoint=Checkpoint(folder, resume), loss=loss)
        reports = train(system, LOG, epochs=3, batch_size=16, valid=SPLIT.valid, options=options)
        for _ in range(epochs):
            next(reports)
        return state_hash(system)

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "part", 1)
    assert run(tmp_path / "part", 3, resume=True) == whole
    with pytest.raises(InputError, match="different: loss"):
        run(tmp_path / "part", 1, resume=True, loss=None)


def test_early_stopping_needs_validation_and_ends_a_training():
    recipe = replace(SAMPLED, epochs=10, patience=1, optimizer=adam(1e-9))  # nothing improves
    assert len(fit(SPLIT, "niser", width=4, recipe=recipe).notes["history"]["niser"]) < 10
    without = replace(SPLIT, valid=SPLIT.valid.select(np.zeros(SPLIT.valid.num_events, dtype=bool)))
    assert len(fit(without, "niser", width=4, recipe=recipe).notes["history"]["niser"]) == 10


def test_the_rate_warms_up_and_decays():
    rate = Adam(1.0, warmup=0.25, final=0.2).rate
    assert [rate(at) for at in (0.125, 0.25, 0.625, 1.0)] == pytest.approx([0.5, 1.0, 0.6, 0.2])
    assert 0 < rate(0.0) < 0.05  # the first step moves
    cosine = Adam(1.0, final=0.0, cosine=True).rate
    third = (1 + math.cos(math.pi / 3)) / 2
    assert [cosine(at) for at in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx([1.0, third, 0.5, 0.0])
    with pytest.raises(InputError, match="warmup=1"):
        partial(Adam, warmup=1.0)()
