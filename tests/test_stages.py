"""The loop over stages, on losses whose course is known."""

import pytest
import torch
from torch import nn

from graphmeta.errors import DivergedError
from graphmeta.training.optimizers import Sgd
from graphmeta.training.stages import Stage, train_stages


class Number(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start))


def stage(weights: Number, scores: list[float], count: int = 5) -> Stage:
    given = iter(scores)
    return Stage(weights, count, lambda at: (weights.x + 0 * at).square(), lambda: {"mse": next(given)})


def test_stages_follow_each_other_and_each_ends_with_its_best_epoch() -> None:
    one, two = Number(1.0), Number(1.0)
    stages = [stage(one, [3, 2, 4, 5, 9]), stage(two, [1, 1, 1, 9])]
    told = list(train_stages(stages, epochs=9, optimizer=Sgd(lr=0.25), batch_size=5, patience=2))
    assert [report.epoch for report in told] == [0, 1, 2, 3, 0, 1, 2]
    assert [report.best for report in told] == [True, True, False, False, True, False, False]
    assert float(one.x.detach()) == 0.25 and float(two.x.detach()) == 0.5  # x <- x - lr 2x, twice and once
    assert told[0].loss == 1.0 and told[1].loss == 0.25


def test_batches_cover_the_rows_once_and_depend_on_seed_and_epoch_alone() -> None:
    def seen(seed: int) -> list[list[int]]:
        weights, rows = Number(1.0), []

        def losses(at: torch.Tensor) -> torch.Tensor:
            rows.append(at.tolist())
            return weights.x + 0 * at

        list(train_stages([Stage(weights, 7, losses, lambda: {"mse": 1.0})], epochs=2, batch_size=3, seed=seed))
        return rows

    torch.manual_seed(5)
    first = seen(0)
    torch.manual_seed(6)
    assert first == seen(0) != seen(1)
    assert sorted(sum(first[:3], [])) == sorted(sum(first[3:], [])) == list(range(7)) and first[:3] != first[3:]


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    with pytest.raises(DivergedError, match="lower the learning rate"):
        list(train_stages([stage(Number(float("nan")), [1])]))


def test_a_weight_that_the_last_step_breaks_ends_the_training() -> None:
    with pytest.raises(DivergedError, match="epoch 1: x is not finite"):
        list(train_stages([stage(Number(10.0), [1])], epochs=1, optimizer=Sgd(lr=1e38)))
