"""CBML and its variants: a session's cluster is read by the prediction layer, and gates it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.gated import Gated
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.conditioning.cluster import Clustered, SampleGated
from graphmeta.nn.conditioning.gate import Gates, Granularity, granularity_called
from graphmeta.published.parts import (
    FIXED,
    Base,
    adapting,
    base_system,
    last_layer,
    loop_of,
    replace_last_layer,
    scope_called,
    step_of,
)
from graphmeta.published.recipe import recorded, variant
from graphmeta.published.session import if_san
from graphmeta.system import System

PREDICTOR = ("head.project.weight", "head.project.bias", "head.score_terms", "head.scale")
SEEN = {"both": lambda session: slice(None), "session": slice, "cluster": lambda session: slice(session, None)}


@recorded
def cbml(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = if_san,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    attributes: bool = True,
    clusters: int = 8,
    gate: str = "both",
    granularity: Granularity | str = "full",
    gate_scope: str = "session",
    scope: Sequence[str] | str = "all",
    lr: float = 1e-3,
    learned: bool | str = False,
    steps: int = 1,
    order: int = 1,
    inner: Mapping[str, Any] | None = None,
) -> System:
    """CBML: a session's cluster gates the prediction layer, then a step on the session's own clicks.

    ``o = σ(FC([S ; C]))``, ``θ_pre ← θ_pre · o``, ``θ ← θ − lr ∇ L_support(θ)``; score_i = ([S ; C] W + b) · e_i.

    Args:
        users, base, options: see :func:`~graphmeta.published.meta.maml`; the base's last layer is replaced by one that
            also reads the cluster.
        attributes: whether the base sees the items' attributes.
        clusters: prototypes.
        gate: what of ``[S ; C]`` the gate sees: ``both``, ``session`` (S), ``cluster`` (C); ``none`` is no gate.
            A head's score_terms (:func:`~graphmeta.published.parts.with_score_terms`) and scale are gated with the
            layer, logarithms as they stand, where there is one gate a session; gates of samples are of the layer alone.
        granularity: ``full`` (a gate value a weight), ``row`` (an output), ``column`` (an input) or ``rank1`` (both,
            multiplied), or one of the classes of :mod:`graphmeta.nn.conditioning.gate`. With ``column``, gating W is
            scaling ``[S ; C]``; with ``row``, it is scaling ``[S ; C] W`` before the bias, which has a gate of its own.
        gate_scope: ``session``: one gate a task, from the session as it stands before the query, and the step moves
            the gated weights; ``sample``: a gate of its own for each support sample and for the query, and the step
            moves the weights below the gates.
        scope: what a session changes: ``predictor`` (the last layer), ``attention`` (encoder and head) or ``all`` (the
            item table too), never clusters and gates; or names, as :class:`~graphmeta.adapt.scope.Scope` takes them.
        learned, inner: see :func:`~graphmeta.published.meta.maml`.
        steps, order: see :class:`~graphmeta.adapt.inner.InnerLoop`.

    Source: Song et al., CBML: A Cluster-based Meta-learning Model for Session-based Recommendation, CIKM 2021,
    eqs 9–18; its variants CBML-G (``gate="none"``), CBML-C (``gate="session"``), CBML-S (``gate="cluster"``; the
    letter names what is taken away) and CBML-F (``attributes=False``).
    Differs: the prediction layer is 3d → d throughout (eqs 8 and 15 disagree); one gate value for each weight; the
    gate reads the session as it stands before the query; the support is the last ten prefixes (``max_support``);
    in all variants the prediction layer reads ``[S ; C]``.
    """
    seen = items if attributes else replace(items, attributes={})
    wrapped = base_system(base, seen, users=users, width=width, options=options)
    session, out = last_layer(wrapped.recommender)
    if gate not in (*SEEN, "none") or gate_scope not in ("session", "sample"):
        raise InputError(
            f"gate={gate!r} must be one of {', '.join(SEEN)}, none, and gate_scope={gate_scope!r} session or sample"
        )
    kind, layer, start = granularity_called(granularity), Clustered(session, out, clusters=clusters), None
    if gate != "none":
        part = SEEN[gate](session)
        if gate_scope == "session":
            start = Gated(Scope(*PREDICTOR, without=FIXED), session + out, part=part, granularity=kind)
        else:
            gates = Gates(len(range(session + out)[part]), granularity=kind)
            layer = SampleGated(session, out, gate=gates, part=part, clusters=clusters)
    replace_last_layer(wrapped.recommender, layer)
    loop, step = loop_of(steps, order, inner), step_of(lr, learned=learned)
    return adapting(wrapped, items, Adaptation(scope_called(scope), step=step, start=start, inner=loop))


cbml_g = variant("cbml_g", cbml, gate="none")
cbml_c = variant("cbml_c", cbml, gate="session")
cbml_s = variant("cbml_s", cbml, gate="cluster")
cbml_f = variant("cbml_f", cbml, attributes=False)
