"""Cold-start users from their first few items in order: MetaTL, and a reconstruction of ClusterSeq.

Only ClusterSeq's abstract was available; unknown details are our choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.gated import Gated
from graphmeta.adapt.starts.generated import Generated
from graphmeta.adapt.step import Step
from graphmeta.adapt.twin import Twin
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.conditioning.cluster import Assignment, Autoencoders
from graphmeta.nn.conditioning.gate import Row
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.features.tables import ItemFeatures, uniform_
from graphmeta.nn.features.user_item_graph import ClusterCode, UserItemGraphFeatures, UserReadout
from graphmeta.nn.heads.attention_decoder import AttentionDecoder, DecoderHead, RecurrentWithInput
from graphmeta.nn.heads.translation import MeanTransition, Translation
from graphmeta.nn.losses.pairwise import Hinge, SampledSoftmax
from graphmeta.nn.losses.task_negatives import UnseenNegativesLoss
from graphmeta.nn.readout import Last
from graphmeta.published.options import step_of
from graphmeta.published.registry import published
from graphmeta.recommender import Recommender
from graphmeta.sampling.histories import prepended, users_clicks, users_last_clicks
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import real_samples
from graphmeta.sampling.tasks import Tasks
from graphmeta.system import System


class UserSequenceSystem(System):
    """A system of users: where the log has users, a user's earlier sessions and the present one are one sequence.

    Scores the next click of a session from the user's earlier sessions and its own clicks. Without users, a session
    counts as a user.
    """

    @property
    def reads_history(self) -> bool:
        """Always."""
        return True

    def training_samples(self, log: EventLog) -> Samples | Tasks:
        """The samples of one epoch, from whole users (sessions, without users)."""
        return self.samples(log, max_length=self.max_length)

    def as_read(self, samples: Samples | Tasks) -> Samples | Tasks:
        """The samples with the user's earlier sessions before their clicks."""
        if isinstance(samples, Samples):
            samples = prepended(samples, max_length=self.max_length)
        return super().as_read(samples)


class ClusteredSystem(UserSequenceSystem):
    """A system whose training loss includes a clustering loss of its users: ``L_rank + λ_c L_cluster``."""

    weight: float = 0.1

    def losses(self, samples: Samples | Tasks, *, objective: nn.Module | None = None, progress: float = 1.0) -> Tensor:
        """The ranking loss of each query plus the batch's clustering loss, ``[S]``.

        The clustering loss is computed per chunk of tasks: with ``task_chunk``, each chunk is balanced separately.
        """
        losses = super().losses(samples, objective=objective, progress=progress)
        return losses + self.weight * self.clustering(samples)

    def clustering(self, samples: Samples | Tasks) -> Tensor:
        """The clustering loss of the users in a batch, a scalar."""
        code = self.recommender.head.get_submodule("readout")
        assert isinstance(code, ClusterCode)
        batch = self._tasks(samples).query
        users = real_samples(batch, code.user(self.recommender.encode(batch)[0], batch))
        return code.clusters.loss(users)

    @torch.no_grad()
    def clusters(self, users: Samples | EventLog) -> Assignment:
        """The cluster memberships of users by the clicks they are known by.

        Args:
            users: one sample per user; of a log, each user's clicks before the last, as in training. Users (sessions,
                without users) with fewer than three clicks are left out.

        Raises:
            InputError: samples or a log with other item indices, or no users.
        """
        samples = users_last_clicks(users) if isinstance(users, EventLog) else users
        samples.check_items(self.items)
        if not len(samples):
            raise InputError("there are no users to assign to clusters; a user needs three clicks or more")
        system = Twin(self, training=False).module
        assert isinstance(system, ClusteredSystem)
        code = system.recommender.head.get_submodule("readout")
        assert isinstance(code, ClusterCode)
        read, vectors = system.as_read(samples), []
        assert isinstance(read, Samples)
        for begin in range(0, len(read), 4096):
            batch = system._queries(read.take(slice(begin, begin + 4096)))
            vectors.append(code.user(system.recommender.encode(batch)[0], batch))
        return code.clusters.assigned(torch.cat(vectors))


@dataclass(frozen=True)
class UserClusters:
    """Widths of user vectors and cluster codes, the number K of clusters, and the weight λ_c of the clustering loss."""

    graph: int = 64
    code: int = 16
    clusters: int = 5
    weight: float = 0.1


@published("arXiv 2307.13766, the encoder and decoder of ClusterSeq (reconstruction)", family="cold_user")
def attention_decoder(items: EntityTable, *, width: int = 128, dropout: float = 0.3) -> System:
    """The recurrent encoder and decoder with attention of :func:`cluster_seq`, without clusters and adaptation.

    ``score_i = z · e_i``, see :class:`~graphmeta.nn.heads.attention_decoder.AttentionDecoder`; trained with the softmax
    over all items on every click of each user.

    Args:
        width: of items and states.
        dropout: of the item vectors that the encoder reads.

    Source: see :func:`cluster_seq`.
    Differs: see :func:`cluster_seq`; the paper trains the encoder within the meta-learner.
    """
    head = DecoderHead(AttentionDecoder(width, width), Last())
    recommender = Recommender(ItemFeatures(len(items), width), RecurrentWithInput(width, width, dropout=dropout), head)
    uniform_(recommender, width)
    return UserSequenceSystem(recommender, items, samples=users_clicks)


@published(
    "arXiv 2307.13766, ClusterSeq (reconstruction)",
    family="cold_user",
    adapts="the decoder, from a gated start",
    encoder="attention_decoder",
)
def cluster_seq(
    items: EntityTable,
    *,
    width: int = 128,
    dropout: float = 0.3,
    user_clusters: UserClusters = UserClusters(),
    negatives: int = 100,
    step: Step | float = 1e-2,
    inner: InnerLoop = InnerLoop(),
) -> System:
    """ClusterSeq (reconstruction): a user's cluster gates a recurrent decoder, which then adapts to the user's clicks.

    Item vectors are convolved over the user-item graph, a user vector is the sum of the user's items, and the code of
    the user's cluster (K autoencoders) gates the decoder, one value per row. The decoder adapts to the first clicks and
    predicts the last. ``score_i = z · e_i``; loss ``L_rank + λ_c L_cluster``.

    Args:
        width: of items and states.
        dropout: of the item vectors that the encoder reads.
        user_clusters: user vectors and clusters.
        negatives: items sampled per target.
        step, inner: learning rate of the decoder's steps on a user's clicks, their number and order.

    Source: ClusterSeq (arXiv 2307.13766), of which only the abstract was available: meta-learning over users by their
    first items and the last, a recurrent encoder and decoder with attention, clusters by graph convolution and K
    autoencoders, weights conditioned on the cluster, a ranking and a clustering loss.
    Differs: to an unknown extent. Meta-training, with each user's last click as query, starts from
    :func:`attention_decoder` trained on every click. The graph, the gates, sizes (the paper's best width is 256), both
    losses and all rates are choices of this library; results here do not represent the paper.
    """
    graph, code = user_clusters.graph, user_clusters.code
    readout = ClusterCode(UserReadout(graph), Autoencoders(graph, code, clusters=user_clusters.clusters))
    head = DecoderHead(AttentionDecoder(width, width), readout)
    recommender = Recommender(
        UserItemGraphFeatures(len(items), width, graph=graph),
        RecurrentWithInput(width, width, dropout=dropout),
        head,
    )
    start = Gated(Scope("head.decoder"), code, granularity=Row())
    adaptation = Adaptation(Scope("head.decoder"), step=step_of(step), start=start, inner=inner)
    loss = UnseenNegativesLoss(SampledSoftmax(), count=negatives)
    system = ClusteredSystem(recommender, items, adaptation=adaptation, loss=loss, samples=users_last_clicks)
    system.weight = user_clusters.weight
    return system


@published("Wang et al. 2021, MetaTL", family="cold_user", equations="1-6", adapts="the relation of items")
def meta_tl(
    items: EntityTable,
    *,
    width: int = 100,
    hidden: Sequence[int] = (500, 200),
    dropout: float = 0.5,
    negatives: int = 1,
    step: Step | float = 5.0,
    inner: InnerLoop = InnerLoop(order=2),
) -> System:
    """MetaTL: a user's transitions from item to item define a translation vector, adapted by one gradient step.

    ``r = mean_i MLP([e_i ; e_{i+1}])``, ``r ← r − β ∇ L_support(r)``, ``score_j = −‖e_last + r − e_j‖``, with
    ``max(0, 1 + d(target) − d(other))`` as the loss.

    Args:
        width: of items and relations.
        hidden, dropout: of the MLP.
        negatives: items sampled per target.
        step, inner: β, number and order of the steps.

    Source: Wang, Ding, Caverlee, Sequential Recommendation for Cold-start Users with Meta Transitional Learning,
    SIGIR 2021, eqs 1–6.
    Differs: no batch norm (see :class:`~graphmeta.nn.heads.translation.MeanTransition`); a task for every click of
    a user but the first (of a session of a log without users), with the clicks before it as support, where the
    public code samples windows and sub-sequences; r is not kept from one evaluation to the next.
    """
    readout = MeanTransition(width, hidden=tuple(hidden), dropout=dropout)
    recommender = Recommender(ItemFeatures(len(items), width), Clicks(), Translation(readout, width))
    start = Generated("head.relation", nn.Identity())
    adaptation = Adaptation(Scope("head.relation"), step=step_of(step), start=start, inner=inner)
    loss = UnseenNegativesLoss(Hinge(), count=negatives)
    return UserSequenceSystem(recommender, items, adaptation=adaptation, loss=loss, samples=users_clicks)
