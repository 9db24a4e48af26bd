"""For people who plug in their own parts: a log with a known right answer, and a check of an encoder.

report = check_encoder(MyEncoder)      # MyEncoder(width) -> module with forward(x, batch)
assert report.ok, report
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.batch import Samples, open_sessions, session_batch
from graphmeta.errors import InputError
from graphmeta.events import EventLog
from graphmeta.nn.features import ItemFeatures
from graphmeta.nn.head import Dot
from graphmeta.nn.loss import SoftmaxLoss
from graphmeta.nn.readout import Mean
from graphmeta.recommender import Recommender
from graphmeta.tables import EntityTable
from graphmeta.tasks import TaskBatch, task_batch

_ITEMS, _TOLERANCE = 23, 1e-9
Found = tuple[bool, str]  # whether a check holds, and what was found


def fake_log(*, sessions: int = 200, items: int = 40, length: int = 6, seed: int = 0) -> EventLog:
    """Sessions that walk a ring of items: after item ``n`` always comes ``n + 1``, so the right answer is known.

    Items are called ``i0, i1, …``, carry a ``category`` of five neighbours and a ``brand``; each of twenty users
    owns every twentieth session; one click a minute, one session an hour.

    >>> log = fake_log(sessions=3)
    >>> names = log.items.ids[log.item[log.session == 0]]
    >>> [(int(b[1:]) - int(a[1:])) % 40 for a, b in zip(names, names[1:])]
    [1, 1, 1, 1, 1]
    """
    random = np.random.default_rng(seed)
    first = random.integers(0, items, sessions)
    step, session = np.tile(np.arange(length), sessions), np.repeat(np.arange(sessions), length)
    frame = pd.DataFrame(
        {
            "session": session,
            "item": [f"i{n}" for n in (first[session] + step) % items],
            "time": 1.7e9 + session * 3600.0 + step * 60.0,
            "user": [f"u{n}" for n in session % 20],
        }
    )
    table = pd.DataFrame({"item": [f"i{n}" for n in range(items)]})
    table["category"] = [f"c{n // 5}" for n in range(items)]
    table["brand"] = [f"b{n % 3}" for n in range(items)]
    known = EntityTable.read(table, key="item")
    return EventLog.read(frame, session="session", item="item", time="time", user="user", items=known)


def fake_ratings(*, people: int = 40, items: int = 30, each: int = 16, seed: int = 0) -> EventLog:
    """Ratings 1 to 5 of items by people, a session a person, with a known rule behind them.

    Item n has the genres ``g{n % 5}`` and ``g{n % 3}`` (in the column ``genre`` of ``items.several``) and a ``rate``;
    person p has an ``age`` and likes one genre: 5 for items that have it, else 1 + p mod 3.

    >>> log = fake_ratings(people=3)
    >>> log.num_sessions, log.lengths.tolist(), sorted(log.items.several)
    (3, [16, 16, 16], ['genre'])
    """
    random = np.random.default_rng(seed)
    rated = np.concatenate([random.permutation(items)[:each] for _ in range(people)])
    person = np.repeat(np.arange(people), each)
    taste = person % 5
    likes = (rated % 5 == taste) | (rated % 3 == taste)
    frame = pd.DataFrame({"person": person, "item": rated, "rating": np.where(likes, 5, 1 + person % 3)})
    numbers = range(items)
    known = pd.DataFrame({"item": numbers, "rate": [f"r{n % 2}" for n in numbers]})
    known["genre"] = [[f"g{n % 5}", f"g{n % 3}"] for n in numbers]
    told = pd.DataFrame({"person": range(people), "age": [f"a{n % 4}" for n in range(people)]})
    return EventLog.read(
        frame,
        session="person",
        user="person",
        item="item",
        value="rating",
        items=EntityTable.read(known, key="item", several={"genre": ","}),
        users=EntityTable.read(told, key="person"),
    )


@dataclass(frozen=True)
class Check:
    """One property of an encoder: whether it holds, and what was found."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True)
class CheckReport:
    """All checks of an encoder; ``ok`` if every one holds. ``print`` it to read it."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(f"{'ok  ' if c.ok else 'FAIL'} {c.name}: {c.found}" for c in self.checks)


def check_encoder(factory: Callable[[int], nn.Module], *, width: int = 8) -> CheckReport:
    """Whether an encoder keeps the contract, and what the stacked engine makes of it. Runs in float64, in seconds.

    * one finite state for each click;
    * the states are the same whatever the batch says of the answers, in training too;
    * a sample's states do not depend on the other samples of its batch, nor on the dummy rows of task batches; nor in
      training, where batch normalisation makes them (seen by gradients, so that dropout does not matter);
    * all tasks at once give what the per-task loop gives, to 1e-9, in first and second order, for scores and for
      the gradient of every parameter; an operation that the stack does not know is named (not a failure: the
      adaptation falls back to the loop, several times slower);
    * second-order gradients are finite and agree with finite differences.

    Args:
        factory: makes the encoder for item vectors of this width; its module is left in eval mode.

    Raises:
        InputError: a factory that raises, or makes something else.
    """
    with _float64():
        torch.manual_seed(0)
        encoder = _made(factory, width).double().eval()
        checks = [_guarded("shape", _check_shape, encoder, width)]
        if checks[0].ok:
            checks += [_guarded(name, check, encoder, width) for name, check in _FURTHER.items()]
    return CheckReport(tuple(checks))


def _made(factory: Callable[[int], nn.Module], width: int) -> nn.Module:
    wanted = "a factory takes the width of item vectors and returns a module, forward(x, batch)"
    try:
        encoder = factory(width)
    except Exception as error:
        raise InputError(f"no encoder of width {width}: {_told(error)}; {wanted}") from error
    if not isinstance(encoder, nn.Module):
        raise InputError(f"no encoder of width {width}, but {type(encoder).__name__}; {wanted}")
    return encoder


def _guarded(name: str, check: Callable[[nn.Module, int], Found], encoder: nn.Module, width: int) -> Check:
    """A check's answer; an exception of the encoder is an answer too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Check(name, *check(encoder, width))
    except Exception as error:
        return Check(name, False, _told(error))
    finally:
        encoder.eval()


def _told(error: Exception) -> str:
    """The kind of the error, and its first line."""
    reason = str(error).strip().splitlines()
    return f"{type(error).__name__}: {reason[0] if reason else ''}"


@contextmanager
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_default_dtype(before)


def _samples(*, even: bool = False) -> Samples:
    """Sessions of several lengths and with repeated items (or alike in every count), their times and users (one
    of them unknown), and their next items."""
    random = np.random.default_rng(7)
    sessions = [random.integers(0, _ITEMS, n) for n in (5, 3, 6, 4)] + [np.array([4, 4, 9, 4])]
    if even:
        sessions = [random.permutation(_ITEMS)[:4] for _ in range(5)]
    times = [1.7e9 + np.cumsum(random.integers(1, 90, len(session) - 1)) for session in sessions]
    known = open_sessions([session[:-1] for session in sessions], times=times, users=np.array([0, 2, -1, 1, 0]))
    return replace(known, target=np.array([session[-1] for session in sessions]))


def _table(width: int) -> Tensor:
    return torch.randn(_ITEMS, width, generator=torch.Generator().manual_seed(1))


def _states(encoder: nn.Module, batch, width: int) -> Tensor:  # noqa: ANN001
    return encoder(_table(width)[batch["item"].n_id], batch)


def _check_shape(encoder: nn.Module, width: int) -> Found:
    batch = session_batch(_samples(), num_items=_ITEMS)
    states = _states(encoder, batch, width)
    clicks = batch["event"].num_nodes
    good = states.dim() == 2 and len(states) == clicks and bool(states.isfinite().all())
    return good, f"{tuple(states.shape)} for {clicks} clicks (wanted: one finite row each)"


def _check_answers(encoder: nn.Module, width: int) -> Found:
    samples = _samples()
    others = replace(samples, target=(samples.target + 1) % _ITEMS)
    batches = [session_batch(one, num_items=_ITEMS) for one in (samples, others)]
    found = []
    for training in (False, True):
        for batch in batches:
            torch.manual_seed(3)  # the same dropout in both
            found.append(_states(encoder.train(training), batch, width))
    return _compare(torch.cat(found[::2]), torch.cat(found[1::2]))


def _check_training(encoder: nn.Module, width: int) -> Found:
    """By the slope of each sample's states in the item vectors of the others, which is 0 under any dropout."""
    batch = session_batch(_samples(), num_items=_ITEMS)
    x = _table(width)[batch["item"].n_id].requires_grad_()
    states = encoder.train()(x, batch)
    worst = 0.0
    for sample in range(batch["sample"].num_nodes if states.requires_grad else 0):
        own = states[batch["event"].batch == sample]
        (slope,) = torch.autograd.grad((own * torch.randn_like(own)).sum(), x, retain_graph=True, allow_unused=True)
        if slope is not None:
            worst = max(worst, float(slope[batch["item"].batch != sample].abs().max()))
    return worst < _TOLERANCE, f"largest slope in another's items {worst:.1e}"


def _check_alone(encoder: nn.Module, width: int) -> Found:
    samples = _samples()
    together = _states(encoder, session_batch(samples, num_items=_ITEMS), width)
    alone = [
        _states(encoder, session_batch(samples.take(slice(s, s + 1)), num_items=_ITEMS), width)
        for s in range(len(samples))
    ]
    return _compare(together, torch.cat(alone))


def _check_dummies(encoder: nn.Module, width: int) -> Found:
    samples = _samples()
    ragged = session_batch(samples, num_items=_ITEMS)
    filled = session_batch(samples, num_items=_ITEMS, task=np.arange(len(samples)), num_tasks=len(samples))
    real = torch.isin(filled["event"].batch, filled["sample"].real)
    return _compare(_states(encoder, ragged, width), _states(encoder, filled, width)[real])


def _compare(one: Tensor, other: Tensor) -> Found:
    error = float((one - other).detach().abs().max())
    return error < _TOLERANCE, f"largest difference {error:.1e}"


def _recommender(encoder: nn.Module, width: int) -> Recommender:
    with torch.no_grad():
        states = _states(encoder, session_batch(_samples(), num_items=_ITEMS), width)
    torch.manual_seed(2)
    head = Dot(Mean(), nn.Linear(states.shape[1], width))
    return Recommender(ItemFeatures(_ITEMS, width), encoder, head).double()


def _meta(recommender: Recommender, *, order: int, stacked: bool, tasks: TaskBatch) -> tuple[Tensor, Adaptation]:
    adaptation = Adaptation(Scope("encoder", "head"), step=Gradient(0.1), steps=2, order=order, stacked=stacked)
    adaptation.bind(recommender)
    return adaptation.run(recommender, tasks, SoftmaxLoss()), adaptation


def _gradients(recommender: Recommender, losses: Tensor) -> list[Tensor]:
    parameters = list(recommender.parameters())
    found = torch.autograd.grad(losses.mean(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _check_engines(encoder: nn.Module, width: int) -> Found:
    if not list(encoder.parameters()):
        return True, "no parameters to adapt"
    recommender = _recommender(encoder, width)
    worst, note = 0.0, "the stacked engine knows every operation"
    # In the even batch, rows in a wrong order look right.
    for samples, most in ((_samples(), None), (_samples(even=True), 1)):
        tasks = task_batch(samples, num_items=_ITEMS, max_support=most)
        for order in (1, 2):
            answers = []
            for stacked in (True, False):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    losses, adaptation = _meta(recommender, order=order, stacked=stacked, tasks=tasks)
                if stacked and adaptation.fell_back:
                    note = f"falls back to the per-task loop: {caught[0].message}"
                    break  # there is nothing to compare the loop with
                answers.append([losses.detach(), *_gradients(recommender, losses)])
            if len(answers) == 2:
                worst = max(worst, *(float((a - b).detach().abs().max()) for a, b in zip(*answers, strict=True)))
    return worst < _TOLERANCE, f"largest difference {worst:.1e}; {note}"


def _check_second_order(encoder: nn.Module, width: int) -> Found:
    recommender, tasks = _recommender(encoder, width), task_batch(_samples(), num_items=_ITEMS)
    losses, adaptation = _meta(recommender, order=2, stacked=True, tasks=tasks)
    gradients = _gradients(recommender, losses)
    if not all(bool(g.isfinite().all()) for g in gradients):
        return False, "a gradient is not finite"
    direction = [torch.randn_like(g) for g in gradients]
    analytic = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    numeric, good = analytic, False
    for step in (1e-6, 1e-4, 1e-8):  # a kink (ReLU) may lie inside the wider ones
        if not good:
            numeric = _slope(recommender, adaptation, tasks, direction, step)
            good = abs(numeric - analytic) < 1e-4 * max(abs(analytic), 1e-2)
    return good, f"gradient {analytic:.6f}, finite difference {numeric:.6f}"


@torch.no_grad()
def _slope(
    recommender: Recommender, adaptation: Adaptation, tasks: TaskBatch, direction: list[Tensor], width: float
) -> float:
    """Central difference of the mean query loss along a direction of all parameters."""
    begin = [parameter.clone() for parameter in recommender.parameters()]
    values = []
    for sign in (1, -1):
        for parameter, start, d in zip(recommender.parameters(), begin, direction, strict=True):
            parameter.copy_(start + sign * width * d)
        values.append(float(adaptation.run(recommender, tasks, SoftmaxLoss()).mean()))
    for parameter, start in zip(recommender.parameters(), begin, strict=True):
        parameter.copy_(start)
    return (values[0] - values[1]) / (2 * width)


_FURTHER: dict[str, Callable[[nn.Module, int], Found]] = {
    "answers are not read": _check_answers,
    "samples do not see each other": _check_alone,
    "dummy rows change nothing": _check_dummies,
    "stacked = loop": _check_engines,
    "second order": _check_second_order,
    "samples do not see each other in training": _check_training,
}
