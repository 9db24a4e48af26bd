"""One layer under meta-training, by the library and by the reference: how it was answered, and how far off."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.errors import InputError
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import SoftAttention
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import Samples, sessions_without_target
from graphmeta.sampling.tasks import task_batch
from tests.adapt.attacks import EVAL_ONLY, ITEMS, LAYERS, PLAIN, THREE_STEPS
from tests.adapt.reference import Inner, Reference

WIDTH, TOLERANCE = 6, 1e-9
BOTH, HEAD, ENCODER = ("encoder", "head"), ("head",), ("encoder",)
GOOD = ("stacked", "loop", "refused")
# From best to worst. "hidden": right, by the loop, but not told with exactly one warning that names an operation (an
# error of Python's or torch's own is no name). "damaged": right, and the
# recommender's own weights are not what they were.
OUTCOMES = (*GOOD, "hidden", "damaged", "crash", "wrong")

# Known clicks of each task. Some sizes meet others that have nothing to do with them: in the even batch there are as
# many queries as places in the longest, and 10 tasks of 5 rows have 50 rows, as have tables of 50 places.
SESSIONS: dict[str, tuple[int, ...]] = {
    "5 tasks": (4, 1, 5, 2, 3),
    "8 tasks": (2, 5, 1, 3, 6, 2, 4, 3),
    "10 tasks": (4, 1, 3, 2, 4, 3, 2, 4, 1, 3),
    "even": (4, 4, 4, 4),
    # As many rows as the vectors are wide, as a layer has tokens, as there are tasks.
    "6 rows of 2": (3, 3),
    "6 rows of 3": (2, 2, 2),
    "6 tasks": (2, 1, 2, 2, 1, 2),
}


@dataclass(frozen=True)
class Case:
    """A batch of tasks and how they are adapted; ``score`` asks for scores in eval mode."""

    batch: str
    order: int = 1
    steps: int = 1
    scope: tuple[str, ...] = BOTH
    score: bool = False


QUICK = (
    Case("5 tasks", 2, 2),
    Case("10 tasks", score=True),
    Case("even", score=True),
    Case("6 rows of 2", 1, 2, ENCODER),
    Case("6 rows of 3", scope=ENCODER, score=True),
)
EVERY = (
    Case("5 tasks", 1, 1),
    Case("8 tasks", 1, 2),
    Case("10 tasks", 1, 1),
    Case("even", 1, 2),
    Case("5 tasks", 2, 2),
    Case("8 tasks", 2, 2),
    Case("even", 2, 1),
    Case("5 tasks", 1, 2, HEAD),
    Case("8 tasks", 2, 1, HEAD),
    Case("6 rows of 2", 1, 2, ENCODER),
    Case("6 rows of 3", 2, 1, ENCODER),
    Case("6 tasks", 1, 1, ENCODER),
    Case("6 rows of 2", scope=ENCODER, score=True),
    Case("6 rows of 3", scope=ENCODER, score=True),
    Case("6 tasks", scope=ENCODER, score=True),
    Case("8 tasks", 2, 2, score=True),
    Case("10 tasks", 1, 1, score=True),
    Case("even", 1, 2, score=True),
)
LONGER = (Case("8 tasks", 1, 3), Case("5 tasks", 2, 3))


@dataclass(frozen=True)
class Finding:
    """What became of one case: one of ``OUTCOMES``, the largest relative difference, and why."""

    outcome: str
    difference: float
    reason: str
    case: Case | None = None

    @property
    def badness(self) -> tuple[int, float]:
        return OUTCOMES.index(self.outcome), self.difference


def tasks(name: str) -> Samples:
    """Sessions of these lengths with repeated items (all different in the even batch), and their targets."""
    random = np.random.default_rng(5)
    if name == "even":
        sampled = [random.permutation(ITEMS)[: size + 1] for size in SESSIONS[name]]
    else:
        sampled = [random.integers(0, ITEMS, size + 1) for size in SESSIONS[name]]
        for session in sampled:
            if len(session) > 4:
                session[2] = session[0]
    known = sessions_without_target([session[:-1] for session in sampled])
    return Samples(known.item, known.begin, known.end, np.array([s[-1] for s in sampled]), known.session)


def maker(factory: Callable[[int], nn.Module]) -> Callable[[], Recommender]:
    """Makes the same recommender every time."""

    def make() -> Recommender:
        torch.default_generator.manual_seed(11)  # torch.manual_seed takes longer than all the rest
        encoder = factory(WIDTH)
        torch.default_generator.manual_seed(12)
        head = Dot(SoftAttention(WIDTH), nn.Linear(2 * WIDTH, WIDTH))
        return Recommender(ItemFeatures(ITEMS, WIDTH), encoder, head).double()

    return make


@contextmanager
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def cases(name: str) -> tuple[Case, ...]:
    """All cases of a layer."""
    return EVERY + (LONGER if name in THREE_STEPS else ())


def examine(name: str, chosen: tuple[Case, ...] | None = None) -> Finding:
    """The worst of what became of a layer's cases."""
    return max(findings(name, chosen), key=lambda finding: finding.badness)


def findings(name: str, chosen: tuple[Case, ...] | None = None) -> list[Finding]:
    """What became of each case of a layer."""
    with float64(), torch.random.fork_rng(devices=[]):
        return [_finding(name, case) for case in chosen or cases(name)]


def _finding(name: str, case: Case) -> Finding:
    training = not case.score and name not in EVAL_ONLY
    wanted, impossible = _wanted(name, case, training)
    make = maker(LAYERS[name])
    model, loss = make().train(training), SoftmaxLoss()
    before = [(module, dict(module._parameters)) for module in model.modules()]
    values = [p.detach().clone() for p in model.parameters()]
    adaptation = Adaptation(Scope(*case.scope), step=Gradient(0.3), steps=case.steps, order=case.order)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adaptation.bind(model)
            batch = task_batch(tasks(case.batch), num_items=ITEMS)
            if case.score:
                with torch.no_grad():
                    found = [adaptation.run(model, batch, loss, score=True)]
            else:
                losses = adaptation.run(model, batch, loss)
                found = [losses.detach(), *_gradients(model, losses)]
        except InputError as error:
            return Finding("refused", 0.0, _first_line(error), case)
        except Exception as error:
            if isinstance(impossible, type(error)):  # torch itself cannot
                return Finding("refused", 0.0, _first_line(error), case)
            return Finding("crash", 0.0, f"{type(error).__name__}: {_first_line(error)}", case)
    if wanted is None:
        return Finding("wrong", 0.0, f"a number, where torch says: {_first_line(impossible)}", case)
    told = [str(w.message) for w in caught if "task by task" in str(w.message)]
    reason = told[0].partition(": unknown")[0] if told else ""
    difference = max(map(_difference, found, wanted))
    if not difference < TOLERANCE:
        return Finding("wrong", difference, reason, case)
    if not _same(model, before, values):
        return Finding("damaged", difference, "the recommender's own weights are others afterwards", case)
    if told and " in the stacked engine (" in told[0]:
        return Finding("hidden", difference, reason, case)
    if len(told) > 1 or (not told and not adaptation.stacked):
        return Finding("hidden", difference, f"{len(told)} warnings", case)
    return Finding("loop" if told else "stacked", difference, reason, case)


def _wanted(name: str, case: Case, training: bool) -> tuple[list[Tensor] | None, Exception | None]:
    """The reference's losses and gradients (or scores); or None, and what keeps torch from finding them."""
    make = maker(PLAIN.get(name, LAYERS[name]))
    reference = Reference(make, tasks(case.batch), num_items=ITEMS)
    inner = Inner(case.scope, case.steps, case.order if not case.score else 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if case.score:
                return [reference.scores(inner)], None
            losses, gradients = reference.losses(inner, training=training)
            return [losses, *gradients], None
    except Exception as error:
        return None, error


def _gradients(model: nn.Module, losses: Tensor) -> list[Tensor]:
    every = list(model.parameters())
    learned = [p for p in every if p.requires_grad]
    slopes = iter(torch.autograd.grad(losses.mean(), learned, allow_unused=True))
    found = [next(slopes) if p.requires_grad else None for p in every]
    return [torch.zeros_like(p) if g is None else g for p, g in zip(every, found, strict=True)]


def _difference(found: Tensor, wanted: Tensor) -> float:
    """The largest, against the largest number wanted."""
    if found.shape != wanted.shape or not bool(wanted.isfinite().all()):
        return float("inf")
    if not wanted.numel():
        return 0.0
    scale = wanted.abs().max().clamp(min=1e-2)
    return float(((found - wanted).abs().max() / scale).nan_to_num(nan=float("inf")))


def _same(model: nn.Module, before: list[tuple[nn.Module, dict]], values: list[Tensor]) -> bool:
    """Whether every parameter is the one it was, with the values it had."""
    slots = all(
        module._parameters.keys() == known.keys() and all(module._parameters[n] is p for n, p in known.items())
        for module, known in before
    )
    return slots and all(torch.equal(p, v) for p, v in zip(model.parameters(), values, strict=True))


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def has_influence(name: str) -> bool:
    """Whether a task's answer depends on the layer's weights: without that, its cases would show nothing."""
    with float64():
        reference = Reference(maker(PLAIN.get(name, LAYERS[name])), tasks("5 tasks"), num_items=ITEMS)
        _, gradients = reference.losses(Inner(), training=name not in EVAL_ONLY)
        own = [g for n, g in zip(reference.names, gradients, strict=True) if n.startswith("encoder.")]
        return any(bool((g.abs() > 1e-8).any()) for g in own)
