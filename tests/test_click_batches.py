"""Token-budget batches: their samples and clicks, the learning rate that follows them, and trainings that resume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.accuracy import parser, trained_by
from graphmeta.cli.commands import Recipe, TrainingOptions
from graphmeta.cli.options import Limits
from graphmeta.data.splits import split_by_time
from graphmeta.errors import InputError
from graphmeta.published.catalogue import build
from graphmeta.published.fit import fit
from graphmeta.sampling.order import Shuffled, TaskSampler, user_parallel
from graphmeta.sampling.tasks import task_sizes
from graphmeta.storage import state_hash
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam, Factory, Optimizer, Sgd
from graphmeta.training.recipes import FULL_SOFTMAX, TrainingRecipe
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

LOG = fake_log(sessions=60, length=9)


def filled(clicks: list[int], budget: int, **options: Any) -> list[list[int]]:
    sampler = Shuffled(options.pop("pool", 1))
    return [rows.tolist() for rows in sampler.by_clicks(np.array(clicks), budget=budget, **options)]


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 60), st.sampled_from([1, 3]), st.integers(0, 5))
def test_every_sample_occurs_once_and_the_budget_is_kept(clicks: list[int], budget: int, pool: int, epoch: int) -> None:
    batches = filled(clicks, budget, pool=pool, seed=1, epoch=epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(clicks)))
    for batch in batches:
        assert len(batch) == 1 or sum(max(clicks[row], 1) for row in batch) <= budget


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80), st.integers(1, 60), st.integers(0, 5))
def test_batches_are_full_and_in_the_order_of_batches_of_samples(clicks: list[int], budget: int, epoch: int) -> None:
    batches = filled(clicks, budget, seed=2, epoch=epoch)
    for batch, following in zip(batches, batches[1:], strict=False):
        assert sum(clicks[row] for row in [*batch, following[0]]) > budget
    order = [row for rows in TaskSampler(7, seed=2).epoch(np.array(clicks), epoch) for row in rows.tolist()]
    assert [row for batch in batches for row in batch] == order


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    clicks = list(range(1, 60))
    found = {str(filled(clicks, 90, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1) for _ in range(2)}
    assert len(found) == 4


def test_a_pool_groups_samples_of_similar_size() -> None:
    clicks = np.random.default_rng(0).integers(1, 40, 500)
    batches = list(Shuffled(bucket_batches=50).by_clicks(clicks, budget=100, seed=0, epoch=0))
    spread = [int(np.ptp(clicks[rows])) for rows in batches]
    assert np.mean(spread) < 5 < np.mean([int(np.ptp(clicks[rows])) for rows in Shuffled().by_clicks(
        clicks, budget=100, seed=0, epoch=0)])  # fmt: skip


def test_clicks_of_tasks_are_those_of_support_and_query() -> None:
    plain, meta = build("sr_gnn", LOG.items, width=4), build("maml", LOG.items, width=4)
    samples = plain.training_samples(LOG)
    assert np.array_equal(plain.clicks(samples), samples.query.end - samples.query.begin)
    tasks = meta.training_samples(LOG)
    assert np.array_equal(meta.clicks(tasks), task_sizes(tasks, meta.max_support).rows)
    assert (meta.clicks(tasks) > tasks.query.lengths).all()


@dataclass(frozen=True)
class Recording:
    """Gradient descent at a rate that halves over the training; records the rate of each step."""

    rates: list[list[float]] = field(default_factory=list)

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        built = torch.optim.SGD(parameters, lr=1.0)
        built.register_step_pre_hook(lambda optimizer, *_: self.rates.append([g["lr"] for g in optimizer.param_groups]))
        return built

    def rate(self, progress: float) -> float:
        return 1e-3 * (1 - progress / 2)


def built_sr_gnn() -> System:
    torch.manual_seed(0)
    return build("sr_gnn", LOG.items, width=6)


def test_the_rate_of_a_step_follows_its_batch_after_the_schedule() -> None:
    recording, system, seen = Recording(), built_sr_gnn(), []

    def note(batches: Iterable[Any]) -> Iterable[Any]:
        seen.append([len(batch) for batch in batches])
        return batches

    options = TrainOptions(clicks=40, progress=note)
    list(train(system, LOG, epochs=2, optimizer=recording, options=options))
    assert len(set(seen[0])) > 1 and sum(seen[0]) == len(system.training_samples(LOG))
    expected = [
        recording.rate((epoch + number / len(sizes)) / 2) * size / np.mean(sizes)
        for epoch, sizes in enumerate(seen)
        for number, size in enumerate(sizes)
    ]
    assert [rate for (rate,) in recording.rates] == pytest.approx(expected, rel=1e-12)


def test_the_own_rate_of_a_factory_follows_too_and_is_kept_between_steps() -> None:
    made: list[torch.optim.Optimizer] = []
    rates: list[float] = []

    def factory(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        first, *others = parameters
        groups: list[dict[str, Any]] = [{"params": [first]}, {"params": others, "lr": 2e-3}]
        made.append(torch.optim.SGD(groups, lr=1e-3))
        made[0].register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[1]["lr"]))
        return made[0]

    list(train(built_sr_gnn(), LOG, epochs=1, optimizer=factory, options=TrainOptions(clicks=40)))
    assert len(set(rates)) > 1 and np.mean(rates) == pytest.approx(2e-3)
    assert [group["lr"] for group in made[0].param_groups] == [1e-3, 2e-3]


def test_steps_weigh_samples_equally() -> None:
    """One epoch of gradient descent at a tiny rate is one step along the mean gradient, whatever the batches."""

    def moved(**options: Any) -> Tensor:
        system = built_sr_gnn().double()
        before = torch.cat([weight.detach().flatten().clone() for weight in system.parameters()])
        size = len(system.training_samples(LOG))
        steps: list[int] = []
        chosen = TrainOptions(progress=lambda batches: steps.append(len(list(batches))) or batches, **options)
        list(train(system, LOG, epochs=1, batch_size=size, optimizer=Sgd(lr=1e-6), options=chosen))
        change = torch.cat([weight.detach().flatten() for weight in system.parameters()]) - before
        return change / steps[0]

    torch.testing.assert_close(moved(clicks=40), moved(), rtol=1e-3, atol=1e-11)


@pytest.mark.parametrize("name", ["sr_gnn", "maml"])
def test_the_loss_of_an_epoch_is_the_mean_over_samples(name: str) -> None:
    """At rate 0 the loss of an epoch does not depend on its batches."""

    def loss(**options: Any) -> float:
        torch.manual_seed(0)
        system = build(name, LOG.items, width=6)
        still = Adam(0.0, weight_decay=0.0)
        (report,) = train(system, LOG, epochs=1, optimizer=still, options=TrainOptions(**options))
        return report.loss

    assert loss(clicks=50) == pytest.approx(loss(), rel=1e-5)


def trained(name: str, clicks: int | None, folder: Path | None = None, *, epochs: int = 3, resume: bool = False) -> str:
    torch.manual_seed(0)
    system = build(name, LOG.items, users=LOG.users, width=6)
    checkpoint = None if folder is None else Checkpoint(folder, resume)
    optimizer: Optimizer | Factory = Adam(1e-2, warmup=0.2)
    options = TrainOptions(clicks=clicks, checkpoint=checkpoint)
    reports = train(system, LOG, epochs=3, optimizer=optimizer, seed=5, options=options)
    for _ in range(epochs):
        next(reports)
    return state_hash(system)


@pytest.mark.parametrize(
    "name", ["sr_gnn", "gru4rec", *(pytest.param(name, marks=pytest.mark.slow) for name in ("maml", "cbml"))]
)
def test_the_same_seed_gives_the_same_weights_and_resumes(name: str, tmp_path: Path) -> None:
    whole = trained(name, 60)
    assert trained(name, 60) == whole != trained(name, 200)
    trained(name, 60, tmp_path, epochs=1)
    assert trained(name, 60, tmp_path, resume=True) == whole
    with pytest.raises(InputError, match="different: clicks"):
        trained(name, None, tmp_path, resume=True)


def test_a_system_with_a_batch_sampler_of_its_own_is_refused() -> None:
    system = built_sr_gnn()
    system.batches = user_parallel
    with pytest.raises(InputError, match="options.clicks needs a batch sampler.*Shuffled"):
        next(train(system, LOG, options=TrainOptions(clicks=50)))
    system.batches = Shuffled()
    assert next(train(system, LOG, options=TrainOptions(clicks=50))).epoch == 0


@pytest.mark.parametrize("clicks", [0, 1.5, True, "8"])
def test_a_wrong_number_of_clicks_is_named(clicks: Any) -> None:
    with pytest.raises(InputError, match=r"clicks=.*whole number, 1 or more"):
        train(built_sr_gnn(), LOG, options=TrainOptions(clicks=clicks))
    with pytest.raises(InputError, match=r"clicks=.*whole number, 1 or more"):
        TrainingRecipe(clicks=clicks)


@pytest.mark.parametrize("name", ["sr_gnn", "maml"])
def test_fit_takes_clicks_from_its_recipe(name: str) -> None:
    split, recipe = split_by_time(LOG), TrainingRecipe(epochs=2, clicks=64)
    system = fit(split, name, width=4, recipe=recipe)
    assert system.notes["clicks"] == 64
    assert state_hash(system) != state_hash(fit(split, name, width=4, epochs=2))
    assert recipe.for_size(100, 100).clicks == 64 and TrainingRecipe().for_size(100, 100).clicks is None


def test_a_system_that_sums_losses_keeps_its_rate() -> None:
    """The gradient of a sum already follows the number of samples."""
    recording, system = Recording(), built_sr_gnn()
    system.sums_losses = True
    list(train(system, LOG, epochs=1, optimizer=recording, options=TrainOptions(clicks=40)))
    assert max(rate for (rate,) in recording.rates) == 1e-3


def test_the_commands_take_clicks() -> None:
    plan = TrainingOptions(clicks=300, recipe=Recipe.full).plan(Limits(), users=False)
    assert plan.recipe == replace(FULL_SOFTMAX, clicks=300, refit=True)
    given = ["complete_journey", "sr_gnn", "--clicks", "300"]
    for options in (given, [*given, "--recipe"]):
        assert trained_by(parser().parse_args(options), built_sr_gnn(), LOG).clicks == 300
