"""Options of published systems as objects, such as ``cbml(base, gate=ClusterGate(per_sample=True))``.

Their flat forms, for the command line and stored build specs, are in :mod:`~graphmeta.published.option_codecs`.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient, Step
from graphmeta.errors import InputError, check_whole
from graphmeta.nn.conditioning.gate import Full, Granularity

SCOPES: dict[str, Scope] = {
    "predictor": Scope("head.project", "head.score_terms", "head.scale", "head.item_bias"),
    "encoder_head": Scope("encoder", "head"),
    "all": Scope(""),
    "item_bias": Scope("head.item_bias"),
}
PREDICTOR, ENCODER_AND_HEAD, EVERYTHING, ITEM_BIAS = SCOPES.values()


@dataclass(frozen=True)
class ClusterGate:
    """What the gate of a session's weights reads in CBML, and its granularity.

    Args:
        session, cluster: whether the gate reads the session vector S and its cluster vector C.
        granularity: how gate values are broadcast over a weight, see :mod:`graphmeta.nn.conditioning.gate`.
        per_sample: a gate for each support sample and for the query, applied in each forward pass; inner steps update
            the ungated weights. If False, one gate per task, from its observed clicks, applied before the inner steps,
            which update the gated weights.
    """

    session: bool = True
    cluster: bool = True
    granularity: Granularity = Full()
    per_sample: bool = False

    def __post_init__(self) -> None:
        if not (self.session or self.cluster):
            raise InputError("a gate reads the session, the cluster or both; pass gate=None for no gate")

    def entries_read(self, session: int) -> slice:
        """The entries of ``[S ; C]`` that the gate reads; ``session`` is the size of S."""
        return slice(None if self.session else session, None if self.cluster else session)


@dataclass(frozen=True)
class UserTasks:
    """A user is a task: the items of the user's earlier sessions are the support, the present session is the query.

    Args:
        sessions: at most the last ``sessions`` sessions of a user; all if not given.
        max_support: at most the last ``max_support`` events of these.
        decay: the initial λ of the support weights ``exp(−λ sessions ago)``, see
            :class:`~graphmeta.adapt.support.UserSupport`.
        item_bias: whether the head gets an item bias, which a task adapts.
        bias_rate: its initial learning rate, if ``step`` is a number; the rates are then learned, one for the item
            bias and one, ``step``, for all other parameters, if there are any in scope.

    Raises:
        InputError: ``sessions`` or ``max_support`` below 1.
    """

    sessions: int | None = None
    max_support: int = 100
    decay: float = 0.05
    item_bias: bool = True
    bias_rate: float = 100.0

    def __post_init__(self) -> None:
        check_whole("max_support", self.max_support, 1)
        if self.sessions is not None:
            check_whole("sessions", self.sessions, 1)


Anchor = UserTasks | None  # what a task is: a user, or if None a session


def step_of(step: Step | float) -> Step:
    """The step itself, or plain gradient descent with this learning rate."""
    return Gradient(step) if isinstance(step, int | float) else step
