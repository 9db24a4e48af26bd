"""The serving engine: a bounded queue whose waiting requests are answered together, and a model that can be replaced.

While one batch is computed, further requests wait; then all of them, up to ``batch``, are one call of the model. A
request that comes alone never waits for others; after a call of several, the next waits for as many, for at most a
twentieth of the time that the last one took.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from graphmeta.errors import check_number, check_whole
from graphmeta.serving.counters import Counters
from graphmeta.serving.query import Answer, Query
from graphmeta.serving.served import Served

LINGER = 0.05  # of the time of a call of several queries: how long the next one waits for as many


class Refused(RuntimeError):
    """A request that is not taken: the queue is full, the engine stops, or the request waited too long.

    Args:
        retry_after: seconds after which to try again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Limits:
    """Limits of an engine: waiting requests, requests per call of the model, seconds that a request waits, threads."""

    queue: int = 256
    batch: int = 32
    wait: float = 10.0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("queue", "batch", "threads"):
            check_whole(name, getattr(self, name), 1)
        check_number("wait", self.wait, 0.0)


@dataclass(frozen=True)
class _Waiting:
    work: Query | Callable[[Served], Any]
    future: Future[Any]
    since: float
    model: Served | None = None  # the one that must answer it; without, the current one


class _Lane:
    """A queue with threads of its own."""

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.changed = threading.Condition()
        self.seconds = 0.0  # of one request, a moving average

    def drained_in(self, threads: int) -> int:
        """Seconds until the requests that wait now will have been answered, about."""
        return min(60, max(1, math.ceil(len(self.waiting) * self.seconds / threads)))


class Engine:
    """Answers queries in threads of its own; use it as a context manager, or call :meth:`stop`.

    Other functions of the model (:meth:`call`), such as explanations, have a queue and a thread to themselves.

    Args:
        model: the first model.
    """

    def __init__(self, model: Served, limits: Limits | None = None, counters: Counters | None = None) -> None:
        self.limits, self.counters = limits or Limits(), counters or Counters()
        self._model, self._stopping = model, False
        self._queries, self._calls = _Lane(), _Lane()
        lanes = [self._queries] * self.limits.threads + [self._calls]
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"graphmeta-engine-{number}", daemon=True)
            for number, lane in enumerate(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def model(self) -> Served:
        """The current model."""
        return self._model

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._queries.waiting) + len(self._calls.waiting)

    @property
    def running(self) -> bool:
        """Whether it takes requests."""
        return not self._stopping

    def replace(self, model: Served) -> None:
        """Answer requests with another model, from the next call of the model on."""
        self._model = model

    def submit(self, *queries: Query) -> list[Future[Answer]]:
        """Queue queries, all or none; one model answers all of them, also if it is replaced meanwhile.

        The futures raise an InputError for an invalid query, and :class:`Refused` for one that waited too long.

        Raises:
            Refused: no place for all of them, or the engine stops.
        """
        return self._submit(self._queries, queries, self.limits.queue)

    def call(self, work: Callable[[Served], Any]) -> Future[Any]:
        """Queue a function of the model, such as an explanation.

        Raises:
            Refused: see :meth:`submit`.
        """
        return self._submit(self._calls, [work], max(1, self.limits.queue // 8))[0]

    def recommend(self, query: Query) -> Answer:
        """The answer to one query; waits for it.

        Raises:
            InputError: an invalid query.
            Refused: see :meth:`submit`.
        """
        return self.submit(query)[0].result()

    def _submit(self, lane: _Lane, works: Sequence[Query | Callable[[Served], Any]], places: int) -> list[Future[Any]]:
        now, model = time.monotonic(), self._model if len(works) > 1 else None
        entries = [_Waiting(work, Future(), now, model) for work in works]
        with lane.changed:
            if self._stopping:
                raise Refused("the server is stopping; try again", 1)
            if len(lane.waiting) + len(entries) > places:
                self.counters.count("refused", len(entries))
                raise Refused(
                    f"the queue of {places} requests is full; try again later", lane.drained_in(self.limits.threads)
                )
            lane.waiting.extend(entries)
            lane.changed.notify(len(entries))
        return [entry.future for entry in entries]

    def stop(self, wait: float | None = None) -> bool:
        """Take no more requests, answer those that wait, and end the threads.

        Args:
            wait: seconds to wait for it; without limit if not given. Requests left then are refused.

        Returns:
            Whether all were answered.
        """
        left = list[_Waiting]()
        self._stopping = True
        for lane in (self._queries, self._calls):
            with lane.changed:
                lane.changed.notify_all()
        end = None if wait is None else time.monotonic() + wait
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        for lane in (self._queries, self._calls):
            with lane.changed:
                left += lane.waiting
                lane.waiting.clear()
        for entry in left:
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(Refused("the server stopped; try again", 1))
        return not left and not any(thread.is_alive() for thread in self._threads)

    def _work(self, lane: _Lane) -> None:
        most = self.limits.batch if lane is self._queries else 1
        last, took = 0, 0.0
        while True:
            with lane.changed:
                while not lane.waiting and not self._stopping:
                    lane.changed.wait()
                if not lane.waiting:
                    return
                if last > 1:
                    lane.changed.wait_for(lambda last=last: self._stopping or len(lane.waiting) >= last, LINGER * took)
                taken = [lane.waiting.popleft() for _ in range(min(len(lane.waiting), most))]
            began, last = time.monotonic(), len(taken)
            self._run(self._model, lane, taken)
            took = time.monotonic() - began

    def _run(self, current: Served, lane: _Lane, taken: Sequence[_Waiting]) -> None:
        began = time.monotonic()
        live = []
        for entry in taken:
            if not entry.future.set_running_or_notify_cancel():
                continue
            if began - entry.since > self.limits.wait:
                self.counters.count("expired")
                entry.future.set_exception(Refused("the request waited too long; try again", lane.drained_in(1)))
            else:
                live.append(entry)
        by_model: dict[int, list[tuple[_Waiting, Query]]] = {}
        for entry in live:
            if isinstance(entry.work, Query):
                by_model.setdefault(id(entry.model or current), []).append((entry, entry.work))
            else:
                work = entry.work
                _settle(entry.future, _safely(lambda work=work: [work(current)], 1)[0])
        for queries in by_model.values():
            self._answer(queries[0][0].model or current, queries)
        if live:
            each = (time.monotonic() - began) / len(live)
            lane.seconds = each if lane.seconds == 0.0 else 0.9 * lane.seconds + 0.1 * each

    def _answer(self, model: Served, queries: Sequence[tuple[_Waiting, Query]]) -> None:
        """Answer queries in one call of a model."""
        results = _safely(lambda: model.answer([query for _, query in queries]), len(queries))
        self.counters.count("batches")
        self.counters.count("batched_queries", len(queries))
        for (entry, _), result in zip(queries, results, strict=True):
            _settle(entry.future, result if isinstance(result, BaseException) else Answer(result, model))


def _safely(compute: Callable[[], list[Any]], number: int) -> list[Any]:
    """The results, or so many times the error; an error must not end the thread."""
    try:
        return compute()
    except Exception as error:
        return [error] * number


def _settle(future: Future[Any], result: Any) -> None:
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
