"""Sampled softmax: the catalogue's softmax from a sample of items, corrected by how often each is sampled (log-Q)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.scan.pairs import parts_of
from graphmeta.distributed.group import step
from graphmeta.errors import InputError, check_number, check_whole
from graphmeta.nn.catalogue_softmax import ScoreTerm, of_rows
from graphmeta.nn.features.tables import rows_of
from graphmeta.nn.heads.scoring import named, with_item_bias
from graphmeta.nn.log_partition import log_partition
from graphmeta.nn.losses.negatives import by_probability, uniform_for_batch
from graphmeta.protocols import CandidateLoss, ProductHead
from graphmeta.protocols.members import ReadsMembers
from graphmeta.sampling.session_batch import real_samples


@runtime_checkable
class Proposal(Protocol, metaclass=ReadsMembers):
    """Samples items for a batch; the expected count of each item is known."""

    def sample(self, target: Tensor, num_items: int) -> Tensor:
        """Items of one batch, some perhaps several times, ``[N]``."""
        ...

    def expected(self, items: Tensor, sampled: int, num_items: int) -> Tensor:
        """Expected count of each of ``items`` among ``sampled`` samples, ``[M]``."""
        ...


class _ByShare(nn.Module):
    """A proposal that samples each item with a fixed probability, its share; all equal before ``fit_statistics``."""

    counts_shards = True

    def __init__(self) -> None:
        super().__init__()
        self.share: Tensor | None = None

    def expected(self, items: Tensor, sampled: int, num_items: int) -> Tensor:
        """``sampled · share(item)``."""
        if self.share is None:
            return torch.full((len(items),), sampled / num_items, dtype=torch.float64, device=items.device)
        return sampled * self.share.to(items.device)[items]


class Uniform(_ByShare):
    """Samples ``count`` items uniformly over the catalogue."""

    def __init__(self, count: int = 4096) -> None:
        super().__init__()
        check_whole("count", count, 1)
        self.count = count

    def extra_repr(self) -> str:
        """The count."""
        return f"{self.count}"

    def sample(self, target: Tensor, num_items: int) -> Tensor:
        """``[count]``, with replacement."""
        return uniform_for_batch(target, self.count, num_items)


class Popularity(_ByShare):
    """Samples ``count`` items with probability ∝ ``support^alpha``: by popularity with ``alpha`` 1, uniformly with 0.

    Items without clicks count as one click. Before ``fit_statistics`` sampling is uniform.
    """

    def __init__(self, count: int = 4096, *, alpha: float = 1.0) -> None:
        super().__init__()
        check_whole("count", count, 1)
        check_number("alpha", alpha)
        self.count, self.alpha = count, alpha
        self.cdf: Tensor | None = None

    def extra_repr(self) -> str:
        """Count and exponent."""
        return f"{self.count}, alpha={self.alpha}"

    def fit_statistics(self, log: EventLog | ScannedLog) -> None:
        """Count the clicks of each item."""
        if self.alpha:
            weight = np.power(np.maximum(log.support, 1).astype(np.float64), self.alpha)
            self.share = torch.from_numpy(weight / weight.sum())
            self.cdf = self.share.cumsum(0)

    def sample(self, target: Tensor, num_items: int) -> Tensor:
        """``[count]``, with replacement."""
        if self.cdf is None:
            return uniform_for_batch(target, self.count, num_items)
        return by_probability(self.cdf, self.count).to(target.device)


class InBatch(_ByShare):
    """The targets of the batch, which are sampled by how often items are targets.

    An item that was never a target has the share of an item that was one once. Before ``fit_statistics`` all have equal
    shares.
    """

    def fit_statistics(self, log: EventLog | ScannedLog) -> None:
        """Count how often each item is a target: all clicks but the first of each session."""
        targets = np.zeros(log.num_items, dtype=np.int64)
        for part in parts_of(log):
            first = np.zeros(part.num_events, dtype=bool)
            first[part.ptr[:-1][np.diff(part.ptr) > 0]] = True
            targets += np.bincount(part.item[~first], minlength=log.num_items)
        count = np.maximum(targets, 1).astype(np.float64)
        self.share = torch.from_numpy(count / count.sum())

    def sample(self, target: Tensor, num_items: int) -> Tensor:
        """The targets themselves, those of all ranks."""
        return step().group.gather(target)

    def expected(self, items: Tensor, sampled: int, num_items: int) -> Tensor:
        """``(sampled − 1) · share of targets``: a sample's own target does not count."""
        return super().expected(items, max(sampled - 1, 1), num_items)


class SampledSoftmaxLoss(nn.Module):
    """Cross-entropy of the target against items that are sampled once per batch, for heads that score by products or
    have ``cross_entropy_over`` (:class:`~graphmeta.protocols.CandidateLoss`).

    Pass it to training as ``options=TrainOptions(loss=SampledSoftmaxLoss(Uniform(4096)))``.

    ``−s_t + log(exp s_t + Σ_{j ≠ t} n_j exp(s_j) / E[n_j])``, where item j is sampled ``n_j`` times, and ``E[n_j]``
    times on average over all proposals. The sum is an unbiased estimate of the catalogue's, so that loss and gradient
    approach those of the full softmax as more items are sampled; sampling the target itself does not count. With
    :class:`InBatch` alone it is one over the items that occur as targets, if samples are all prefixes. Score terms
    count for the target and for sampled items.

    Args:
        proposals: what samples the items; several are combined (mixed negatives).
        corrected: divide by ``E[n_j]``; if not, each sample counts as one item (``E[n_j] = 1``).

    Shapes: returns one loss for each real sample, ``[S]``.
    Source: Bengio & Senécal 2008; Jean et al. 2015, equation 8; Yi et al. 2019 (in-batch).
    """

    def __init__(self, *proposals: nn.Module, corrected: bool = True) -> None:
        super().__init__()
        if not proposals:
            raise InputError("a sampled softmax needs a proposal to sample items from, such as Uniform(4096)")
        for each in proposals:
            if not (isinstance(each, nn.Module) and isinstance(each, Proposal)):
                raise InputError(f"{str(each)[:40]} samples no items; pass a proposal such as Uniform(4096)")
        self.proposals, self.corrected = nn.ModuleList(proposals), corrected

    def extra_repr(self) -> str:
        """Whether it is corrected."""
        return f"corrected={self.corrected}"

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        if isinstance(head, CandidateLoss):
            return self._over_chosen(head, states, batch, candidates)
        if not isinstance(head, ProductHead):
            raise InputError(
                f"sampled softmax needs a head that scores by products or has cross_entropy_over, not {named(head)}"
            )
        query, sample = head.query(states, batch), batch["sample"]
        target = real_samples(batch, sample.target)
        items, log_weight = self.sample(target, len(candidates))
        own, vectors = (head.vectors(rows_of(candidates, rows)) for rows in (target, items))
        biased, own, vectors = with_item_bias(head, query, (own, target), (vectors, items))

        def product(row: Tensor, column: Tensor) -> Tensor:
            return (query.index_select(0, row) * head.vectors(rows_of(candidates, column))).sum(1)

        terms = [term(batch, product) for term in head.score_terms.values()]
        extra: ScoreTerm | None = None
        if terms:
            row, column, value = (torch.cat(part) for part in zip(*terms, strict=True))
            extra = row, column, value
        sampled = SampledItems(vectors, items, log_weight, target)
        return sampled_cross_entropy(biased, own, sampled, real=sample.get("real"), extra=extra)

    def _over_chosen(self, head: CandidateLoss, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses of a head that scores chosen candidates: the sampled items, and the targets of the batch."""
        target = batch["sample"].target.clamp(min=0)
        items, log_weight = self.sample(real_samples(batch, target), len(candidates))
        chosen = torch.cat([items, target]).unique()
        bias = log_weight.new_full((len(chosen),), -math.inf)
        bias[torch.searchsorted(chosen, items)] = log_weight
        at = torch.searchsorted(chosen, target)
        return head.cross_entropy_over(states, batch, rows_of(candidates, chosen), at, bias)

    def sample(self, target: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
        """The distinct items sampled for a batch, sorted ``[M]``, and the log of their weights ``n_j / E[n_j]``."""
        proposals: list[Any] = list(self.proposals)  # each a Proposal
        samples = [proposal.sample(target, num_items) for proposal in proposals]
        items, count = torch.cat(samples).unique(return_counts=True)
        weight = count.to(torch.float64)
        if self.corrected:
            parts = zip(proposals, samples, strict=True)
            weight = weight / sum(part.expected(items, len(sampled), num_items) for part, sampled in parts)
        return items, weight.log()


class SampledItems(NamedTuple):
    """The vectors of sampled items ``[M, D]``, their numbers (sorted) and log-weights ``[M]``; the targets ``[S]``."""

    vectors: Tensor
    items: Tensor
    log_weight: Tensor
    target: Tensor

    def at(self, item: Tensor) -> tuple[Tensor, Tensor]:
        """The places of some items among the sampled ones, and whether they are there."""
        place = torch.searchsorted(self.items, item).clamp(max=len(self.items) - 1)
        return place, self.items[place] == item


def sampled_cross_entropy(
    query: Tensor, own: Tensor, sampled: SampledItems, *, real: Tensor | None = None, extra: ScoreTerm | None = None
) -> Tensor:
    """``−s_t + log(exp s_t + Σ_{j ≠ t} w_j exp s_j)`` per row, over sampled items j with weights w.

    Args:
        own: the vectors of the targets of the real rows.
        real: the rows to compute; all if not given.
        extra: additive score terms, in columns of the catalogue.

    Shapes: query ``[S, D]``, real ``[R]``, own ``[R, D]`` -> ``[R]``.
    """
    if has_torch_function_unary(query):  # one operation for a mode that follows operations
        return handle_torch_function(sampled_cross_entropy, (query,), query, own, sampled, real=real, extra=extra)
    if real is not None:
        extra = None if extra is None else of_rows(extra, real, len(query))
        query = query.index_select(0, real)
    score = (query * own).sum(1)
    if extra is not None:
        row, column, value = extra
        score = score.index_add(0, row, torch.where(column == sampled.target[row], value, 0.0).to(score.dtype))
        place, there = sampled.at(column)
        extra = row, place, torch.where(there, value, 0.0).to(query.dtype)
    bias = sampled.log_weight.to(query.dtype)
    others = log_partition(query, sampled.vectors, bias=bias, extra=extra, without=sampled.at(sampled.target))
    return torch.logaddexp(others, score) - score
