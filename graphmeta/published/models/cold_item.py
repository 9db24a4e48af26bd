"""Cold-start items, for any system that scores item vectors."""

from __future__ import annotations

from graphmeta.errors import InputError
from graphmeta.nn.features.attribute_sum import AttributeComposed
from graphmeta.protocols import ComposesItems, TiedItems
from graphmeta.published.parts import copied
from graphmeta.published.registry import published
from graphmeta.system import System


@published("Volkovs et al. 2017, DropoutNet", family="cold_item", base="sr_gnn")
def dropout_net(base: System, *, drop: float = 0.5) -> System:
    """DropoutNet on any base: an item vector is its id vector plus its attribute vectors; a new item has only the
    latter.

    ``e_i = m_i o_i + Σ_a v_a(i)``, ``m_i = 0`` for an item without training clicks and, in training, at random.

    Args:
        base: a system with an item table, which is not modified. An adaptation wraps this system, not its base:
            ``cbml(dropout_net(if_san(items)))``.
        drop: dropout rate of id vectors.

    Raises:
        InputError: a rate outside of [0, 1), a base without an item table, with an adaptation, or with
            attribute-composed items.

    Source: Volkovs, Yu, Poutanen, DropoutNet: Addressing Cold Start in Recommender Systems, NeurIPS 2017.
    Differs: see :class:`~graphmeta.nn.features.attribute_sum.AttributeComposed`; items only, not users.
    """
    system, items = copied(base), base.items
    if not 0 <= drop < 1:
        raise InputError(f"drop={drop!r} is the dropout rate of id vectors: at least 0, below 1")
    if any(isinstance(part, ComposesItems) for part in system.modules()):
        raise InputError("the base already has attribute-composed items; pass the base inside it")
    if system.adaptation is not None:
        raise InputError(
            "the base has an adaptation; wrap this system with it instead: cbml(dropout_net(if_san(items)))"
        )
    tables = [part for part in system.recommender.features.modules() if isinstance(part, TiedItems)]
    if not tables:
        raise InputError(f"{type(system.recommender.features).__name__} has no table of items; choose another base")
    for part in tables:
        part.item = AttributeComposed(part.item, items.categories, drop=drop)
    return system
