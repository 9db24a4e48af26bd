"""Session recommenders of the papers, composed of features, encoder and head."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from graphmeta.data.tables import EntityTable
from graphmeta.nn.encoders.attention import Blend, SelfAttentionStack, SplitEncoders
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.encoders.recurrent import Cell, Recurrent
from graphmeta.nn.features.attributes import AttributeFeatures
from graphmeta.nn.features.tables import ItemFeatures, uniform_
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.heads.target_attention import Added, Combination, TargetAttention
from graphmeta.nn.losses.losses import AllPositions
from graphmeta.nn.losses.negatives import SharedNegatives
from graphmeta.nn.losses.pairwise import CrossEntropy
from graphmeta.nn.readout import Last, SoftAttention
from graphmeta.protocols import Objective
from graphmeta.published.parts import with_score_terms
from graphmeta.published.registry import published
from graphmeta.published.unread import FULL_SOFTMAX, NO_MESSAGES
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import whole_sessions
from graphmeta.system import System
from graphmeta.training.recipes import TrainingRecipe

_SHORT = TrainingRecipe(updates=4000)  # scores are not bounded by a cosine: longer trainings overfit
_ATTENDED = TrainingRecipe(updates=4000, negatives=1024)  # two numbers per click and candidate: fewer candidates


@published("Wu et al. 2019, SR-GNN", family="session", equations="1-8", recipe=_SHORT, unread=(NO_MESSAGES,))
def sr_gnn(
    items: EntityTable,
    *,
    width: int = 100,
    steps: int = 1,
    weighted: bool = False,
    score_terms: Sequence[str | nn.Module] = (),
) -> System:
    """SR-GNN: gated graph network over the session graph, soft attention against the last click, dot product.

    ``s = W_3 [Σ_i α_i h_i ; h_last]``, score_i = s · e_i.

    Args:
        width: d, of items and states.
        steps: rounds of message passing.
        weighted: edges are weighted by how often the session has the transition, as in the paper; if False, a repeated
            transition counts once, as in the public code.
        score_terms: additive score terms, see :func:`~graphmeta.published.parts.with_score_terms` (not in the paper).

    Source: Wu et al., Session-based Recommendation with Graph Neural Networks, AAAI 2019, eqs 1–8.
    Differs: edges are not weighted by default; samples are ragged, without padding; the epoch is chosen on validation
    sessions.
    """
    head = Dot(SoftAttention(width), nn.Linear(2 * width, width, bias=False))
    encoder = GatedSessionGraph(width, steps=steps, weighted=weighted)
    recommender = Recommender(ItemFeatures(len(items), width), encoder, head)
    uniform_(recommender, width)
    return with_score_terms(System(recommender, items), score_terms)


@published("Yu et al. 2020, TAGNN", family="session", equations="1-10", recipe=_ATTENDED)
def tagnn(items: EntityTable, *, width: int = 100, steps: int = 1, combine: Combination = Added()) -> System:
    """TAGNN: SR-GNN whose session vector depends on the candidate, by attention from the candidate to the clicks.

    ``score_i = (s + Σ_l β_{i,l} h_l) · e_i``, ``β_i = softmax_l(e_i · W h_l)``; factorised, so that no vector per
    session and candidate is computed (:mod:`graphmeta.nn.heads.target_attention`).

    Args:
        width: d.
        steps: rounds of message passing.
        combine: ``Added()`` as in the public code, where α is a softmax; ``Concatenated()`` for the paper's form, one
            matrix over ``[s_target ; s_l ; s_g]`` and α as in SR-GNN. Its block for s_target begins at zero, so that
            it begins as SR-GNN and, after :meth:`~graphmeta.system.System.load_matching`, as a trained one.

    W starts at zero, so that β is uniform at first: with trained item vectors, which have large norms, a random W would
    saturate the softmax and could not learn.

    Source: Yu et al., TAGNN: Target Attentive Graph Neural Networks for Session-based Recommendation, SIGIR 2020.
    Differs: both softmaxes run over clicks only; in the public code they include padding.
    """
    project = nn.Linear(2 * width, width, bias=combine.normalised)
    readout = SoftAttention(width, normalised=combine.normalised)
    head = TargetAttention(readout, project, width=width, combine=combine)
    recommender = Recommender(ItemFeatures(len(items), width), GatedSessionGraph(width, steps=steps), head)
    uniform_(recommender, width)
    for weight in (head.attend.weight, *head.mix.parameters()):
        nn.init.zeros_(weight)
    return System(recommender, items)


@published("Xu et al. 2019, GC-SAN", family="session", equations="1-13", recipe=_SHORT)
def gc_san(
    items: EntityTable,
    *,
    width: int = 100,
    steps: int = 1,
    layers: int = 1,
    weight: float = 0.6,
    dropout: float = 0.2,
) -> System:
    """GC-SAN: self-attention over the states of a gated session graph, blended with those states at the last click.

    ``s = w E_last + (1 − w) h_last``, score_i = s · e_i.

    Args:
        width: d.
        steps: rounds of message passing.
        layers: attention blocks.
        weight: w.
        dropout: in each block.

    Source: Xu et al., Graph Contextualized Self-Attention Network for Session-based Recommendation, IJCAI 2019.
    Differs: each block has its own weights and padding gets no attention; the third-party code shares one block.
    """
    blocks = SelfAttentionStack(width, layers=layers, dropout=dropout)
    encoder = Blend(blocks, GatedSessionGraph(width, steps=steps), weight=weight)
    recommender = Recommender(ItemFeatures(len(items), width), encoder, Dot(Last()))
    uniform_(recommender, width)
    return System(recommender, items)


@dataclass(frozen=True)
class SampledLoss:
    """``CrossEntropy()`` over the whole catalogue, or another loss of :mod:`graphmeta.nn.losses.pairwise` against the
    batch's other targets and ``negatives`` more, sampled in proportion to support^``alpha`` (``CrossEntropy()`` reads
    neither, and warns).
    """

    loss: Objective = CrossEntropy()
    negatives: int = 2048
    alpha: float = 0.75


@published("Hidasi et al. 2016/2018, GRU4Rec", family="session", equations="1-10", unread=(FULL_SOFTMAX,))
def gru4rec(
    items: EntityTable,
    *,
    width: int = 100,
    cell: Cell = nn.GRU,
    layers: int = 1,
    dropout: float = 0.1,
    bias: bool = True,
    whole: bool = True,
    sampling: SampledLoss = SampledLoss(),
) -> System:
    """GRU4Rec: the state of a recurrent network after the last click, dot product; trained at all positions.

    ``score_i = h_t · e_i + b_i``.

    Args:
        width: of items and states, one table for input and output.
        cell: ``nn.GRU`` or ``nn.LSTM``.
        layers: number of recurrent layers.
        dropout: before each.
        bias: add a bias per item, ``b_i``.
        whole: a batch is whole sessions, each read once; False: prefixes, as the graph encoders are trained.
        sampling: the loss, and its sampled negatives if it has any.

    Source: Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks; Hidasi & Karatzoglou
    2018 for the max losses and the sampled negatives.
    Differs: backpropagation runs through the whole session, where the public code uses session-parallel batches and
    truncates the gradient at each click; so the negatives are the targets of all clicks of the batch; Adam with this
    library's schedule instead of Adagrad.
    """
    features = ItemFeatures(len(items), width, bias=bias)
    encoder = Recurrent(width, width, cell=cell, layers=layers, dropout=dropout)
    recommender = Recommender(features, encoder, Dot(Last(), bias=bias))
    one = sampling.loss.against(SharedNegatives(sampled=sampling.negatives, alpha=sampling.alpha))
    return System(
        recommender,
        items,
        loss=AllPositions(one) if whole else one,
        samples=whole_sessions if whole else None,
    )


@dataclass(frozen=True)
class Blending:
    """The weights of attended states against the last click's own vector, w_x of items and w_a of attributes.

    Args:
        learned_weights: whether they are learned, through a sigmoid, from these initial values.
    """

    item_weight: float = 0.5
    attribute_weight: float = 0.5
    learned_weights: bool = False


@published("Song et al. 2021, CBML (base)", family="session", equations="1-8")
def if_san(
    items: EntityTable,
    *,
    width: int = 100,
    layers: int = 2,
    dropout: float = 0.2,
    blending: Blending = Blending(),
    score_terms: Sequence[str | nn.Module] = (),
) -> System:
    """IF-SAN: self-attention over a session's items and, separately, over their attributes.

    ``S = [w_x F_x[last] + (1−w_x) e_last ; w_a F_a[last] + (1−w_a) a_last]``, score_i = (S W_p + b_p) · e_i.

    Args:
        width: d.
        layers: attention blocks at each level.
        dropout: in each block.
        blending: w_x and w_a.
        score_terms: additive score terms, see :func:`~graphmeta.published.parts.with_score_terms` (not in the paper).

    Source: CBML (its base recommender), eqs 1–8; the blocks are GC-SAN's.
    Differs: eqs 5 and 7 use the row of the last click; their w are .5, which the paper does not print, unless given or
    learned; without attributes only the item half remains.
    """
    weights = (blending.item_weight, blending.attribute_weight)[: 2 if items.categories else 1]
    if not items.categories and blending.attribute_weight != Blending().attribute_weight:
        warnings.warn("if_san does not read attribute_weight: the items have no attributes; leave it out", stacklevel=3)
    head = Dot(Last(), nn.Linear(len(weights) * width, width))
    stacks = (SelfAttentionStack(width, layers=layers, dropout=dropout) for _ in weights)
    levels = (
        Blend(stack, weight=weight, learned=blending.learned_weights)
        for stack, weight in zip(stacks, weights, strict=True)
    )
    encoder = SplitEncoders(*levels)
    return with_score_terms(System(Recommender(features(items, width), encoder, head), items), score_terms)


def features(items: EntityTable, width: int) -> nn.Module:
    """Item vectors, concatenated with attribute vectors if the items have attributes."""
    return (
        AttributeFeatures(len(items), width, items.categories) if items.categories else ItemFeatures(len(items), width)
    )
