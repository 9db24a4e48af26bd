"""Meta-learned recommenders of the papers: a recommender, and a scope, a start and a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.published.parts import Base, adapting, base_system, step_of
from graphmeta.published.session import if_san, sr_gnn
from graphmeta.system import System
from graphmeta.tables import EntityTable


def maml(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = sr_gnn,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    scope: Sequence[str] = ("encoder", "head"),
    lr: float = 0.05,
    learned: bool = False,
    steps: int = 1,
    order: int = 1,
) -> System:
    """MAML around any recommender: shared weights from which one step on a session's own clicks leads far.

    ``θ_t = θ − lr ∇ L_support(θ)``, trained so that ``L_query(θ_t)`` is small.

    Args:
        users: the people, for a base that knows them.
        base: builds the system whose recommender is wrapped (or its name in the catalogue); options: its arguments.
        scope: the parameters a session changes.
        learned: a rate for each number, learned, of its own in each step; they begin at ``lr``.

    Source: Finn, Abbeel, Levine, Model-Agnostic Meta-Learning, ICML 2017, eq 1 and Algorithm 1; Li et al. 2017
    (Meta-SGD) for the learned rates.
    """
    inner = base_system(base, items, users=users, width=width, options=options)
    adaptation = Adaptation(Scope(*scope), step=step_of(lr, learned=learned), steps=steps, order=order)
    return adapting(inner, items, adaptation)


def multi_ft(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = if_san,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    lr: float = 1e-3,
    steps: int = 1,
) -> System:
    """Multi-FT: the base trained as usual; a session's own clicks fine-tune all of it before it is asked.

    Args: as :func:`maml`.

    Source: CBML §5 (baseline). Differs: the number of steps and the rate are not given there; one step at 1e-3.
    """
    inner = base_system(base, items, users=users, width=width, options=options)
    return adapting(inner, items, Adaptation(Scope(""), step=Gradient(lr), steps=steps, trained=False))


def melu(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = if_san,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    lr: float = 1e-3,
    steps: int = 1,
    order: int = 1,
) -> System:
    """MeLU on sessions: the last layer is adapted, everything is meta-trained.

    Args: as :func:`maml`.

    Source: Lee et al., MeLU, KDD 2019, Algorithm 1, on IF-SAN as in CBML §5. Differs: a true meta-gradient of the
    stated order; the released code copies its fast weights and has none.
    """
    inner = base_system(base, items, users=users, width=width, options=options)
    return adapting(inner, items, Adaptation(Scope("head.project"), step=Gradient(lr), steps=steps, order=order))
