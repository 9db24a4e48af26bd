"""The graph that a system's encoder reads: of a log, or of the item table alone."""

from __future__ import annotations

import numpy as np
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.graph import from_hetero
from graphmeta.data.splits import check_log
from graphmeta.data.tables import EntityTable, same_ids
from graphmeta.errors import InputError
from graphmeta.sampling.neighbourhood import Neighbourhood
from graphmeta.sampling.subgraph import SubgraphSampler


def log_of(source: EventLog | HeteroData, items: EntityTable) -> EventLog:
    """The log of a graph, with the item indices of a model; a log that has them keeps its own columns of the items, if
    they include those of the model.

    Raises:
        InputError: neither a log nor a graph, or no event on an item of the model.
    """
    log = from_hetero(source) if isinstance(source, HeteroData) else source
    check_log("graph=", log)
    if same_ids(items, log.items) and has_columns(log.items, items):
        return log
    log = log.aligned_to(items, log.users)
    if log.num_events == 0:
        raise InputError("the graph has no event on an item of the model; give it the training log, or a later one")
    return log


def has_columns(table: EntityTable | None, wanted: EntityTable | None) -> bool:
    """Whether a table has the categorical columns of another."""
    return wanted is None or (table is not None and wanted.categories.keys() <= table.categories.keys())


def sampler_of(
    log: EventLog, neighbourhood: Neighbourhood, *, items: EntityTable, users: EntityTable | None
) -> SubgraphSampler:
    """The sampler of a system with these tables.

    Raises:
        InputError: item or user values that are not numbered as in the tables, or users in the log that the system does
            not have, whose nodes the encoder reads.
    """
    if neighbourhood.reads_users and users is None and log.users is not None:
        raise InputError("the encoder reads the graph's users and the system has none; build it with users=log.users")
    if neighbourhood.attributes:
        for owner, own, given in (("item", items, log.items), ("user", users, log.users)):
            if (name := _other_values(own, given)) is not None:
                raise InputError(
                    f"the graph's values of the {owner} column {name!r} are not those of the system; give it "
                    f"log.aligned_to(system.items, system.users)"
                )
    return SubgraphSampler(log, **vars(neighbourhood))


def item_sampler(items: EntityTable, neighbourhood: Neighbourhood) -> SubgraphSampler:
    """The sampler of the graph of an item table, for encoders of item attributes and of earlier sessions, which then
    come with the samples.
    """
    nothing, names = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=object)
    log = EventLog(nothing, nothing.copy(), np.zeros(0), names, items, EntityTable(names, {}), nothing.copy())
    return SubgraphSampler(log, **vars(neighbourhood))


def _other_values(own: EntityTable | None, given: EntityTable | None) -> str | None:
    """The first categorical column of a given table whose values have other codes than in the system's own."""
    if own is None or given is None or own is given:
        return None
    for name, column in given.categories.items():
        known = own.categories.get(name)
        if known is None or known.values[: len(column.values)].tolist() != column.values.tolist():
            return name
    return None
