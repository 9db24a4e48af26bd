"""What is asked of a model and what is told of it: the cut of a log, the comparison with rivals, examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.batch import Samples, last_clicks
from graphmeta.curves import held_at
from graphmeta.errors import InputError
from graphmeta.evaluate import Result, evaluate
from graphmeta.events import EventLog
from graphmeta.metrics import ranks
from graphmeta.neighbours import Popularity, SessionKNN, Stan, as_in
from graphmeta.splits import Split, split_by_time
from graphmeta.storage import load_state, save_state
from graphmeta.system import Recommendation, System
from graphmeta.tables import EntityTable, locate

KS = (5, 20)
Bar = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Columns:
    """Which columns of an event file hold what, and the pause in seconds that ends a session without a column."""

    item: str
    session: str | None = None
    time: str | None = None
    user: str | None = None
    inactivity_seconds: float = 3600.0

    def read(self, events: Path, *, items: EntityTable | None = None, users: EntityTable | None = None) -> EventLog:
        """The log in this file."""
        return EventLog.read(
            events,
            session=self.session,
            item=self.item,
            time=self.time,
            user=self.user,
            items=items,
            users=users,
            inactivity_seconds=self.inactivity_seconds,
        )


def entities(
    file: Path | None,
    key: str | None,
    *,
    attributes: str | None = None,
    label: str | None = None,
    complete: bool = True,
) -> EntityTable | None:
    """The table of items or users in a file, if there is one; errors name the file.

    Args:
        key: its column of ids.
        attributes: its columns of categories, as ``A,B``.
        complete: whether an id without a row is an error.
    """
    if file is None:
        if attributes or label:
            raise InputError("--attributes and --label are columns of an item file: name it with --items")
        return None
    if key is None:
        raise InputError("--users needs --user, the column of user ids in the log")
    names = None if attributes is None else [name.strip() for name in attributes.split(",") if name.strip()]
    try:
        return EntityTable.read(file, key=key, attributes=names, label=label, complete=complete)
    except InputError as error:
        raise InputError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


@dataclass(frozen=True)
class Rules:
    """Shares of sessions for test and validation, and what the training part leaves out."""

    test: float = 0.1
    valid: float = 0.1
    min_item_support: int = 5
    min_session_length: int = 2


def cut(log: EventLog, rules: Rules) -> Split:
    """Cut by time, then filter the training part alone, so that nothing after the cut has a say in it.

    Raises:
        InputError: a part with nothing to learn from or to ask, or too few items to rank 20 of them.
    """
    if not rules.test > 0:
        raise InputError("--test must be above 0: without a test part nothing can be measured")
    raw = split_by_time(log, test=rules.test, valid=rules.valid)
    train = raw.train.filter(min_item_support=rules.min_item_support, min_session_length=rules.min_session_length)
    if train.num_items <= max(KS):
        raise InputError(
            f"k={max(KS)} is not below the number of items to train on, {train.num_items}: every model would "
            f"score 1; bring more items, or lower --min-item-support"
        )
    valid, test = (part.aligned_to(train.items, train.users) for part in (raw.valid, raw.test))
    for part, share, option in ((valid, rules.valid, "--valid"), (test, rules.test, "--test")):
        if share and len(questions(part, rules)) == 0:
            raise InputError(
                f"no session in the share of {option} has {max(rules.min_session_length, 2)} items known from "
                f"training; raise {option}, or bring longer sessions"
            )
    lost = raw.valid.num_events + raw.test.num_events - valid.num_events - test.num_events
    return replace(raw, train=train, valid=valid, test=test, unknown=raw.unknown + lost)


def questions(log: EventLog, rules: Rules) -> Samples:
    """The last click of each session that is long enough, to be found from those before it."""
    return last_clicks(log, min_length=rules.min_session_length)


def cuts(log: EventLog, split: Split) -> dict[str, Any]:
    """What must be kept to tell later which sessions of a file begin after training and validation."""
    last = log.sessions[np.flatnonzero(log.starts < split.test_from)[-1]]
    return {
        "has_time": log.has_time,
        "valid_from": split.valid_from,
        "test_from": split.test_from,
        "last_session_before_test": last.item() if hasattr(last, "item") else last,
    }


def unseen(log: EventLog, kept: Mapping[str, Any]) -> EventLog:
    """The sessions that begin after the training and validation of a model with these cuts.

    Without times, those after the last validation session; all, if the log does not have it.

    Raises:
        InputError: there is none.
    """
    if kept["has_time"]:
        new = log.starts >= kept["test_from"]
    else:
        at = locate(log.sessions, np.array([kept["last_session_before_test"]]))
        new = np.arange(log.num_sessions) > at[0]
    if not new.any():
        raise InputError(
            f"all {log.num_sessions} sessions lie before {when(kept)}, the model's training and validation cut; "
            f"bring later ones"
        )
    return log.of_sessions(new)


def when(kept: Mapping[str, Any]) -> str:
    """The beginning of the test part, for people."""
    if not kept["has_time"]:
        return f"the end of session {kept['last_session_before_test']}"
    try:
        return datetime.fromtimestamp(kept["test_from"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"time {kept['test_from']:.0f}"


def remember(folder: Path, log: EventLog) -> None:
    """Write the training sequences as ``history``: items by session, without ids, users or times."""
    tensors = {
        "item": torch.from_numpy(log.item.astype(np.int32)),
        "ptr": torch.from_numpy(log.ptr.astype(np.int64)),
    }
    save_state(folder, "history", tensors, {"sessions": log.num_sessions, "events": log.num_events})


def recall(folder: Path, items: EntityTable) -> EventLog:
    """The training sequences that :func:`remember` wrote, as a log without times."""
    tensors, _ = load_state(folder, "history")
    return _sequences(tensors["item"].numpy().astype(np.int64), tensors["ptr"].numpy(), items)


def anonymous(log: EventLog) -> EventLog:
    """The log as :func:`recall` would bring it back: what baselines see after training and later is the same."""
    return _sequences(log.item, log.ptr, log.items)


def _sequences(item: np.ndarray, ptr: np.ndarray, items: EntityTable) -> EventLog:
    session = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    time = np.arange(len(item), dtype=np.float64)
    return EventLog(session, item, time, np.arange(len(ptr) - 1), items, has_time=False)


def baselines(past: EventLog) -> dict[str, Any]:
    """Popularity, session kNN and STAN; where no session of the log repeats an item, they do not either."""
    models = {"popularity": Popularity(past), "session_knn": SessionKNN(past), "stan": Stan(past)}
    return {name: as_in(past, model) for name, model in models.items()}


def compare(
    system: System, asked: Samples, *, past: EventLog, alone: System | None = None, bar: Bar
) -> dict[str, Result]:
    """How well the system and its rivals answer the same questions, by their names in JSON.

    Of a system that adapts, ``without_steps`` says what its sessions' own steps are worth.

    Args:
        past: the training log, which the baselines count in and the slices by item frequency refer to.
        alone: a plain encoder trained as such.
        bar: ``(batches, name) -> batches``, shows progress.
    """

    def measured(scorer: Any, name: str) -> Result:
        return evaluate(scorer, asked, ks=KS, support=past.support, progress=lambda rows: bar(rows, name))

    found = {name: measured(rival, name.replace("_", " ")) for name, rival in baselines(past).items()}
    if alone is not None:
        found["encoder_alone"] = measured(alone, "encoder alone")
    if system.adaptation is not None:
        with held_at(system.adaptation, "steps", 0):  # where a session starts from (a gate, a memory) is as trained
            found["without_steps"] = measured(system, "without steps")
    return found | {"system": measured(system, "system")}


def metrics(results: Mapping[str, Result], *, system: str, seed: int) -> dict[str, Any]:
    """The flat object of ``metrics.json``: fractions in [0, 1], and what they are fractions of."""
    own = results["system"]
    rivals = [name for name in ("popularity", "session_knn", "stan", "encoder_alone") if name in results]
    off = [name for name in ("without_steps",) if name in results]
    return {
        "system": system,
        "candidates": own.candidates,
        "samples": own.samples,
        "seed": seed,
        **own.metrics,
        "slices": own.slices,
        "baselines": {name: results[name].metrics for name in rivals},
        **{name: results[name].metrics for name in off},
        "ties": own.ties,
    }


@dataclass(frozen=True)
class Example:
    """A session, what was recommended to it, and what came next: its row among the items, and its rank."""

    known: list[str]
    offered: list[Recommendation]
    next_item: Any
    next_name: str
    rank: int


def examples(system: System, test: EventLog, *, number: int = 3, k: int = 5) -> list[Example]:
    """Recommendations for sessions of two to six known clicks, at even distances through the test log."""
    asked, items = last_clicks(test), system.items
    fitting = np.flatnonzero((asked.lengths >= 2) & (asked.lengths <= 6))
    chosen = asked.take(fitting[np.linspace(0, len(fitting), number + 2)[1:-1].astype(int)])
    sessions = [asked.item[b:e] for b, e in zip(chosen.begin, chosen.end, strict=True)]
    times, users = chosen.time, system.users
    offers = system.recommend_many(
        [items.ids[s] for s in sessions],
        k,
        times=None if times is None else [times[b:e].tolist() for b, e in zip(chosen.begin, chosen.end, strict=True)],
        users=None if users is None or chosen.user is None else [users.ids[u] if u >= 0 else None for u in chosen.user],
        exclude_seen=True,
    )
    found = ranks(system.scores(chosen), torch.from_numpy(chosen.target)).ceil().int().tolist()
    told = zip(sessions, offers, chosen.target, found, strict=True)
    return [
        Example([items.describe(i) for i in known], offer, items.ids[true], items.describe(true), rank)
        for known, offer, true, rank in told
    ]


def session_number(log: EventLog, around: str | None) -> int:
    """The number of the session of this id; without an id, of one neither short nor long.

    Raises:
        InputError: no such session.
    """
    if around is None:
        usual = np.clip(np.median(log.lengths), 3, 8)
        return int(np.abs(log.lengths - usual).argmin())
    at = int(locate(log.sessions, np.array([around], dtype=object))[0])
    if at < 0:
        raise InputError(f"no session {around!r} in the log; its first is {log.sessions[0]!r}")
    return at


def node_names(log: EventLog, graph: HeteroData) -> dict[str, np.ndarray]:
    """What each node is called: the ids of sessions and users, names of items, values of attributes."""
    names = {
        "session": log.sessions,
        "item": np.array([log.items.describe(row) for row in range(log.num_items)]),
    }
    tables = [log.items] if log.users is None else [log.items, log.users]
    if log.users is not None:
        names["user"] = log.users.ids
    values = [column.values for table in tables for column in {**table.attributes, **table.several}.values()]
    return names | dict(zip([kind for kind in graph.node_types if kind not in names], values, strict=True))


def save_graph(folder: Path, graph: HeteroData, names: Mapping[str, np.ndarray]) -> None:
    """Write a graph as ``graph.json`` and safetensors; ``names`` holds the original ids of the types that have some."""
    tensors = {"/".join((*edge, key)): value for edge in graph.edge_types for key, value in graph[edge].items()}
    sizes = {kind: graph[kind].num_nodes for kind in graph.node_types}
    document = {"nodes": sizes, "names": {kind: ids.tolist() for kind, ids in names.items()}}
    save_state(folder, "graph", tensors, document)


def load_graph(folder: Path) -> HeteroData:
    """The graph that :func:`save_graph` wrote; each node type's original ids as ``graph[kind].names``."""
    tensors, document = load_state(folder, "graph")
    graph = HeteroData()
    for kind, size in document["nodes"].items():
        graph[kind].num_nodes = size
        if kind in document["names"]:
            graph[kind].names = document["names"][kind]
    for path, value in tensors.items():
        source, relation, target, key = path.split("/")
        graph[source, relation, target][key] = value
    return graph
