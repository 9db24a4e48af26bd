"""Items nobody has clicked, in any system that scores item vectors."""

from __future__ import annotations

from graphmeta.errors import InputError
from graphmeta.nn.features.attribute_sum import AttributeComposed
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.published.parts import copied
from graphmeta.published.registry import published
from graphmeta.system import System


@published("Volkovs et al. 2017, DropoutNet", family="cold_item", base="sr_gnn")
def dropout_net(base: System, *, drop: float = 0.5) -> System:
    """DropoutNet around any base: an item is its own vector and its attributes', and a new one these alone.

    ``e_i = m_i o_i + Σ_a v_a(i)``, ``m_i = 0`` for an item without training clicks and, in training, at random.

    Args:
        base: a system with a table of items, which stays as it is; an adaptation goes around this, not into it:
            ``cbml(dropout_net(if_san(items)))``.
        drop: how many own vectors are left out in training.

    Source: Volkovs, Yu, Poutanen, DropoutNet: Addressing Cold Start in Recommender Systems, NeurIPS 2017.
    Differs: see :class:`~graphmeta.nn.features.attribute_sum.AttributeComposed`; items alone, not users.
    """
    system, items = copied(base), base.items
    if not 0 <= drop < 1:
        raise InputError(f"drop={drop} is the share of own vectors that are left out: at least 0, below 1")
    if any(isinstance(part, AttributeComposed) for part in system.modules()):
        raise InputError("the base's items are known by their attributes already; name the base inside it")
    if system.adaptation is not None:
        raise InputError("what adapts goes around items known by attributes: cbml(dropout_net(if_san(items)))")
    tables = [part for part in system.recommender.features.modules() if isinstance(part, ItemFeatures)]
    if not tables:
        raise InputError(f"{type(system.recommender.features).__name__} has no table of items; choose another base")
    for part in tables:
        part.item = AttributeComposed(part.item, items.attributes, drop=drop)
    return system
