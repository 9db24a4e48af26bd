"""Weight decay: embedding tables are left out by default, and the full recipe trains as it always did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphmeta.cli.commands import Recipe
from graphmeta.nn.features.tables import Table, table_weights
from graphmeta.published.catalogue import build
from graphmeta.retrain.transfer import PersistentOptimizer
from graphmeta.storage import state_hash
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import (
    Adagrad,
    Adam,
    DividedRate,
    FromFactory,
    Optimizer,
    Scheduled,
    Sgd,
    optimizer_of,
    set_rate,
)
from graphmeta.training.recipes import FULL_OPTIMIZER
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

LOG = fake_log(sessions=60)
KINDS = [Adam, Adagrad, Sgd]


class Model(nn.Module):
    """A table of the library, an ``nn.Embedding`` and a layer, all of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer = Table(5, 3), nn.Linear(3, 5, bias=False)
        self.second = nn.Embedding(5, 3)


def moved(optimizer: Optimizer) -> dict[str, bool]:
    """Which weights one step without gradients changes: only weight decay can."""
    model = Model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer_of(optimizer, model).step()
    return {name: not torch.equal(before[name], weight) for name, weight in model.state_dict().items()}


def wrapped(optimizer: Optimizer) -> list[Optimizer]:
    return [optimizer, DividedRate(optimizer, by=3), PersistentOptimizer(optimizer)]


TABLES, ALL = {"first.weight", "second.weight"}, {"first.weight", "second.weight", "layer.weight"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", range(3))
def test_tables_are_decayed_only_as_an_option(kind: type[Scheduled], place: int) -> None:
    def decayed(**options: bool) -> set[str]:
        optimizer = wrapped(kind(weight_decay=0.1, **options))[place]
        return {name for name, has_moved in moved(optimizer).items() if has_moved}

    assert decayed() == ALL - TABLES
    assert decayed(decay_tables=True) == ALL


def test_a_factory_of_the_user_decays_what_it_decays() -> None:
    assert all(moved(FromFactory(partial(torch.optim.AdamW, weight_decay=0.1))).values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_moves_tables_as_it_moves_layers(kind: type[Scheduled]) -> None:
    """Same values, same gradients: only decay may make a difference."""
    model = Model()
    value, slope = torch.randn(5, 3), torch.randn(5, 3)
    for weight in model.parameters():
        weight.data, weight.grad = value.clone(), slope.clone()
    optimizer_of(kind(weight_decay=1e-12), model).step()
    assert torch.equal(model.first.weight, model.second.weight)
    torch.testing.assert_close(model.layer.weight, model.first.weight)
    assert not torch.equal(model.first.weight, value)


def test_the_rate_of_all_groups_follows_the_schedule() -> None:
    built = optimizer_of(DividedRate(Adam(lr=1.0), by=4), Model())
    assert [group["lr"] for group in built.param_groups] == [0.25, 0.25]
    set_rate(built, Adam(lr=1.0, final=0.5), 1.0)
    assert [group["lr"] for group in built.param_groups] == [0.5, 0.5]


def test_a_shared_table_is_found_once_and_a_model_of_tables_alone_is_trained() -> None:
    model = nn.ModuleDict({"a": Table(4, 2), "b": nn.Embedding(4, 2)})
    model["again"] = model["a"]
    assert {id(weight) for weight in table_weights(model)} == {id(weight) for weight in model.parameters()}
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    before = state_hash(model)
    optimizer_of(Adam(), model).step()
    assert state_hash(model) != before


@dataclass(frozen=True)
class AsBefore:
    """The optimizer of version 0.1: fused Adam with one group of all parameters, and its linear decay."""

    lr: float
    weight_decay: float

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def rate(self, progress: float) -> float:
        return self.lr * (1 - (1 - 0.05) * progress)


def weights(name: str, optimizer: Optimizer, **options: Any) -> str:
    torch.manual_seed(0)
    system = build(name, LOG.items, users=LOG.users, width=6)
    list(train(system, LOG, epochs=2, batch_size=30, optimizer=optimizer, options=TrainOptions(**options)))
    return state_hash(system)


@pytest.mark.parametrize("name", ["sr_gnn", "cbml"])
def test_the_full_recipe_has_the_weights_of_before(name: str) -> None:
    assert weights(name, FULL_OPTIMIZER) == weights(name, AsBefore(3e-3, 1e-6))
    assert weights(name, FULL_OPTIMIZER) != weights(name, Adam(3e-3, weight_decay=1e-6))
    assert Recipe.full.of(lr=0.5).optimizer == Adam(0.5, weight_decay=1e-6, decay_tables=True)


def test_without_weight_decay_nothing_changed() -> None:
    assert weights("sr_gnn", Adam(3e-3, weight_decay=0.0)) == weights("sr_gnn", AsBefore(3e-3, 0.0))


def test_two_groups_resume_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = build("sr_gnn", LOG.items, width=6)
    optimizer = Adam(1e-2, weight_decay=1e-3)
    next(train(system, LOG, epochs=2, batch_size=30, optimizer=optimizer, options=TrainOptions(
        checkpoint=Checkpoint(tmp_path))))  # fmt: skip
    assert weights("sr_gnn", optimizer, checkpoint=Checkpoint(tmp_path, resume=True)) == weights("sr_gnn", optimizer)
