"""Options that a system does not read where others have certain values: changing them is a warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphmeta.published.flat_options import LEARNED


@dataclass(frozen=True)
class Unread:
    """Options that are not read where all the others named have one of their values here; all by flat names."""

    options: tuple[str, ...]
    when: Mapping[str, tuple[Any, ...]]

    def changed(self, flat: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
        """The options that are not read, and do not have their default."""
        if any(flat.get(other) not in values for other, values in self.when.items()):
            return []
        return [one for one in self.options if one in flat and flat[one] != defaults[one]]


FULL_SOFTMAX = Unread(("negatives", "alpha"), {"loss": ("cross_entropy",)})
NO_COSINE = Unread(("scale",), {"normalised": (False,)})
NO_MESSAGES = Unread(("weighted", "messages"), {"steps": (0,)})
_NO_STEPS = Unread(("lr", "path_lr", "learned", "order", "inner"), {"steps": (0,)})
_USERS = {"anchor": ("user",)}
OF_TASKS = (
    Unread(("bias_rate",), {**_USERS, "item_bias": (False,)}),
    Unread(("bias_rate",), {**_USERS, "learned": LEARNED}),
    # The rate of the item bias is bias_rate, and no other parameter is in scope.
    Unread(("lr",), {**_USERS, "scope": ("item_bias",), "item_bias": (True,), "learned": (False,)}),
)


def warn_unread_options(
    name: str, flat: Mapping[str, Any], defaults: Mapping[str, Any], unread: Iterable[Unread]
) -> None:
    """Warn of options of the system ``name`` that are not read although they do not have their defaults.

    Warns:
        UserWarning: the options, and the others because of which they are not read.
    """
    for rule in (_NO_STEPS, *unread):
        if changed := rule.changed(flat, defaults):
            because = " and ".join(f"{other}={flat[other]!r}" for other in rule.when)
            warnings.warn(
                f"{name} does not read {', '.join(changed)} with {because}; leave it out, or change "
                f"{' or '.join(rule.when)}",
                stacklevel=4,
            )
