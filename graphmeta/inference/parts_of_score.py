"""The score of an item as a sum over the parts of the model: products, biases, score terms, adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.inference.similar import evaluated_twin
from graphmeta.protocols import Adapting, LearnsItemBias, NamesColumns, ProductHead, SplitsItems
from graphmeta.sampling.session_batch import real_samples

if TYPE_CHECKING:
    from graphmeta.sampling.samples import Samples
    from graphmeta.sampling.tasks import Tasks
    from graphmeta.system import System

HEAD, ADAPTATION, BIAS, COUNTS, BLEND = "head", "adaptation", "item bias", "counts", "blended baseline"


class PartOfScore(nn.Module):
    """Replaces a loss: one part of the score of one item, for the real samples ``[S]``.

    Args:
        part: a name of :func:`part_names`, or ``attribute`` and the vector that is a summand of the item's.
    """

    def __init__(self, item: int, part: str, *, summand: Tensor | None = None) -> None:
        super().__init__()
        self.item, self.part, self.summand = item, part, summand

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The part's values."""
        if not isinstance(head, ProductHead):
            return real_samples(batch, head(states, batch, candidates))[:, self.item]
        query = head.query(states, batch)
        if self.part in head.score_terms:
            return real_samples(batch, self._term(head, query, batch, candidates))
        items = torch.full((len(query), 1), self.item, device=query.device)
        raw = F.embedding(items, candidates)
        vector = head.vectors(raw)[:, 0]
        if self.summand is not None:  # the vector is the sum of its summands, scaled if the head scales it
            vector = self.summand * ((vector * raw[:, 0]).sum(1) / raw[:, 0].square().sum(1))[:, None]
        columns = head.column_parts() if isinstance(head, NamesColumns) else {"product": slice(None)}
        value = query.new_zeros(len(query))
        if self.part in columns:
            value = value + (query * vector)[:, columns[self.part]].sum(1)
        if self.part == BIAS and isinstance(head, LearnsItemBias) and head.item_bias is not None:
            value = value + head.item_bias[self.item]
        return real_samples(batch, value)

    def _term(self, head: ProductHead, query: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The value of a score term."""
        vectors = head.vectors(candidates)

        def product(row: Tensor, column: Tensor) -> Tensor:
            return (query.index_select(0, row) * vectors.index_select(0, column)).sum(1)

        row, column, value = head.score_terms[self.part](batch, product)
        own = (column == self.item).nonzero()[:, 0]
        return query.new_zeros(len(query)).index_add(0, row[own], value[own].to(query.dtype))


def part_names(head: nn.Module) -> list[str]:
    """The parts of a head's scores; ``head`` alone if they are no sum."""
    if not isinstance(head, ProductHead):
        return [HEAD]
    names = list(head.column_parts()) if isinstance(head, NamesColumns) else ["product"]
    if isinstance(head, LearnsItemBias) and head.item_bias is not None and BIAS not in names:
        names.append(BIAS)
    return [*names, *head.score_terms]


def parts_of_scores(system: System, samples: Samples, item: int, adapting: Adapting) -> tuple[list[str], Tensor]:
    """The parts of an item's score for each sample, whose sum is the score: names and ``[S, P]``.

    For a system that adapts, the parts before adaptation, and as the last what its steps change (score after − score
    before).
    """
    if not system.has_weights:
        return [COUNTS], system.scores(samples)[:, item, None].double().cpu()
    names = part_names(system.recommender.head)
    adapts = system.adaptation is not None
    before: Adapting = {**adapting, "steps": 0} if adapts else {}
    parts = [evaluated(system, samples, PartOfScore(item, name), before) for name in names]
    if adapts:
        # The whole score after the steps, as a sum of the same parts.
        after = torch.stack([evaluated(system, samples, PartOfScore(item, name), adapting) for name in names])
        parts.append(after.sum(0) - torch.stack(parts).sum(0))
        names = [*names, ADAPTATION]
    if system.blend is not None and system.blend.name is not None:
        parts.append(system.blend.part(samples, system.items)[:, item].double().cpu())
        names = [*names, BLEND]
    return names, torch.stack(parts, 1)


def attributes_of_product(system: System, samples: Samples, item: int) -> dict[str, Tensor]:
    """The product as a sum over the item's own vector and its attributes', ``[S]`` each; empty if items have only one
    vector, or tasks adapt it.
    """
    if not system.has_weights or system.adaptation is not None or not isinstance(system.recommender.head, NamesColumns):
        return {}
    with torch.inference_mode(False), torch.no_grad():
        features = evaluated_twin(system).recommender.features
        tables = [part for part in features.modules() if isinstance(part, SplitsItems)]
        if len(tables) != 1:
            return {}
        summands = tables[0].summands(item)
        _, candidates = features(torch.zeros(1, dtype=torch.int64, device=system.device))
        whole = torch.stack(list(summands.values())).sum(0)
        if whole.shape != candidates[item].shape or not torch.allclose(whole, candidates[item], atol=1e-5):
            return {}  # what heads score against is made of more than the table
        parts = {name: PartOfScore(item, "product", summand=vector) for name, vector in summands.items()}
        return {name: evaluated(system, samples, part, {}) for name, part in parts.items()}


def evaluated(system: System, samples: Samples | Tasks, part: PartOfScore, adapting: Adapting) -> Tensor:
    """A part's values, ``[S]`` float64, after the adaptation of each sample."""
    with torch.inference_mode(False), torch.no_grad():
        twin = evaluated_twin(system)
        samples = twin.as_read(samples)
        if twin.adaptation is None:
            return twin.recommender(twin._queries(samples), part).double().cpu()
        twin._set_adapting(samples, adapting.get("steps"), adapting.get("max_support"))
        twin.adaptation.stacked = False  # the parts of a score are taken task by task
        tasks = twin._tasks(samples)
        found = twin.adaptation.run(twin.recommender, tasks, twin.support_loss, objective=part)
        return found.double().cpu()
