"""The sessions that are asked about, the systems that are asked, and how they are compared with an oracle."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphmeta.data.events import EventLog
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks
from graphmeta.system import System
from graphmeta.testing import fake_log
from tests.oracles.tasks import Oracle, losses_of
from tests.oracles.weights import Weights, linear

TOLERANCE = 1e-10
ITEM_TABLE = fake_log(items=12).items
FIELDS = {name: [int(code) for code in attribute.codes] for name, attribute in ITEM_TABLE.attributes.items()}
# One known click; an item twice in a row; a transition made twice; more support than the ten samples that are taken.
SESSIONS = [[3, 7], [4, 4, 9], [0, 5, 0, 5, 2, 0], [1, 8, 3, 11, 10, 3, 8, 6, 2, 7, 4, 10, 5]]


IF_SAN = {"base": "if_san", "options": {"layers": 1, "dropout": 0.0}}


def prediction(w: Weights, session: Tensor) -> Tensor:
    """Eq 8: ``S W_p + b_p``; SR-GNN's ``S W_3``."""
    return linear(w, "head.project", session)


def log_of(sessions: list[list[int]]) -> EventLog:
    """These sessions as a log, whose items are numbered as they are here."""
    number = np.repeat(np.arange(len(sessions)), [len(session) for session in sessions])
    item = [ITEM_TABLE.ids[click] for session in sessions for click in session]
    frame = pd.DataFrame({"session": number, "item": item, "time": 1.7e9 + 60.0 * np.arange(len(item))})
    return EventLog.read(frame, session="session", item="item", time="time").aligned_to(ITEM_TABLE)


def built(name: str, **arguments: Any) -> System:
    """The system in 64 bits, without dropout; no parameter is zero, so that each has its part in the answer."""
    torch.manual_seed(0)
    system = build(name, ITEM_TABLE, **arguments).double()
    with torch.no_grad():
        for tensor in system.parameters():
            if tensor.requires_grad:
                tensor += 0.4 * torch.randn_like(tensor)
    return system


def short(name: str) -> str:
    """The name as papers and scopes have it, below the recommender."""
    return name.removeprefix("recommender.")


def weights_of(system: System) -> Weights:
    """The system's state by name, each parameter a leaf of its own; names begin below the recommender."""
    learned = {name for name, parameter in system.named_parameters() if parameter.requires_grad}
    return {
        short(name): tensor.detach().clone().requires_grad_(name in learned)
        for name, tensor in system.state_dict().items()
    }


def names_below(w: Weights, *prefixes: str) -> list[str]:
    """The names that begin so."""
    return [name for name in w if name.startswith(prefixes)]


def close(name: str, found: Tensor, wanted: Tensor) -> None:
    """The largest difference is a 1e-10th of the largest number there should be, or less (of 1e-4, if that is less).

    The last digits of a small gradient are rounding of the large numbers that it is a difference of.
    """
    found, wanted = found.detach(), wanted.detach()
    assert found.shape == wanted.shape, name
    share = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-4))
    assert share < TOLERANCE, f"{name} differs by {share:.1e}"


def gradients_of(loss: Tensor, weights: Weights) -> Weights:
    """The gradient of each weight, zeros where it has no part in the loss."""
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if slope is None else slope
        for (name, weight), slope in zip(weights.items(), found, strict=True)
    }


def check(system: System, oracle: Oracle, w: Weights, sessions: list[list[int]] = SESSIONS) -> None:
    """Losses, the meta-gradient of every parameter and scores of the system are the oracle's."""
    samples, scores = last_clicks(log_of(sessions)), oracle.scores(w, sessions)
    close("scores", system.scores(samples), scores)
    check_losses(system, system.losses(samples), losses_of(scores, sessions), w, every=sessions is SESSIONS)


def check_losses(system: System, losses: Tensor, wanted: Tensor, w: Weights, *, every: bool = True) -> None:
    """The losses are those wanted, and so are the gradients of their mean; with ``every``, none of these is zero."""
    close("losses", losses, wanted)
    own = {short(name): parameter for name, parameter in system.named_parameters() if parameter.requires_grad}
    found = gradients_of(losses.mean(), own)
    right = gradients_of(wanted.mean(), {name: tensor for name, tensor in w.items() if tensor.requires_grad})
    assert found.keys() == right.keys()
    for name, slope in right.items():
        assert not every or float(slope.abs().max()) > 1e-7, f"{name} has no part in the loss; nothing is compared"
        close(name, found[name], slope)


def check_state(system: System, w: Weights) -> None:
    """All that the system holds is as it should be."""
    state = {short(name): tensor for name, tensor in system.state_dict().items()}
    assert state.keys() == w.keys()
    for name, tensor in state.items():
        close(name, tensor, w[name])


def descended(w: Weights, loss: Tensor, lr: float) -> Weights:
    """Eq 18 as plain gradient descent: every parameter after one global step, each a leaf again."""
    slopes = gradients_of(loss, {name: tensor for name, tensor in w.items() if tensor.requires_grad})
    return w | {name: (w[name] - lr * slope).detach().requires_grad_() for name, slope in slopes.items()}
