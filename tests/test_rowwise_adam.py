"""Row-wise Adam: its formula, the size of its state, and trainings that resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphmeta.nn.features.tables import Table
from graphmeta.published.catalogue import build
from graphmeta.storage import state_hash
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam, DividedRate, Optimizer, optimizer_of, set_rate
from graphmeta.training.rowwise_adam import RowwiseAdam
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

LOG = fake_log(sessions=60)


class Model(nn.Module):
    """Two tables and two other parameters."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.item, self.layer, self.place = Table(6, width), nn.Linear(width, 3), nn.Embedding(5, width)


def pairs(model: nn.Module, other: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return list(zip(model.parameters(), other.parameters(), strict=True))


def stepped(optimizers: tuple[Optimizer, Optimizer], width: int, steps: int = 5) -> tuple[Model, Model]:
    """Two equal models after the same gradients; every other row of a gradient is zero, as outside a batch."""
    torch.manual_seed(0)
    models = Model(width), Model(width)
    models[1].load_state_dict(models[0].state_dict())
    built = [optimizer_of(optimizer, model) for optimizer, model in zip(optimizers, models, strict=True)]
    for step in range(steps):
        for one, other in pairs(*models):
            one.grad = torch.randn_like(one)
            one.grad[step % 2 :: 2] = 0
            other.grad = one.grad.clone()
        for part, optimizer in zip(built, optimizers, strict=True):
            set_rate(part, optimizer, step / steps)
            part.step()
    return models


def slow(table: list[list[float]], gradients: list[list[list[float]]], rates: list[float], decay: float) -> None:
    """The formula, entry by entry, in place."""
    m, v = [[0.0] * len(row) for row in table], [0.0] * len(table)
    for t, (gradient, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        for r, row in enumerate(table):
            g = [value + decay * weight for value, weight in zip(gradient[r], row, strict=True)]
            v[r] = 0.999 * v[r] + 0.001 * sum(value**2 for value in g) / len(g)
            for j, value in enumerate(g):
                m[r][j] = 0.9 * m[r][j] + 0.1 * value
                row[j] -= lr * (m[r][j] / (1 - 0.9**t)) / (math.sqrt(v[r] / (1 - 0.999**t)) + 1e-8)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_table_follows_the_formula(decay: float) -> None:
    torch.manual_seed(1)
    model, optimizer = nn.Embedding(4, 3).double(), Adam(0.1, decay, rowwise=True, decay_tables=True)
    gradients = [torch.randn(4, 3).double() * (torch.rand(4, 1) < 0.6) for _ in range(9)]
    expected, rates = model.weight.tolist(), [optimizer.rate(step / 9) for step in range(9)]
    slow(expected, [gradient.tolist() for gradient in gradients], rates, decay)
    built = optimizer_of(optimizer, model)
    for gradient, step in zip(gradients, range(9), strict=True):
        set_rate(built, optimizer, step / 9)
        model.weight.grad = gradient
        built.step()
    torch.testing.assert_close(
        model.weight.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


def test_other_parameters_are_those_of_adam_bit_for_bit() -> None:
    one, other = stepped((Adam(0.1, 0.2, rowwise=True), Adam(0.1, 0.2)), width=4)
    assert torch.equal(one.layer.weight, other.layer.weight) and torch.equal(one.layer.bias, other.layer.bias)
    assert not torch.equal(one.item.weight, other.item.weight)
    assert not torch.equal(one.place.weight, other.place.weight)


@pytest.mark.parametrize("options", [{}, {"decay_tables": True}, {"warmup": 0.5, "cosine": True}])
def test_a_table_of_width_one_is_adams(options: dict[str, Any]) -> None:
    for one, other in pairs(*stepped((Adam(0.1, 0.2, rowwise=True, **options), Adam(0.1, 0.2, **options)), width=1)):
        torch.testing.assert_close(one, other)


def test_a_row_has_one_step_size_and_rows_are_independent() -> None:
    """At the first step, the change of a row is its gradient over the root of its mean square."""
    model = nn.Embedding(3, 4)
    before, gradient = model.weight.detach().clone(), torch.randn(3, 4) * torch.tensor([[1.0], [100.0], [0.0]])
    model.weight.grad = gradient
    optimizer_of(Adam(0.1, 0.0, rowwise=True), model).step()
    size = gradient.square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(before - model.weight.detach(), 0.1 * gradient / (size + 1e-8))


def elements(optimizer: torch.optim.Optimizer, weight: Tensor) -> int:
    return sum(part.numel() for part in optimizer.state[weight].values())


@pytest.mark.parametrize(("rows", "width"), [(1000, 100), (7, 1)])
def test_the_state_has_one_second_moment_per_row(rows: int, width: int) -> None:
    table = nn.Embedding(rows, width)
    table.weight.grad = torch.zeros_like(table.weight)
    for rowwise, expected in ((True, rows * (width + 1) + 1), (False, 2 * rows * width + 1)):
        built = optimizer_of(Adam(rowwise=rowwise), table)
        built.step()
        assert elements(built, table.weight) == expected


def test_parameters_without_gradients_and_frozen_tables_are_left_as_they_are() -> None:
    model = Model()
    model.place.weight.requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.layer(model.item(torch.tensor([1, 2]))).sum().backward()
    model.layer.bias.grad = None
    built = optimizer_of(Adam(0.1, 0.5, rowwise=True, decay_tables=True), model)
    built.step()
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved == {"item.weight", "layer.weight"} and len(built.state) == 2


def trained(name: str, folder: Path | None, epochs: int, *, resume: bool = False) -> str:
    torch.manual_seed(0)
    system = build(name, LOG.items, users=LOG.users, width=6)
    optimizer = DividedRate(Adam(5e-2, 1e-3, warmup=0.1, cosine=True, rowwise=True), by=2)
    options = TrainOptions(checkpoint=None if folder is None else Checkpoint(folder, resume))
    reports = train(system, LOG, epochs=3, batch_size=30, optimizer=optimizer, options=options)
    losses = [next(reports).loss for _ in range(epochs)]
    assert epochs == 1 or losses[-1] < losses[0]
    return state_hash(system)


@pytest.mark.parametrize("name", ["sr_gnn", "maml"])
def test_a_training_learns_and_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    trained(name, tmp_path, 1)
    assert trained(name, tmp_path, 3, resume=True) == trained(name, None, 3)


def test_a_closure_is_evaluated_with_gradients() -> None:
    model = nn.Embedding(2, 2)

    def closure() -> Tensor:
        loss = model.weight.square().sum()
        loss.backward()
        return loss

    before = model.weight.detach().clone()
    built = RowwiseAdam([{"params": list(model.parameters()), "rowwise": True, "fused": False}])
    assert float(built.step(closure).detach()) == pytest.approx(float(before.square().sum()))
    assert (model.weight.detach().abs() < before.abs()).all()
