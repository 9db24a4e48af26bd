"""MAML and CBML with what MAML++ and others add to the inner loop, against its equations, one session at a time."""

from dataclasses import dataclass, replace

import pytest
import torch

from graphmeta.sampling.samples import last_clicks
from tests.oracles import cbml
from tests.oracles.compared import FIELDS, SESSIONS, built, check_losses, close, log_of, names_below, weights_of
from tests.oracles.if_san import if_san
from tests.oracles.sr_gnn import sr_gnn
from tests.oracles.tasks import Oracle, losses_of, support_of
from tests.oracles.weights import linear

pytestmark = pytest.mark.usefixtures("float64")
LR = 0.3
ATTENTION = ("encoder.", "head.")


@dataclass(frozen=True)
class Inner(Oracle):
    """``θ_{k+1} = θ_k − α_k (g · min(1, clip / ‖g‖) + λ (θ_k − θ_0))``; ``α_k = LR · exp(ρ_k)`` where lr names ρ."""

    clip: float = float("inf")
    proximal: float = 0.0

    def walk(self, w, known):
        """The weights at the start and after each step."""
        own = {**w, **self.start(w, known)}
        own |= {name: own[name].clone() for name in self.local}
        start, walk, support = dict(own), [own], support_of(known)
        for number in range(self.steps):
            if support:
                own = self.stepped(w, own, start, support, number)
            walk.append(own)
        return walk

    def stepped(self, w, own, start, support, number):
        constant = (lambda x: x) if self.order == 2 else torch.Tensor.detach
        slopes = torch.autograd.grad(
            self.mean_loss(own, support),
            [own[name] for name in self.local],
            create_graph=self.order == 2,
            retain_graph=True,
            allow_unused=True,
        )
        known = [(name, slope) for name, slope in zip(self.local, slopes, strict=True) if slope is not None]
        norm = sum((slope * slope).sum() for _, slope in known) ** 0.5
        factor = self.clip / norm if norm > self.clip else 1.0
        moved = dict(own)
        for name, slope in known:
            near = self.proximal * constant(own[name] - start[name])
            moved[name] = own[name] - self.rate(w, name, number) * (factor * slope + near)
        return moved

    def rate(self, w, name, number):
        return self.lr if isinstance(self.lr, float) else LR * torch.exp(w[self.lr[name]][number])

    def on_adapted(self, w, known):
        return self.walk(w, known)[-1]

    def after(self, w, sessions, number):
        """Scores for each session's last click after so many steps."""
        return torch.stack([self.scores_by(self.walk(w, known)[number], known) for *known, _ in sessions])


def rates(names):
    return {name: f"adaptation.step.rates.{name.replace('.', '/')}" for name in names}


def check(system, oracle, w, *, progress=1.0, shares=None):
    """Scores after the last step; losses and meta-gradients of the weighted sum over the steps."""
    samples = last_clicks(log_of(SESSIONS))
    close("scores", system.scores(samples), oracle.scores(w, SESSIONS))
    shares = shares or [0.0] * (oracle.steps - 1) + [1.0]
    each = [v * losses_of(oracle.after(w, SESSIONS, k + 1), SESSIONS) for k, v in enumerate(shares)]
    check_losses(system, system.losses(samples, progress=progress), sum(each), w)


def around_sr_gnn(order, steps, inner, clip=float("inf")):
    system = built("maml", width=4, lr=LR, learned="per group", order=order, steps=steps, inner=inner)
    w = weights_of(system)
    names = names_below(w, *ATTENTION)
    predict = lambda w, session: linear(w, "head.project", session)  # noqa: E731
    proximal = (inner or {}).get("proximal", 0.0)
    lr = rates(names)
    return system, w, Inner(sr_gnn, predict, names, lr, steps, order, clip=clip, proximal=proximal)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.covering
def test_maml_with_rates_by_parameter(order, steps):
    system, w, oracle = around_sr_gnn(order, steps, None)
    check(system, oracle, w)


@pytest.mark.parametrize("order", [1, 2])
def test_maml_clipped_and_near_its_start(order):
    system, w, oracle = around_sr_gnn(order, 3, {"clip": 0.5, "proximal": 0.4}, clip=0.5)
    check(system, oracle, w)


def test_maml_trained_at_every_step_first_order_first():
    inner = {"multi_step": 0.8, "first_order": 0.5}
    system, w, oracle = around_sr_gnn(2, 2, inner)
    check(system, replace(oracle, order=1), w, progress=0.4, shares=[0.25, 0.75])
    check(system, oracle, w, progress=0.6, shares=[0.125, 0.875])
    check(system, oracle, w)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("learned", [False, "per group"])
@pytest.mark.covering
def test_cbml_is_held_near_the_gated_start(order, learned):
    options = {"layers": 1, "dropout": 0.0}
    inner = {"clip": 1.0, "proximal": 0.4, "multi_step": 1.0}
    system = built(
        "cbml", width=4, clusters=3, lr=LR, options=options, order=order, steps=3, learned=learned, inner=inner
    )
    w, reads = weights_of(system), if_san(FIELDS, layers=1)
    names = names_below(w, "features.", "encoder.", "head.readout.", cbml.WEIGHT, cbml.BIAS)
    lr = rates(names) if learned else LR
    start = cbml.gate_of_session(reads, "both", "full")
    oracle = Inner(reads, cbml.prediction, names, lr, 3, order, start, clip=1.0, proximal=0.4)
    check(system, oracle, w)
    check(system, oracle, w, progress=0.5, shares=[1 / 6, 1 / 6, 2 / 3])
