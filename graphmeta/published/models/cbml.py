"""CBML and its variants: the session's cluster is an input of the prediction layer and gates its weights."""

from __future__ import annotations

from typing import Any

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.gated import Gated
from graphmeta.adapt.step import Step
from graphmeta.nn.conditioning.cluster import Clustered, SampleGated
from graphmeta.nn.conditioning.gate import Gates
from graphmeta.published.options import EVERYTHING, PREDICTOR, Anchor, ClusterGate
from graphmeta.published.parts import anchored, copied, last_layer, replace_last_layer, with_adaptation
from graphmeta.published.registry import published, variant
from graphmeta.published.unread import OF_TASKS
from graphmeta.system import System

_PAPER = "Song et al. 2021, CBML"
# base: the default base; encoder: the system whose trained weights initialise meta-training.
_IF_SAN: dict[str, Any] = {"base": "if_san", "encoder": "if_san", "unread": OF_TASKS}


@published(_PAPER, family="meta", equations="9-18", adapts="everything, from a gated start", **_IF_SAN)
def cbml(
    base: System,
    *,
    clusters: int = 8,
    gate: ClusterGate | None = ClusterGate(),
    scope: Scope = EVERYTHING,
    step: Step | float = 1e-3,
    inner: InnerLoop = InnerLoop(),
    anchor: Anchor = None,
) -> System:
    """CBML: the session's cluster gates the prediction layer, then gradient steps on the session's clicks adapt the
    model.

    ``o = σ(FC([S ; C]))``, ``θ_pre ← θ_pre · o``, ``θ ← θ − lr ∇ L_support(θ)``; score_i = ([S ; C] W + b) · e_i.
    S: session vector, C: its cluster vector (mean of prototypes, weighted by similarity), θ_pre: the prediction layer,
    σ: sigmoid, e_i: item vector, d: embedding width.

    Args:
        base: the system whose recommender is adapted, if_san in the paper; its last layer is replaced by one that also
            reads the cluster. The base itself is not modified.
        clusters: number of prototypes.
        gate: inputs and granularity of the gate, see :class:`~graphmeta.published.options.ClusterGate`; None for no
            gate. With one gate per session, score terms and the head's scale are gated too; for parameters stored in
            log space (some of ``cooccurrence``), the gate scales the logarithm. With one gate per sample, only the
            layer is gated. Gating W by columns scales ``[S ; C]``; by rows, it scales ``[S ; C] W`` before the bias,
            which has its own gate.
        scope: what a session adapts: ``PREDICTOR`` (the last layer), ``ENCODER_AND_HEAD`` or ``EVERYTHING``
            (the item table too) of :mod:`graphmeta.published.options`; prototypes and gates are shared by all sessions.
        step: learning rate of the inner steps, or e.g. ``LearnedRates(lr, per_step=True)``.
        inner: number of steps, order and bounds of the inner loop.
        anchor: what a task is, see :func:`~graphmeta.published.models.meta.maml`.

    Source: Song et al., CBML: A Cluster-based Meta-learning Model for Session-based Recommendation, CIKM 2021,
    eqs 9–18; its variants CBML-G (``gate=None``), CBML-C (``ClusterGate(cluster=False)``), CBML-S
    (``ClusterGate(session=False)``) and CBML-F (no item attributes). The suffix names what is removed: the gate reads
    only the session in CBML-C, and only the cluster in CBML-S.
    Differs: the prediction layer is 3d → d throughout (eqs 8 and 15 disagree); one gate value per weight; the gate
    reads the observed clicks only; the support is the last ten prefixes (``max_support``); in all variants the
    prediction layer reads ``[S ; C]``.
    """
    own = copied(base)
    session_size, out_size = last_layer(own.recommender)
    layer, start = Clustered(session_size, out_size, clusters=clusters), None
    if gate is not None and gate.per_sample:
        part = gate.entries_read(session_size)
        gates = Gates(len(range(session_size + out_size)[part]), granularity=gate.granularity)
        layer = SampleGated(session_size, out_size, gate=gates, part=part, clusters=clusters)
    elif gate is not None:
        part = gate.entries_read(session_size)
        start = Gated(PREDICTOR, session_size + out_size, part=part, granularity=gate.granularity)
    replace_last_layer(own.recommender, layer)
    scope, tasks = anchored(own, anchor, scope, step)
    return with_adaptation(own, Adaptation(scope, start=start, inner=inner, **tasks))


cbml_g = published(f"{_PAPER}-G", family="meta", equations="9-18", adapts="everything; no gate", **_IF_SAN)(
    variant("cbml_g", cbml, gate=None)
)
cbml_c = published(
    f"{_PAPER}-C", family="meta", equations="9-18", adapts="everything; gate without cluster", **_IF_SAN
)(variant("cbml_c", cbml, gate=ClusterGate(cluster=False)))
cbml_s = published(
    f"{_PAPER}-S", family="meta", equations="9-18", adapts="everything; gate without session", **_IF_SAN
)(variant("cbml_s", cbml, gate=ClusterGate(session=False)))
cbml_f = published(
    f"{_PAPER}-F",
    family="meta",
    equations="9-18",
    adapts="everything; without item attributes",
    items_only=True,
    **_IF_SAN,
)(variant("cbml_f", cbml))
