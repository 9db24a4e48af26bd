"""Filters of recommendations: which items of the catalogue may be recommended."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, counted, nearest
from graphmeta.protocols import Adapting
from graphmeta.sampling.queries import meant

# Item ids, a mask [num_items], or values of columns of the item table: {"brand": ["X", "Y"], "category": "shoes"}.
Chosen = Iterable[Any] | Mapping[str, Any]


class CallOptions(Adapting, total=False):
    """Options of one call of ``recommend``: filters, and those of adaptation."""

    among: Chosen | None
    exclude: Chosen | None
    exclude_seen: bool


@dataclass(frozen=True)
class Filters:
    """Which items may be recommended.

    Args:
        among: only these: item ids (of those in stock), a mask ``[num_items]``, or values of columns of the item table,
            ``{"brand": ["X", "Y"], "category": "shoes"}``: values of one column are alternatives, conditions on several
            columns must all hold.
        exclude: none of these, in the same forms.
        exclude_seen: none of the items of the session itself.

    Warns:
        UserWarning: ids that are unknown to the model, with their number and the first.

    Raises:
        InputError: one id instead of several, a mask of another size, a column or value that the item table does not
            have, or ``among`` without any known item.

    >>> items = EntityTable(np.array(["a", "b", "c"], dtype=object), {})
    >>> Filters(among=["a", "b"], exclude=["b"]).allowed(items).tolist()
    [True, False, False]
    """

    among: Chosen | None = None
    exclude: Chosen | None = None
    exclude_seen: bool = False

    def allowed(self, items: EntityTable) -> np.ndarray | None:
        """Mask ``[num_items]`` of the items that may be recommended; None if all may."""
        if self.among is None and self.exclude is None:
            return None
        mask = np.ones(len(items), dtype=bool)
        if self.among is not None:
            mask = chosen_items("among", self.among, items)
            if not mask.any():
                raise InputError("among= has no item that is known to this model; name at least one")
        if self.exclude is not None:
            mask = mask & ~chosen_items("exclude", self.exclude, items)
        return mask


def taken_from(options: CallOptions) -> tuple[Filters, Adapting]:
    """The filters of a call, and its other options."""
    own = {name: value for name, value in options.items() if name in Filters.__dataclass_fields__}
    rest = {name: value for name, value in options.items() if name not in own}
    return Filters(**own), rest  # pyright: ignore[reportArgumentType, reportReturnType]


def chosen_items(name: str, chosen: Chosen, items: EntityTable) -> np.ndarray:
    """Mask ``[num_items]`` of the items that are chosen by ids, by a mask or by columns.

    Args:
        name: of the argument, for messages.
    """
    if isinstance(chosen, Mapping):
        return _by_columns(name, chosen, items)
    if isinstance(chosen, str | bytes) or not isinstance(chosen, Iterable):
        raise InputError(f"{name}={chosen!r} is one id, not several; pass a list of item ids: [{chosen!r}]")
    given = chosen.cpu().numpy() if isinstance(chosen, Tensor) else chosen
    if isinstance(given, np.ndarray) and given.dtype == bool:
        if given.shape != (len(items),):
            raise InputError(
                f"{name}= is a mask of the shape {given.shape}, and the model has {len(items)} items; pass one value "
                f"per item, or item ids"
            )
        return given.copy()
    wanted = [one.item() if isinstance(one, np.generic) else one for one in given]
    whole = all(isinstance(one, int) for one in wanted)
    rows = items.rows_of(np.array(wanted) if whole else np.array(wanted, dtype=object))
    if (rows < 0).any():
        first = wanted[int(np.argmax(rows < 0))]
        missing = f"{int((rows < 0).sum()):,} of {counted(len(rows), 'id')} unknown to this model, without effect"
        warnings.warn(
            f"{name}: {missing}, the first: {first!r}; {meant(first, items)}leave them out".replace("Otherwise ", ""),
            stacklevel=5,
        )
    mask = np.zeros(len(items), dtype=bool)
    mask[rows[rows >= 0]] = True
    return mask


def _by_columns(name: str, chosen: Mapping[str, Any], items: EntityTable) -> np.ndarray:
    mask = np.ones(len(items), dtype=bool)
    for column, values in chosen.items():
        if column not in items.categories:
            there = ", ".join(items.categories) or "none"
            near = nearest(column, items.categories)
            meaning = f"did you mean {near!r}? " if near else ""
            raise InputError(
                f"{name}: the items have no categorical column {column!r}; {meaning}they have: {there} (pass item ids "
                f"for other conditions)"
            )
        several = isinstance(values, Iterable) and not isinstance(values, str | bytes)
        mask &= _with_value(name, column, [str(one) for one in (values if several else [values])], items)
    return mask


def _with_value(name: str, column: str, wanted: list[str], items: EntityTable) -> np.ndarray:
    """Mask of the items that have any of these values of a categorical column."""
    values = items.categories[column]
    codes = {str(value): code for code, value in enumerate(values.values)}
    strange = next((one for one in wanted if one not in codes), None)
    if strange is not None:
        near = nearest(strange, codes)
        meaning = f"did you mean {near!r}? " if near else ""
        raise InputError(f"{name}: no item has {column}={strange!r}; {meaning}correct the value")
    padded, shares = values.features().padded()
    return np.asarray((np.isin(padded, [codes[one] for one in wanted]) & (shares > 0)).any(1))
