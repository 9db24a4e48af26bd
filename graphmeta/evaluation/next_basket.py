"""Next-basket evaluation: the last session of each user is the target, its earlier sessions are known."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from graphmeta.data.columns import shown
from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.data.tables import locate
from graphmeta.errors import InputError, counted
from graphmeta.evaluation.lists import check_ks
from graphmeta.evaluation.metrics import Ranks, hit, of_lists, ranks, usable
from graphmeta.evaluation.precision import average_precision
from graphmeta.evaluation.queries import aligned, check_model, known_histories, reads_history
from graphmeta.evaluation.ranking import KNOWN_SESSIONS, scoring, sliced
from graphmeta.evaluation.result import LeftOut, Result
from graphmeta.protocols import Adapting, Scorer
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples


@dataclass(frozen=True)
class BasketResult(Result):
    """The metrics of :func:`evaluate_next_basket`: means over users, as fractions; prints as a table.

    ``ranks [Q]`` are the ranks of all items of the target sessions: those of ``users[u]`` are
    ``ranks[ptr[u]:ptr[u + 1]]``, of the items ``items[ptr[u]:ptr[u + 1]]``. users ``[U]`` and items ``[Q]`` are ids as
    in the log.
    """

    ptr: np.ndarray = field(kw_only=True, repr=False)
    users: np.ndarray = field(kw_only=True, repr=False)
    items: np.ndarray = field(kw_only=True, repr=False)

    def of_user(self, user: Any) -> dict[Any, float]:
        """The rank of each item of a user's last session, by the ids of the log.

        Raises:
            InputError: a user who was not evaluated.
        """
        found = locate(self.users, np.array([user], dtype=object))[0]
        if found < 0:
            raise InputError(
                f"user {user!r} is not among the {counted(self.samples, 'user')} that were evaluated, those with a "
                f"session of known items; check the id, e.g. {shown(self.users[0])}"
            )
        own = slice(self.ptr[found], self.ptr[found + 1])
        return dict(zip(self.items[own].tolist(), self.ranks[own].tolist(), strict=True))

    def __str__(self) -> str:
        items = counted(self.candidates, "item")
        head = f"{counted(self.samples, 'user')}, the items of the last session ranked among {items}"
        lost = self.left_out
        if lost.clicks or lost.sessions:
            head += (
                f"; left out: {counted(lost.clicks, 'click')} on unknown items, {counted(lost.sessions, 'session')} "
                f"without a known item"
            )
        return f"{head}\n{self.to_frame().to_string(float_format='{:.4f}'.format, na_rep='-')}"


@dataclass(frozen=True)
class Baskets:
    """Target sessions: a sample without clicks for each, and its distinct items.

    Target session s has the items ``item[ptr[s]:ptr[s + 1]]``; repeated ``[Q]`` marks those of an earlier session of
    the user. ``log`` has these sessions only; users ``[S]`` are the ids of their users.
    """

    log: EventLog
    samples: Samples
    item: np.ndarray
    ptr: np.ndarray
    repeated: np.ndarray
    users: np.ndarray


def last_baskets(log: EventLog) -> tuple[EventLog, EventLog]:
    """The log without the last session of each user, and these sessions; item and user indices stay the same.

    For the choice of settings: fit on the first, evaluate on the second with ``history`` the first. A user with a
    single session has none in the first.

    Raises:
        InputError: a log without users.
    """
    last = _last_sessions(log)
    before, after = (log.of_sessions(part).aligned_to(log.items, log.users) for part in (~last, last))
    return before, after


def evaluate_next_basket(
    model: Scorer,
    log: EventLog,
    *,
    history: EventLog | Split | None = None,
    ks: tuple[int, ...] = (10, 20),
    batch_size: int = 100,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    **adapting: Unpack[Adapting],
) -> BasketResult:
    """Rank the items of each user's last session among all items, given the user's earlier sessions and no click of it.

    Metrics are means over users, with n distinct items in the last session, h of them of rank at most k:
    recall@k = h / n; ndcg@k with binary gains, divided by that of ranks 1 … min(k, n); phr@k = [h > 0] (personal hit
    ratio); map@k is the mean of :func:`~graphmeta.evaluation.precision.average_precision`. ``repeat_share`` is the
    share of the n items that an earlier session of the user contains; recall_repeat@k and recall_explore@k are recall@k
    of these and of the others, over the users who have any.
    Ties count as the expected value over random order, as in :func:`~graphmeta.evaluation.ranking.evaluate`.

    Args:
        model: a system or baseline; one that reads no history ranks the same items for all users, unless it reads
            users.
        log: a log with users and its own ids, which is aligned to the model's items. The last session of each user is
            the target, those before it are known.
        history: a log or split with further sessions of the users; only sessions that ended before the target session
            began are read, and those the model stores are read too.
        batch_size: users scored at once.
        progress: wraps the batches, e.g. ``tqdm``.
        steps, max_support: for a system that adapts, see :meth:`System.scores <graphmeta.system.System.scores>`.

    Raises:
        InputError: a log without users or without items known to the model, k not below the number of items.
        DivergedError: scores that are NaN or +inf.

    Source: Hu et al. 2020 (recall, ndcg, phr); Li et al. 2023 (repeat and explore).
    Differs: items of the last session that are unknown to the model are left out, and counted in ``left_out``.

    >>> from graphmeta.baselines import PersonalFrequency
    >>> from graphmeta.testing import fake_log
    >>> log = fake_log(sessions=60)
    >>> result = evaluate_next_basket(PersonalFrequency(last_baskets(log)[0]), log)
    >>> result.samples, list(result.slices["known sessions"])[:3], round(result.metrics["repeat_share"], 3)
    (20, ['0', '1', '2'], 0.175)
    """
    check_model(model, log, "evaluate_next_basket")
    if not isinstance(log, EventLog):
        raise InputError(f"evaluate_next_basket takes a log with users, not a {type(log).__name__}")
    check_ks(ks, model.num_items)
    began = time.perf_counter()
    score = scoring(model, adapting, "evaluate_next_basket")
    last = log.of_sessions(_last_sessions(log))
    baskets = basket_queries(model, last, [history, log])
    samples, earlier = baskets.samples, baskets.samples.earlier
    if not reads_history(model):
        samples = replace(samples, earlier=None)
    counts = np.diff(baskets.ptr)
    found = Ranks.empty(len(baskets.item))
    known, equal = np.zeros(len(samples), dtype=np.int64) if earlier is None else earlier.events, 0
    order = np.argsort(known, kind="stable")  # tasks of similar size together, to limit padding
    for at in progress(range(0, len(order), batch_size)):
        rows = order[at : at + batch_size]
        where, _ = ragged(baskets.ptr[:-1][rows], counts[rows])
        scores = usable(score(samples.take(rows)))
        equal += int((scores.amax(1) == scores.amin(1)).sum())
        scores = scores.repeat_interleave(torch.from_numpy(counts[rows]).to(scores.device), 0)
        found[torch.from_numpy(where)] = ranks(scores, torch.from_numpy(baskets.item[where]).to(scores.device))
    if equal:
        warnings.warn(
            f"{type(model).__name__} gives all items the same score for {equal:,} of {counted(len(samples), 'user')}, "
            f"as the basket has no click yet; their metrics are those of a random order",
            stacklevel=2,
        )
    means = _measures(found, baskets, ks)
    sessions = np.zeros(len(samples)) if earlier is None else earlier.sessions
    return BasketResult(
        means(torch.ones(len(samples), dtype=torch.bool)),
        {"known sessions": sliced(means, sessions, KNOWN_SESSIONS)},
        len(samples),
        model.num_items,
        time.perf_counter() - began,
        found,
        left_out=LeftOut(last.num_events - baskets.log.num_events, last.num_sessions - len(samples)),
        ptr=baskets.ptr,
        users=baskets.users,
        items=baskets.log.items.ids[baskets.item],
    )


def basket_queries(model: Scorer, last: EventLog, known: Sequence[EventLog | Split | None]) -> Baskets:
    """The sessions of a log as targets, each with its user's earlier sessions in the ``known`` logs.

    Raises:
        InputError: no item of them is known to the model.
    """
    log = aligned(model, last)
    if log.num_events == 0:
        raise InputError(
            f"no session has an item known to the model ({counted(last.num_sessions, 'session')}, "
            f"{counted(last.num_items, 'item')}); pass a log with the item ids of the training log"
        )
    session = np.arange(log.num_sessions)
    begin = log.ptr[:-1]
    user = None if log.session_user is None else log.session_user
    time = log.time if log.has_time else None
    samples = Samples(
        log.item, begin, begin, np.full(len(session), -1), session, time, user, items=log.items, users=log.users
    )
    histories, own = known_histories(model, known, last)
    samples = histories.attached(samples, own)
    owner, item = np.divmod(np.unique(log.session * log.num_items + log.item), log.num_items)
    assert samples.earlier is not None and own.users is not None and own.session_user is not None
    users = own.users.ids[own.session_user]
    events = samples.earlier.columns()
    before = np.isin(owner * log.num_items + item, events.sample * log.num_items + events.n_id)
    return Baskets(log, samples, item, np.searchsorted(owner, np.arange(len(session) + 1)), before, users)


def _measures(found: Ranks, baskets: Baskets, ks: tuple[int, ...]) -> Callable[[Tensor], dict[str, float]]:
    """The means of all metrics over a mask of the users ``[U]``."""
    owner = torch.from_numpy(np.repeat(np.arange(len(baskets.samples)), np.diff(baskets.ptr)))
    users, repeated = len(baskets.samples), torch.from_numpy(baskets.repeated)
    values: dict[str, Tensor] = {}
    for k in ks:
        each = of_lists(found, owner, k)
        values |= {f"recall@{k}": each["hit"], f"ndcg@{k}": each["ndcg"], f"phr@{k}": each["hit_any"]}
        values[f"map@{k}"] = average_precision(found, owner, k)
    size = owner.bincount(minlength=users)
    values["repeat_share"] = repeated.double().new_zeros(users).index_add(0, owner, repeated.double()) / size
    for name, part in (("repeat", repeated), ("explore", ~repeated)):
        count = owner[part].bincount(minlength=users)
        for k in ks:
            hits = torch.zeros(users, dtype=torch.float64).index_add(0, owner[part], hit(found[part], k))
            values[f"recall_{name}@{k}"] = hits / count  # NaN for users without such an item

    def means(inside: Tensor) -> dict[str, float]:
        own = {name: value[inside & ~value.isnan()] for name, value in values.items()}
        return {name: float(value.mean()) for name, value in own.items() if len(value)}

    return means


def _last_sessions(log: EventLog) -> np.ndarray:
    """Mask of the last session of each known user ``[S]``; of those that begin at one time, the last of the log."""
    if log.users is None or log.session_user is None:
        raise InputError("the log has no users; name its user column when reading it (user=, --user)")
    last = np.full(len(log.users), -1)
    known = np.flatnonzero((log.session_user >= 0) & (log.lengths > 0))
    np.maximum.at(last, log.session_user[known], known)
    chosen = np.zeros(log.num_sessions, dtype=bool)
    chosen[last[last >= 0]] = True
    return chosen
