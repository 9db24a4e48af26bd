"""Ensembles of catalogue systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.heads.scoring import named
from graphmeta.protocols import ProductHead, ReadsSubgraph, ScoresCatalogue
from graphmeta.published.names import check_name
from graphmeta.published.parts import with_score_terms
from graphmeta.published.registry import CATALOGUE, published
from graphmeta.recommender import Ensemble
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import session_batch
from graphmeta.system import System


@published("Hansen & Salamon 1990 (ensemble), Hinton 2002 (mean of logits)", family="graph")
def ensemble(
    items: EntityTable,
    *,
    members: Sequence[str] = ("niser", "global_gnn"),
    member_options: Sequence[Mapping[str, Any]] = ({}, {"normalised": True, "item_dropout": 0.1}),
    width: int = 100,
    score_terms: Sequence[str] = (),
) -> System:
    """Mean of the scores of several systems, trained side by side on the same batches.

    ``score_i = 1/K Σ_k q_k · e_ki``. Each member is trained by its own loss; a re-ranker around the ensemble is trained
    by the loss of the mean. Members that were trained alone are loaded by
    :meth:`~graphmeta.recommender.Ensemble.load_members`.

    Args:
        members: names of the catalogue; the same name several times for members that differ by their initial weights.
        member_options: of each member, by flat names; must be as many as members.
        width: d of each member.
        score_terms: additive score terms, see :func:`~graphmeta.published.parts.with_score_terms`; all members are
            trained with them.

    Raises:
        InputError: fewer than two members, other numbers of options, or a member that does not score by products, has
            score terms or an adaptation of its own, is not trained by a softmax, or reads the graph.

    Source: Hansen & Salamon, Neural Network Ensembles, 1990; a mean of logits is the geometric mean of the members'
    distributions, Hinton, Training Products of Experts by Minimizing Contrastive Divergence, 2002.
    """
    if len(members) < 2 or len(members) != len(member_options):
        raise InputError(
            f"an ensemble has two or more members and options for each, not {len(members)} and {len(member_options)}; "
            f"pass members=['niser', 'niser'], member_options=[{{}}, {{}}]"
        )
    each = [(name, items, {"width": width, **own}) for name, own in zip(members, member_options, strict=True)]
    parts = [_member(*one).recommender for one in each]
    recommender = Ensemble(parts, [_state_size(*one) for one in each])
    return with_score_terms(System(recommender, items), score_terms)


def _member(name: str, items: EntityTable, options: Mapping[str, Any]) -> System:
    """The untrained member.

    Raises:
        InputError: see :func:`ensemble`.
    """
    check_name(name, CATALOGUE)
    system = CATALOGUE[name].build(items, **options)
    head = system.recommender.head if system.has_weights else None
    softmax = isinstance(system.loss, ScoresCatalogue) and system.loss.scores_catalogue
    if not isinstance(head, ProductHead) or not softmax or system.adaptation is not None:
        shown = "it only counts" if head is None else named(head)
        raise InputError(
            f"{name} cannot be a member of an ensemble ({shown}): members score by products, are trained by a softmax "
            f"over the catalogue and do not adapt; choose others, such as niser, sr_gnn or global_gnn"
        )
    if len(head.score_terms):
        raise InputError(f"pass score_terms to the ensemble instead of its member {name}")
    if any(isinstance(part, ReadsSubgraph) for part in system.modules()):
        raise InputError(f"{name} reads the graph around a session, which an ensemble does not sample; choose another")
    return system


def _state_size(name: str, items: EntityTable, options: Mapping[str, Any]) -> int:
    """The size of the states that the system's encoder returns, from one built for a single item: it does not depend on
    their number, and weights that are loaded afterwards have no values yet.
    """
    one, nothing = np.zeros(1, dtype=np.int64), np.full(1, -1)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
        system = CATALOGUE[name].build(items.take(one), **options)
        batch = session_batch(Samples(one, one, one + 1, nothing, one), num_items=1)
        states, _ = system.recommender.encode(batch)
    return states.shape[1]
