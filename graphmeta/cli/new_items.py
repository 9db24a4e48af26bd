"""Items of a catalogue without clicks, added to trained systems and to a split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import Split
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, counted
from graphmeta.published.training_plan import Say
from graphmeta.system import System


def with_new_items(
    system: System, base: System | None, new: EntityTable, *, name: str, say: Say
) -> tuple[System, System | None]:
    """The systems with the items of a catalogue that have no training event, if both can rank these; else unchanged.

    Args:
        base: another system that is compared with it, if any.
        say: called with a line on the new items.
    """
    them = f"{counted(len(new), 'item')} of the item file without training events"
    try:
        if not system.has_weights:
            raise InputError(f"{name} ranks items by counts alone")
        more = system.extended(new), None if base is None else base.extended(new)
    except InputError:
        say(
            f"note: {name} cannot rank the {them}, so it never recommends them; dropout_net composes items of their "
            f"attributes"
        )
        return system, base
    say(f"{name} also ranks the {them}, by their attributes")
    return more


def with_vocabulary(split: Split, log: EventLog | ScannedLog, items: EntityTable) -> Split:
    """The split with further items at the end of its vocabulary, and the test clicks of the whole log on them."""
    train, valid = replace(split.train, items=items), replace(split.valid, items=items)
    test = log.after(split.test_from if split.test_from is not None else np.inf).aligned_to(items, split.train.users)
    unknown = split.unknown - (test.num_events - split.test.num_events)
    return replace(split, train=train, valid=valid, test=test, unknown=unknown)
