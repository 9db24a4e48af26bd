"""A system: a recommender with its adaptation and vocabulary, in layers from its parts to the whole."""

from graphmeta.sampling.best import Recommendation
from graphmeta.system.system import System

__all__ = ["Recommendation", "System"]
