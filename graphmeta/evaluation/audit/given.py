"""What is audited: the parts of a split, as logs or as labelled samples of any origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.errors import InputError
from graphmeta.sampling.samples import Samples

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class LabelledSessions:
    """Contexts with their targets, as a training script made them: item ids of any kind.

    Args:
        contexts: the clicks of each sample, oldest first.
        targets: one item each.
        session: the id of the session that each sample was made of; without it, fewer checks can be made.
    """

    contexts: Sequence[Sequence[Any] | np.ndarray]
    targets: Sequence[Any] | np.ndarray
    session: Sequence[Any] | np.ndarray | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.contexts), len(self.targets)} | ({len(self.session)} if self.session is not None else set())
        if len(sizes) > 1:
            raise InputError(f"contexts, targets and session have the lengths {sorted(sizes)}; give one of each")

    @classmethod
    def of(cls, samples: Samples, log: EventLog | None = None) -> LabelledSessions:
        """Those of samples of this library, with item ids if the samples have them.

        Args:
            log: the log of the samples, for the ids of its sessions; they are unknown without it.
        """
        ids = None if samples.items is None else samples.items.ids
        item, ptr = samples.flat()
        click = item if ids is None else ids[item]
        target = samples.target if ids is None else ids[samples.target]
        session = None if log is None else log.sessions[samples.session]
        return cls([click[a:b] for a, b in zip(ptr[:-1], ptr[1:], strict=True)], target, session)

    def __len__(self) -> int:
        return len(self.targets)


Part = EventLog | LabelledSessions


def parts_of(given: Split | Mapping[str, Any]) -> dict[str, Part]:
    """The parts by name, those without events or samples left out.

    Raises:
        InputError: another type, an unknown name or no training part.
    """
    if isinstance(given, Split):
        given = dict(zip(PARTS, given.parts, strict=True))
    if not isinstance(given, Mapping):
        raise InputError(
            f"audit takes a split, or a dictionary of parts ({', '.join(PARTS)}), not a {type(given).__name__}; split "
            f"a log with split_by_time(log)"
        )
    if unknown := [name for name in given if name not in PARTS]:
        raise InputError(f"audit has no part {unknown[0]!r}; name them {', '.join(PARTS)}")
    one_log = len({id(part.item) for part in given.values() if isinstance(part, Samples)}) == 1
    found = {name: _part(name, given[name], one_log) for name in PARTS if name in given}
    if "train" not in found or not len(sessions_of(found["train"])):
        raise InputError("audit needs a training part that is not empty; pass it as 'train'")
    return {name: part for name, part in found.items() if len(sessions_of(part))}


def _part(name: str, given: Any, one_log: bool) -> Part:
    if isinstance(given, EventLog | LabelledSessions):
        return given
    if isinstance(given, Samples):  # numbers of sessions are comparable within one log
        return replace(LabelledSessions.of(given), session=given.session if one_log else None)
    raise InputError(
        f"part {name!r} is a {type(given).__name__}; pass a log, samples, or LabelledSessions(contexts, targets, "
        f"session)"
    )


def sessions_of(part: Part) -> np.ndarray:
    """The session ids of a part, one per session; numbers where there are none."""
    if isinstance(part, EventLog):
        return part.sessions
    return np.arange(len(part)) if part.session is None else pd.unique(np.asarray(part.session, dtype=object))


def clicks_of(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """All clicks of a part as item ids ``[E]``, and the pointer of its rows: sessions of a log, samples with the target
    last otherwise.
    """
    if isinstance(part, EventLog):
        return part.items.ids[part.item], part.ptr
    rows = [[*context, target] for context, target in zip(part.contexts, part.targets, strict=True)]
    ptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    flat = np.empty(int(ptr[-1]), dtype=object)
    flat[:] = [item for row in rows for item in row]
    return flat, ptr
