"""Counters and a latency histogram, summed over the worker processes, in the text format of Prometheus."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
ENDPOINTS = ("recommend", "items", "similar", "explain", "other")
CODES = (200, 400, 401, 404, 405, 413, 422, 500, 503)
COUNTED = ("batches", "batched_queries", "refused", "expired", "reloads", "reload_failures")
_HELP = {
    "batches": "Calls of the model.",
    "batched_queries": "Queries in these calls.",
    "refused": "Queries refused because the queue was full.",
    "expired": "Queries dropped after they waited too long.",
    "reloads": "New versions loaded.",
    "reload_failures": "New versions that could not be loaded.",
}
_REQUESTS = {(endpoint, code): at for at, (endpoint, code) in enumerate((e, c) for e in ENDPOINTS for c in CODES)}
_COUNTED = {name: len(_REQUESTS) + at for at, name in enumerate(COUNTED)}
_BUCKETS = len(_REQUESTS) + len(_COUNTED)  # one more than edges, then the sum
_SIZE = _BUCKETS + len(EDGES) + 2
_TYPE = np.dtype("<f8")


class Counters:
    """The counters of this process.

    Args:
        folder: where each worker process writes its counters, as memory-mapped files; :meth:`text` sums them, those of
            processes that ended included. Without a folder, they are of this process alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self._lock = folder, threading.Lock()
        if folder is None:
            self._values: np.ndarray = np.zeros(_SIZE, dtype=_TYPE)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._values = np.memmap(folder / f"{os.getpid()}.counters", dtype=_TYPE, mode="w+", shape=(_SIZE,))

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of ``COUNTED``."""
        with self._lock:
            self._values[_COUNTED[name]] += by

    def request(self, endpoint: str, code: int, seconds: float) -> None:
        """Count a request and its latency."""
        place = _REQUESTS[endpoint, code if code in CODES else 500 if code >= 500 else 400 if code >= 400 else 200]
        bucket = int(np.searchsorted(EDGES, seconds))
        with self._lock:
            self._values[place] += 1
            if endpoint == "recommend":
                self._values[_BUCKETS + bucket] += 1
                self._values[-1] += seconds

    def total(self) -> np.ndarray:
        """The sum over all worker processes."""
        if self.folder is None:
            return self._values.copy()
        files = [path.read_bytes() for path in self.folder.glob("*.counters")]
        return np.sum([np.frombuffer(one, dtype=_TYPE) for one in files if len(one) == _SIZE * _TYPE.itemsize], axis=0)

    def counted(self, name: str) -> int:
        """The total of one of ``COUNTED``."""
        return int(self.total()[_COUNTED[name]])

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """All counters in the text format of Prometheus.

        Args:
            gauges: further values of this process, with their help texts.
        """
        values, lines = (
            self.total(),
            ["# HELP graphmeta_requests_total Requests.", "# TYPE graphmeta_requests_total counter"],
        )
        for (endpoint, code), at in _REQUESTS.items():
            if values[at]:
                lines.append(f'graphmeta_requests_total{{endpoint="{endpoint}",code="{code}"}} {values[at]:.0f}')
        for name, at in _COUNTED.items():
            lines += _head(f"{name}_total", _HELP[name], "counter")
            lines.append(f"graphmeta_{name}_total {values[at]:.0f}")
        name = "graphmeta_recommend_seconds"
        lines += _head("recommend_seconds", "Latency of POST /recommend.", "histogram")
        summed = np.cumsum(values[_BUCKETS:-1])
        for edge, number in zip((*map(str, EDGES), "+Inf"), summed, strict=True):
            lines.append(f'{name}_bucket{{le="{edge}"}} {number:.0f}')
        lines += [f"{name}_sum {values[-1]:.6f}", f"{name}_count {summed[-1]:.0f}"]
        for gauge, (meaning, value) in gauges.items():
            lines += [*_head(gauge, meaning, "gauge"), f"graphmeta_{gauge} {value:g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, meaning: str, kind: str) -> list[str]:
    return [f"# HELP graphmeta_{name} {meaning}", f"# TYPE graphmeta_{name} {kind}"]
