"""Metrics per test session, from which a row has its intervals and its paired tests (:mod:`benchmarks.paired`)."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmeta.evaluation.intervals import bootstrap_interval, per_session
from graphmeta.evaluation.metrics import Ranks, hit, mrr, ndcg, of_lists
from graphmeta.evaluation.next_basket import BasketResult
from graphmeta.evaluation.precision import average_precision
from graphmeta.evaluation.result import Result
from graphmeta.sampling.samples import Samples

OF_RANKS: Mapping[str, Callable[[Ranks, int], Tensor]] = {"hit": hit, "mrr": mrr, "ndcg": ndcg}
SAME = 1e-9  # metrics of a row, and the means of its values per session


@dataclass(frozen=True)
class Sessions:
    """The metrics of each test session, or of each user where the log has users.

    Args:
        unit: ``session`` or ``user``; queries: their number of each, ``[U]``; key: a checksum of all queries.
        values: the mean over the queries of each, ``[U]``, by metric.
    """

    unit: str
    queries: np.ndarray
    key: int
    values: dict[str, np.ndarray]

    @classmethod
    def of(cls, result: Result, samples: Samples) -> Sessions:
        """Of the ranks of these samples."""
        owner, user = samples.session, samples.user is not None and bool((samples.user >= 0).any())
        if samples.user is not None and user:  # sessions of unknown users are units of their own
            owner = np.where(samples.user >= 0, samples.user, samples.user.max() + 1 + samples.session)
        values = {}
        for name in result.metrics:
            kind, _, k = name.partition("@")
            values[name], queries = per_session(OF_RANKS[kind](result.positions, int(k)).numpy(), owner)
        key = zlib.crc32(np.stack([owner, samples.session, samples.target]).astype(np.int64).tobytes())
        return cls("user" if user else "session", queries, key, values)

    @classmethod
    def of_baskets(cls, result: BasketResult) -> Sessions:
        """Of the baskets of these users."""
        size, values = len(result.users), {}
        owner = torch.from_numpy(np.repeat(np.arange(size), np.diff(result.ptr)))
        for k in sorted({int(name.partition("@")[2]) for name in result.metrics if name.startswith("recall@")}):
            found = of_lists(result.positions, owner, k)
            each = {"recall": found["hit"], "ndcg": found["ndcg"], "phr": found["hit_any"]}
            each["map"] = average_precision(result.positions, owner, k)
            values |= {f"{name}@{k}": value.numpy() for name, value in each.items()}
        key = zlib.crc32(json.dumps([result.users.tolist(), result.items.tolist()], default=str).encode())
        return cls("user", np.ones(size, dtype=np.int64), key, values)

    def intervals(self) -> dict[str, Any]:
        """The 95 % bootstrap interval of each metric, with its standard error, and over what."""
        found: dict[str, Any] = {"over": self.unit, "number": len(self.queries)}
        for name, values in self.values.items():
            one = asdict(bootstrap_interval(values, weights=self.queries))
            found[name] = {bound: one[bound] for bound in ("low", "high", "standard_error")}
        return found

    def write(self, path: Path) -> None:
        """Write the file beside a row's."""
        head: dict[str, Any] = {"": np.array([self.unit, str(self.key)]), "queries": self.queries}
        np.savez_compressed(path.with_suffix(".npz"), **head, **self.values)

    @classmethod
    def beside(cls, path: Path, metrics: Mapping[str, float]) -> Sessions | None:
        """Those beside a row's file; None without any, or if they have other means than the row, which warns."""
        if not (file := path.with_suffix(".npz")).exists():
            return None
        with np.load(file, allow_pickle=False) as stored:
            columns = dict(stored)
        unit, key = columns.pop("").tolist()
        own = cls(unit, columns.pop("queries"), int(key), columns)
        if not own.matches(metrics):
            warnings.warn(f"{file.name} is not of the same run as {path}; it is not read", stacklevel=2)
            return None
        return own

    def matches(self, metrics: Mapping[str, float]) -> bool:
        """Whether the means over all queries are the metrics of a row."""
        means = {name: np.average(values, weights=self.queries) for name, values in self.values.items()}
        return all(abs(mean - metrics[name]) < SAME for name, mean in means.items())
