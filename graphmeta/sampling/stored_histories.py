"""Users' histories in a file next to a model; written only on request, since they are personal data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.storage import delete_state, load_state, save_state

_NAME = "histories"


def save_histories(folder: Path, histories: UserHistories | None) -> None:
    """Write the histories to a folder; without any, remove those that an earlier save has left there."""
    if histories is None:
        delete_state(folder, _NAME)
        return
    columns = {"item": histories.item, "time": histories.time, "begin": histories.begin, "owner": histories.owner}
    tensors = {name: torch.from_numpy(column.copy()) for name, column in columns.items()}
    ids = {"sessions": histories.sessions.tolist(), "users": histories.users.ids.tolist()}
    save_state(folder, _NAME, tensors, {**ids, "has_time": histories.has_time})


def load_histories(folder: Path, items: EntityTable) -> UserHistories | None:
    """The histories in a folder, None if it has none.

    Raises:
        InputError: a damaged file, or one of another vocabulary.
    """
    if not (folder / f"{_NAME}.json").is_file():
        return None
    tensors, document = load_state(folder, _NAME)
    try:
        columns = {name: tensors[name].numpy() for name in ("item", "time", "begin", "owner")}
        sessions, users = (np.array(document[name], dtype=object) for name in ("sessions", "users"))
        known = UserHistories.of_columns(
            {**columns, "sessions": sessions},
            items=items,
            users=EntityTable(users, {}),
            has_time=bool(document["has_time"]),
        )
        if len(known.item) and not (known.item.min() >= 0 and known.item.max() < len(items)):
            raise IndexError("an item that the model does not have")
        return known
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{folder / _NAME}.json: not the histories of this model ({error}); save it again") from None
