"""Named public logs."""

from __future__ import annotations
from pathlib import Path
from graphmeta.events import EventLog
from graphmeta.tables import EntityTable


def complete_journey() -> EventLog:
    here = Path(__file__).parent
    folder = next(
        f
        for f in (here / "_data" / "complete_journey", here.parent / "data" / "complete_journey")
        if f.is_dir()
    )
    items = EntityTable.read(
        folder / "products.csv.gz",
        key="product",
        attributes=["category", "department", "brand", "seller"],
        label="name",
    )
    users = EntityTable.read(folder / "households.csv.gz", key="household", complete=False)
    return EventLog.read(
        folder / "events.csv.gz",
        session="basket",
        item="product",
        time="time",
        user="household",
        items=items,
        users=users,
    )
