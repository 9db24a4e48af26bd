"""Checks of an encoder under adaptation: the stacked engine agrees with the per-task loop, for any number of tasks and
threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.engine import Call
from graphmeta.adapt.step import Gradient
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Mean
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import Samples
from graphmeta.testing.report import ITEMS, TOLERANCE, Found, batch_of, difference, query_samples, states_of, tasks_for

_TASKS = (2, 3, 4, 5, 8, 10, 25, 50)


def _recommender(encoder: nn.Module, width: int) -> Recommender:
    with torch.no_grad():
        states = states_of(encoder, batch_of(encoder, query_samples()), width)
    torch.manual_seed(2)
    head = Dot(Mean(), nn.Linear(states.shape[1], width))
    return Recommender(ItemFeatures(ITEMS, width), encoder, head).double()


def _adaptation(recommender: Recommender, *, order: int, stacked: bool, steps: int = 2) -> Adaptation:
    adaptation = Adaptation(Scope("encoder", "head"), step=Gradient(0.1), steps=steps, order=order, stacked=stacked)
    adaptation.bind(recommender)
    return adaptation


def _gradients(recommender: Recommender, losses: Tensor) -> list[Tensor]:
    parameters = [p for p in recommender.parameters() if p.requires_grad]
    found = torch.autograd.grad(losses.mean(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def check_reached(encoder: nn.Module, width: int) -> Found:
    """Compare the gradient with respect to weights set in a twin with that of the module's own weights."""
    recommender, batch = _recommender(encoder, width), batch_of(encoder, query_samples())
    if not list(encoder.parameters()):
        return Found(True, "no parameters to adapt")
    plain = _gradients(recommender, recommender(batch, SoftmaxLoss()))
    names = [name for name, p in recommender.named_parameters() if p.requires_grad]
    own = {name: recommender.get_parameter(name).detach().clone().requires_grad_() for name in names}
    losses = Call(recommender, batch, stacked=False, higher_order=False).run(own, loss=SoftmaxLoss(), encoded=None)
    found = torch.autograd.grad(losses.mean(), list(own.values()), allow_unused=True)
    for name, one, other in zip(names, plain, found, strict=True):
        error = difference(one, torch.zeros_like(one) if other is None else other)
        if error >= TOLERANCE:
            cause = "is not read from its module (but by a global, or an object that holds the module)"
            return Found(False, f"gradient of {name} differs by {error:.1e}: it {cause}, so tasks cannot adapt it")
    return Found(True, f"all of {len(names)} weights")


def check_engines(encoder: nn.Module, width: int) -> Found:
    """Compare losses and gradients of the stacked engine with the per-task loop, in first and second order."""
    if not list(encoder.parameters()):
        return Found(True, "no parameters to adapt")
    recommender = _recommender(encoder, width)
    worst, where, note = 0.0, "", "the stacked engine supports every operation"
    # A batch of equal sizes cannot reveal rows in a wrong order.
    for few, most in ((query_samples(), None), (query_samples(even=True), 1)):
        tasks = tasks_for(encoder, few, max_support=most)
        for order in (1, 2):
            answers = []
            for stacked in (True, False):
                adaptation = _adaptation(recommender, order=order, stacked=stacked)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    losses = adaptation.run(recommender, tasks, SoftmaxLoss())
                if stacked and (adaptation.fell_back or caught):
                    note = f"falls back to the per-task loop: {caught[0].message}"
                    break  # no stacked result to compare with the loop
                answers.append([losses.detach(), *_gradients(recommender, losses)])
            if len(answers) == 2:
                error = max(difference(a, b) for a, b in zip(*answers, strict=True))
                worst, where = max((worst, where), (error, f"order {order}, {tasks.num_tasks} tasks"))
    cause = f" ({where}: rows of one task affect another's)" if worst >= TOLERANCE else ""
    return Found(worst < TOLERANCE, f"largest difference {worst:.1e}{cause}; {note}")


@torch.no_grad()
def check_counts(encoder: nn.Module, width: int) -> Found:
    """Compare scores for any number of tasks with the loop, and with each task alone."""
    if not list(encoder.parameters()):
        return Found(True, "no parameters to adapt")
    recommender, every = _recommender(encoder, width), query_samples(count=max(_TASKS))
    loop = _adaptation(recommender, order=1, stacked=False, steps=1)
    wanted = _scored(loop, recommender, every)
    worst, where = 0.0, ""
    for count in _TASKS:
        found = _scored(
            _adaptation(recommender, order=1, stacked=True, steps=1), recommender, every.take(slice(0, count))
        )
        worst, where = max((worst, where), (difference(found, wanted[:count]), f"{count} tasks"))
    for sample in range(6):
        alone = _scored(
            _adaptation(recommender, order=1, stacked=True, steps=1), recommender, every.take(slice(sample, sample + 1))
        )
        error = difference(alone, wanted[sample : sample + 1])
        worst, where = max((worst, where), (error, f"a session of {every.lengths[sample]} clicks alone"))
    cause = f": {where} differs from the loop" if worst >= TOLERANCE else ""
    return Found(worst < TOLERANCE, f"largest difference {worst:.1e}, alone and of {_TASKS[0]} to {_TASKS[-1]}{cause}")


def _scored(adaptation: Adaptation, recommender: Recommender, samples: Samples) -> Tensor:
    tasks = tasks_for(recommender.encoder, samples, max_support=3)
    return adaptation.run(recommender, tasks, SoftmaxLoss(), score=True)


def check_threads(encoder: nn.Module, width: int) -> Found:
    """Compare scores of concurrent threads with those of one thread, and check that no weight changes."""
    if not list(encoder.parameters()):
        return Found(True, "no parameters to adapt")
    recommender, samples = _recommender(encoder, width), query_samples()
    adaptation = _adaptation(recommender, order=1, stacked=True)
    before = [p.clone() for p in recommender.parameters()]

    def score(sample: int) -> Tensor:
        with torch.no_grad():
            return _scored(adaptation, recommender, samples.take(slice(sample % len(samples), len(samples))))

    with ThreadPoolExecutor(8) as pool:
        alone = [score(sample) for sample in range(len(samples))]
        together = list(pool.map(score, range(2 * len(samples))))
    worst = max(difference(one, alone[n % len(samples)]) for n, one in enumerate(together))
    moved = max(difference(one, other) for one, other in zip(before, recommender.parameters(), strict=True))
    if moved:
        return Found(False, f"a weight has changed by {moved:.1e}: forward writes into it")
    cause = ": forward stores state between calls that all threads share"
    return Found(worst < TOLERANCE, f"largest difference {worst:.1e}" + cause * (worst >= TOLERANCE))


def check_second_order(encoder: nn.Module, width: int) -> Found:
    """Compare the second-order meta-gradient with finite differences, and if it differs, the plain gradient too."""
    recommender, tasks = _recommender(encoder, width), tasks_for(encoder, query_samples())
    adaptation = _adaptation(recommender, order=2, stacked=True)

    def adapted() -> Tensor:
        return adaptation.run(recommender, tasks, SoftmaxLoss())

    finite, analytic, numeric = _derivatives(recommender, adapted)
    if not finite:
        return Found(False, "a gradient is not finite")
    found = f"gradient {analytic:.6f}, finite difference {numeric:.6f}"
    if _near(analytic, numeric):
        return Found(True, found)
    batch = batch_of(encoder, query_samples())
    _, first, first_numeric = _derivatives(recommender, lambda: recommender(batch, SoftmaxLoss()))
    if not _near(first, first_numeric):
        cause = "so does the plain gradient: stop-gradient, straight-through or padding"
        return Found(False, f"{found}; {cause}", on_purpose=True)
    return Found(False, f"{found}; the plain gradient agrees: an operation's double backward is wrong (weight_norm?)")


def _near(analytic: float, numeric: float) -> bool:
    return abs(numeric - analytic) < 1e-4 * max(abs(analytic), 1e-2)


def _derivatives(recommender: Recommender, losses: Callable[[], Tensor]) -> tuple[bool, float, float]:
    """Whether the gradient of the mean loss is finite; its directional derivative by autograd and by differences."""
    gradients = _gradients(recommender, losses())
    if not all(bool(g.isfinite().all()) for g in gradients):
        return False, float("nan"), float("nan")
    torch.manual_seed(4)
    direction = [torch.randn_like(g) for g in gradients]
    analytic = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    numeric = analytic
    for step in (1e-6, 1e-4, 1e-8):  # a kink (ReLU) may lie inside the wider ones
        numeric = _central_difference(recommender, losses, direction, step)
        if _near(analytic, numeric):
            break
    return True, analytic, numeric


@torch.no_grad()
def _central_difference(
    recommender: Recommender, losses: Callable[[], Tensor], direction: list[Tensor], width: float
) -> float:
    """Central difference of the mean loss along a direction of all parameters."""
    parameters = [p for p in recommender.parameters() if p.requires_grad]
    begin, values = [parameter.clone() for parameter in parameters], []
    for sign in (1, -1):
        for parameter, start, d in zip(parameters, begin, direction, strict=True):
            parameter.copy_(start + sign * width * d)
        values.append(float(losses().mean()))
    for parameter, start in zip(parameters, begin, strict=True):
        parameter.copy_(start)
    return (values[0] - values[1]) / (2 * width)
