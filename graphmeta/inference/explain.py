"""Why an item has its score in a session, in numbers that add up to the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, printable
from graphmeta.inference.neighbours import Neighbour, neighbours_of
from graphmeta.inference.parts_of_score import attributes_of_product, parts_of_scores
from graphmeta.inference.shapley import EXACT, Set, shapley
from graphmeta.inference.similar import row_of
from graphmeta.protocols import Adapting, CountsOnly
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.queries import NO_KNOWN_ITEM, Sessions
from graphmeta.sampling.samples import Samples, sessions_without_target
from graphmeta.sampling.user_histories import Earlier, UserHistories

if TYPE_CHECKING:
    from graphmeta.system import System

SESSIONS = 50  # earlier sessions with a share of their own; older ones have one together
_SCORES = 2**24  # bytes of scores at a time


@dataclass(frozen=True)
class Share:
    """What a click or an earlier session adds to the score.

    ``parts``: the same by part of the model (of systems that do not adapt), whose sum is ``value``.
    """

    id: Any
    name: str
    value: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Explanation:
    """The score of an item in a session, as three sums.

    * ``sum(parts.values()) == score``: the parts of the model. Products, biases and each score term are exact parts of
      the sum that the head computes; heads whose scores are no sum have one part, ``head``. ``adaptation`` is the score
      after the inner steps minus the score before. ``attributes`` is the product as a sum over the item's own vector
      and those of its attributes, if its vector is such a sum.
    * ``without_clicks + Σ clicks == score``: the clicks, by Shapley values of the score of the session's sub-sessions;
      ``without_clicks`` is the score of the empty session.
    * ``without_history + Σ sessions == score``: the same for the user's earlier sessions, if the system reads them.
    * ``Σ neighbours == score``: the sessions, items or users of the training log that voted for the item, for systems
      of neighbours (``session_knn``, ``stan``, ``item_knn``, ``tifu_knn``, ``up_cf``).

    Shapley values are exact up to 8 clicks; beyond (``sampled``) they are means over 32 orders, and the sum is exact.
    """

    item: Any
    name: str
    score: float
    parts: dict[str, float]
    attributes: dict[str, float]
    without_clicks: float
    clicks: tuple[Share, ...]
    without_history: float | None = None
    sessions: tuple[Share, ...] = ()
    sampled: bool = False
    neighbours: tuple[Neighbour, ...] = ()

    def __str__(self) -> str:
        lines = [f"{printable(self.name)}: score {self.score:.4f}", "by part of the model"]
        lines += [_line(name, value) for name, value in self.parts.items()]
        if self.attributes:
            lines += ["the product by what the item's vector is made of"]
            lines += [_line(name, value) for name, value in self.attributes.items()]
        lines += ["by click, oldest first", _line("(without clicks)", self.without_clicks)]
        lines += [_line(share.name, share.value, share.parts) for share in self.clicks]
        if self.without_history is not None:
            lines += ["by earlier session, oldest first", _line("(without history)", self.without_history)]
            lines += [_line(share.name, share.value) for share in self.sessions]
        if self.neighbours:
            lines += ["by neighbour, the largest share first"]
            lines += [_line(one.name, one.value) for one in self.neighbours]
        return "\n".join(lines)


def _line(name: str, value: float, parts: dict[str, float] | None = None) -> str:
    shown = {part: one for part, one in (parts or {}).items() if abs(one) >= 5e-5}
    detail = f"   ({', '.join(f'{part} {one:+.4f}' for part, one in shown.items())})" if len(shown) > 1 else ""
    return f"  {value:+10.4f}  {printable(name)}{detail}"


def explain(system: System, queries: Sessions, item: Any, adapting: Adapting) -> Explanation:
    """The explanation of an item's score in one session; see :meth:`System.explain <graphmeta.system.System.explain>`.

    Raises:
        InputError: an unknown item, or a session of which nothing is known.
    """
    target, limit = row_of(system, item), system.max_length
    known = queries.rows[0]
    rows = known[-limit:] if len(known) > limit else known
    times = None if queries.times is None else queries.times[0][len(known) - len(rows) :]
    has_history = queries.earlier is not None and bool(queries.earlier.events[0])
    if not len(rows) and not has_history:
        raise InputError(NO_KNOWN_ITEM)
    if isinstance(system, CountsOnly) and system.excludes_session and (rows == target).any():
        raise InputError(
            f"item {item!r} is in the session, and this model recommends no item of the session, since no session of "
            f"its log repeats one; name another item"
        )

    def sub_sessions(chosen: Sequence[Set]) -> Samples:
        order = [np.array(sorted(one), dtype=np.int64) for one in chosen]
        samples = sessions_without_target(
            [rows[one] for one in order],
            max_length=limit,
            times=None if times is None else [times[one] for one in order],
            users=None if queries.users is None else np.repeat(queries.users[:1], len(chosen)),
        )
        earlier = None if queries.earlier is None else queries.earlier.take(np.zeros(len(chosen), dtype=np.int64))
        return replace(samples, earlier=earlier)

    whole = sub_sessions([frozenset(range(len(rows)))])
    names, values = parts_of_scores(system, whole, target, adapting)
    parts = dict(zip(names, values[0].tolist(), strict=True))
    if system.adapts:
        by_click = _totals(system, sub_sessions, target, adapting)
        names = []
    else:
        by_click = _by_part(system, sub_sessions, target)
    shares = shapley(len(rows), by_click)
    clicks = tuple(_share(system, int(row), share, names) for row, share in zip(rows, shares, strict=True))
    score = sum(parts.values())
    without_history, sessions = None, ()
    if has_history:
        assert queries.earlier is not None
        without_history, sessions = _earlier(system, whole, queries.earlier, target, adapting, score)
    attributes = {name: float(one[0]) for name, one in attributes_of_product(system, whole, target).items()}
    return Explanation(
        _plain(system.items.ids[target]),
        system.items.describe(target),
        score,
        parts,
        attributes,
        score - float(shares.sum()),
        clicks,
        without_history,
        sessions,
        sampled=max(len(rows), len(sessions)) > EXACT,
        neighbours=neighbours_of(system, whole, target),
    )


Value = Callable[[Sequence[Set]], np.ndarray]


def _totals(system: System, samples_of: Callable[[Sequence[Set]], Samples], item: int, adapting: Adapting) -> Value:
    """The score of the item for each set, ``[sets, 1]``."""

    def value(chosen: Sequence[Set]) -> np.ndarray:
        return _scores(system, samples_of(chosen), item, adapting)[:, None]

    return value


def _by_part(system: System, samples_of: Callable[[Sequence[Set]], Samples], item: int) -> Value:
    """The parts of the score of the item for each set, ``[sets, P]``."""

    def value(chosen: Sequence[Set]) -> np.ndarray:
        return parts_of_scores(system, samples_of(chosen), item, {})[1].numpy()

    return value


def _scores(system: System, samples: Samples, item: int, adapting: Adapting) -> np.ndarray:
    """The score of the item for each sample, ``[S]``."""
    size = max(1, _SCORES // (4 * system.num_items))
    parts = [samples.take(slice(at, at + size)) for at in range(0, len(samples), size)]
    return torch.cat([system.scores(part, **adapting)[:, item].double().cpu() for part in parts]).numpy()


def _share(system: System, row: int, values: np.ndarray, names: list[str]) -> Share:
    parts = dict(zip(names, values.tolist(), strict=True)) if names else {}
    return Share(_plain(system.items.ids[row]), system.items.describe(row), float(values.sum()), parts)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _earlier(
    system: System, whole: Samples, earlier: Earlier, item: int, adapting: Adapting, score: float
) -> tuple[float, tuple[Share, ...]]:
    """The score without the user's earlier sessions, and the share of each of them."""
    known, every = earlier.histories, np.arange(earlier.since[0], earlier.until[0])
    players = [np.array([one]) for one in every[-SESSIONS:]]
    names = [str(known.sessions[one]) for one in every[-SESSIONS:]]
    if len(every) > SESSIONS:
        players, names = [every[:-SESSIONS], *players], [f"({len(every) - SESSIONS} older sessions)", *names]
    ids = [None] * (len(players) - len(every[-SESSIONS:])) + [_plain(known.sessions[one]) for one in every[-SESSIONS:]]

    def samples_of(chosen: Sequence[Set]) -> Samples:
        rows = [np.concatenate([np.zeros(0, np.int64), *(players[one] for one in sorted(each))]) for each in chosen]
        samples = whole.take(np.zeros(len(chosen), dtype=np.int64))
        return replace(samples, earlier=_with_sessions(known, rows, float(earlier.query_time[0])))

    shares = shapley(len(players), _totals(system, samples_of, item, adapting))[:, 0]
    found = tuple(Share(one, name, float(share)) for one, name, share in zip(ids, names, shares, strict=True))
    return score - float(shares.sum()), found


def _with_sessions(known: UserHistories, sessions: Sequence[np.ndarray], query_time: float) -> Earlier:
    """As many users as sets of sessions, each with these sessions of the histories."""
    chosen = np.concatenate(sessions).astype(np.int64)
    rows, begin = ragged(known.begin[:-1][chosen], np.diff(known.begin)[chosen])
    columns = {
        "item": known.item[rows],
        "time": known.time[rows],
        "begin": begin,
        "owner": np.repeat(np.arange(len(sessions)), [len(one) for one in sessions]),
        "sessions": known.sessions[chosen],
    }
    users = EntityTable(np.arange(len(sessions)), {})
    made = UserHistories.of_columns(columns, items=known.items, users=users, has_time=known.has_time)
    return Earlier(made, made.ptr[:-1], made.ptr[1:], np.full(len(sessions), query_time))
