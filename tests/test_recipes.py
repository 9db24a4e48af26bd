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
from graphmeta.nn import AllPositions, Dot, GatedSessionGraph, ItemFeatures, Last
from graphmeta.nn.losses.sampled import InBatch, Popularity, SampledSoftmaxLoss, Uniform
from graphmeta.published.catalogue import build
from graphmeta.published.fit import fit
from graphmeta.recommender import Recommender
from graphmeta.storage import state_hash
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.recipes import FULL_SOFTMAX, NEGATIVES, TrainingRecipe, adam_without_decay
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

LOG = fake_log(sessions=80)
SPLIT = split_by_time(LOG)
SAMPLED = TrainingRecipe(epochs=2, batch_size=32, optimizer=Adam(1e-2, weight_decay=0.0), negatives=7)


@pytest.mark.parametrize("samples", [1, 900, 70_000, 130_000, 800_000, 10**7])
def test_values_follow_the_size_of_the_log_and_stay_within_bounds(samples):
    found = TrainingRecipe().for_size(samples, 2 * NEGATIVES)
    assert found.epochs is not None and found.batch_size is not None and isinstance(found.optimizer, Adam)
    assert 3 <= found.epochs <= 10 and 64 <= found.batch_size <= 512 and found.negatives == 0
    assert found.optimizer.lr == 2e-3
    assert found.optimizer.weight_decay == 0
    assert found.batch_size in (64, 512) or samples / 1800 < found.batch_size <= samples / 900
    many = TrainingRecipe().for_size(samples, 2 * NEGATIVES + 1)
    rate = 4e-3 if many.batch_size >= 128 else 2e-3
    assert many == replace(found, negatives=NEGATIVES, optimizer=adam_without_decay(rate))


def test_given_values_are_kept_and_the_rate_follows_batch_and_loss():
    given = TrainingRecipe(epochs=2, negatives=100, batch_size=96, patience=3)
    found = given.for_size(10**6, 10**5)
    assert found == replace(given, optimizer=adam_without_decay(3e-3))
    full = replace(given, negatives=0).for_size(10**6, 10**5)
    assert full.optimizer == adam_without_decay(2e-3)
    assert FULL_SOFTMAX.for_size(10, 10) == FULL_SOFTMAX
    steep = adam_without_decay(1.0)
    assert TrainingRecipe(optimizer=steep).filled_from(FULL_SOFTMAX) == replace(FULL_SOFTMAX, optimizer=steep)
    assert TrainingRecipe(epochs=9).filled_from(None) == TrainingRecipe(epochs=9)


def test_the_command_has_both_recipes_by_name():
    assert Recipe.full.of(epochs=None, lr=None) == FULL_SOFTMAX
    assert Recipe.auto.of(epochs=7, lr=0.5) == TrainingRecipe(epochs=7, optimizer=adam_without_decay(0.5))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 1.5}, {"negatives": -1}, {"patience": True}])
def test_wrong_values_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainingRecipe(**wrong)


@pytest.mark.parametrize(
    "name", ["sr_gnn", "niser", "gc_san", "if_san", "gru4rec", "tagnn", "bpr_mf", "maml", "cbml", "multi_ft"]
)
def test_only_a_softmax_over_the_catalogue_is_sampled(name):
    system = build(name, LOG.items, users=LOG.users, width=4)
    own = SAMPLED.loss(system)
    assert (own is not None) == (name not in ("bpr_mf", "cbml"))  # cbml adapts the item table
    assert TrainingRecipe(negatives=0).loss(system) is None


def test_fit_trains_by_the_recipe():
    fitted = fit(SPLIT, "niser", width=4, recipe=SAMPLED)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        system = build("niser", SPLIT.train.items, users=SPLIT.train.users, width=4)
    options = TrainOptions(loss=SampledSoftmaxLoss(Uniform(7)))
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
    recipe = replace(SAMPLED, epochs=10, patience=1, optimizer=adam_without_decay(1e-9))  # nothing improves
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


def test_a_system_trained_at_all_positions_stays_so_with_another_loss(monkeypatch):
    """The sampled softmax is applied at each position, so that gru4rec learns from all clicks."""
    sizes, own = [], SampledSoftmaxLoss.forward

    def counted(self, head, states, batch, candidates):
        losses = own(self, head, states, batch, candidates)
        sizes.append(len(losses))
        return losses

    monkeypatch.setattr(SampledSoftmaxLoss, "forward", counted)
    loss = SampledSoftmaxLoss(Uniform(5))
    list(train(build("gru4rec", LOG.items, width=4), LOG, epochs=1, options=TrainOptions(loss=loss)))
    assert sum(sizes) == LOG.num_events - LOG.num_sessions


def test_a_loss_at_all_positions_needs_a_causal_encoder():
    encoder = GatedSessionGraph(4)
    system = System(Recommender(ItemFeatures(LOG.num_items, 4), encoder, Dot(Last())), LOG.items)
    options = TrainOptions(loss=AllPositions(SampledSoftmaxLoss(Uniform(5))))
    with pytest.raises(InputError, match="causal encoder"):
        list(train(system, LOG, epochs=1, options=options))


def test_positions_without_targets_have_no_loss():
    """Sessions of two clicks have no second successor, so the last batch samples nothing from the batch's targets."""
    short = LOG.select(np.arange(LOG.num_events) - LOG.ptr[:-1].repeat(np.diff(LOG.ptr)) < 2)
    loss = AllPositions(SampledSoftmaxLoss(InBatch()), ahead=2)
    system = build("gru4rec", short.items, users=short.users, width=4)
    (report,) = train(system, short, epochs=1, options=TrainOptions(loss=loss))
    assert math.isfinite(report.loss)


def test_the_notes_are_what_was_trained(tmp_path):
    """A meta-learner trains half the epochs at a tenth of the rate; a re-ranker has its own recipe."""
    notes = fit(SPLIT, "maml", epochs=4, width=4).notes
    assert (notes["epochs"], notes["batch_size"]) == (2, 16) == (len(notes["history"]["maml"]), 16)
    assert notes["of"]["lr"] / notes["by"] == pytest.approx(2e-4)
    notes = fit(SPLIT, "reranker", width=4).notes
    assert (notes["epochs"], notes["batch_size"], notes["lr"], notes["negatives"]) == (4, 100, 1e-2, 0)


WRONG = {
    "batch_size=0": {"batch_size": 0},
    "batch_size='a'": {"batch_size": "a"},
    "epochs=0": {"epochs": 0},
    "epochs=1.5": {"epochs": 1.5},
    "epochs='3'": {"epochs": "3"},
    "seed='x'": {"seed": "x"},
    "seed=4294967296 must be below": {"seed": 2**32},
    "patience=1.5": {"options": TrainOptions(patience=1.5), "valid": SPLIT.valid},
    "patience needs a validation metric": {"options": TrainOptions(patience=1)},
    "options.loss='x' is not a loss": {"options": TrainOptions(loss="x")},
    "options.loss='CrossEntropyLoss()' is not a loss": {"options": TrainOptions(loss=torch.nn.CrossEntropyLoss())},
    "options.progress takes a function": {"options": TrainOptions(progress=True)},
    "options.checkpoint takes a Checkpoint, not a str": {"options": TrainOptions(checkpoint="folder")},
    "options.statistics_log takes a EventLog": {"options": TrainOptions(statistics_log="/tmp/x")},
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_setting_is_refused_before_any_epoch(line):
    system = build("sr_gnn", LOG.items, width=4)
    with pytest.raises(InputError) as refused:
        train(system, LOG, **WRONG[line])
    assert line in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Adam(weight_decay=-1), "weight_decay=-1 must be a number, 0 or more"),
        (lambda: Adam(final=math.nan), "final=nan"),
        (lambda: Adam(warmup="x"), "warmup='x' must be a number, 0 or more and below 1"),
        (lambda: Uniform("a"), "count='a' must be a whole number, 1 or more"),
        (lambda: Popularity("a"), "count='a' must be a whole number, 1 or more"),
        (lambda: Popularity(3, alpha=math.nan), "alpha=nan"),
        (lambda: SampledSoftmaxLoss(4096), "4096 samples no items"),
        (lambda: SampledSoftmaxLoss(Popularity), "samples no items"),
        (lambda: SampledSoftmaxLoss(torch.nn.Linear(1, 1)), "samples no items"),
    ],
)
def test_a_wrong_argument_is_one_line(make, line):
    with pytest.raises(InputError) as refused:
        make()
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_numbers_of_numpy_are_numbers():
    assert Adam(np.float32(0.5)).rate(0.0) == 0.5
    assert TrainingRecipe(epochs=np.int64(3)).epochs == 3


@pytest.mark.parametrize("wrong", [{"rowwise": "yes"}, {"decay_tables": 3}, {"cosine": None}])
def test_switches_of_optimizers_are_checked(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}=.* must be True or False"):
        Adam(**wrong)


def test_a_sampler_is_not_a_loss():
    with pytest.raises(InputError, match=r"options.loss='Uniform.*such as SampledSoftmaxLoss"):
        next(iter(train(build("sr_gnn", LOG.items, width=4), LOG, options=TrainOptions(loss=Uniform(4)))))
