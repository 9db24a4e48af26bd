"""The parts of a recommender: features, encoders, readouts, heads, losses and score terms.

A :class:`~graphmeta.recommender.Recommender` puts features, an encoder and a head together; an encoder is any module
``(x [I, D], batch) -> states [E, D]``, yours as well as those here.

>>> from graphmeta.recommender import Recommender
>>> recommender = Recommender(ItemFeatures(100, 16), GatedSessionGraph(16), Dot(Last()))
"""

from graphmeta.nn.encoders.attention import SelfAttentionStack
from graphmeta.nn.encoders.convolution import CausalConvStack, RecentPatterns
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.encoders.hetero import HeteroSession
from graphmeta.nn.encoders.pooling import RunningMean
from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.nn.features.attribute_sum import AttributeComposed
from graphmeta.nn.features.attributes import AttributeFeatures
from graphmeta.nn.features.content import ContentFeatures
from graphmeta.nn.features.tables import ItemFeatures, UntiedFeatures, UserFeatures
from graphmeta.nn.features.transitions import TransitionFeatures
from graphmeta.nn.features.unit_norm import UnitFeatures
from graphmeta.nn.heads.dot import Cosine, Dot
from graphmeta.nn.heads.target_attention import TargetAttention
from graphmeta.nn.losses.losses import AllPositions, RankingLoss, SoftmaxLoss
from graphmeta.nn.losses.sampled import InBatch, Popularity, SampledSoftmaxLoss, Uniform
from graphmeta.nn.readout import Last, Mean, SoftAttention
from graphmeta.nn.score_terms.cooccurrence import Cooccurrence
from graphmeta.nn.score_terms.repeat import RepeatBias
from graphmeta.nn.score_terms.reranker import Reranker
from graphmeta.nn.score_terms.same_category import SameCategory

__all__ = [
    "AllPositions",
    "AttributeComposed",
    "AttributeFeatures",
    "CausalConvStack",
    "ContentFeatures",
    "Cooccurrence",
    "Cosine",
    "Dot",
    "GatedSessionGraph",
    "HeteroSession",
    "InBatch",
    "ItemFeatures",
    "Last",
    "Mean",
    "Popularity",
    "RankingLoss",
    "RecentPatterns",
    "Recurrent",
    "RepeatBias",
    "Reranker",
    "RunningMean",
    "SameCategory",
    "SampledSoftmaxLoss",
    "SelfAttentionStack",
    "SoftAttention",
    "SoftmaxLoss",
    "TargetAttention",
    "TransitionFeatures",
    "Uniform",
    "UnitFeatures",
    "UntiedFeatures",
    "UserFeatures",
]
