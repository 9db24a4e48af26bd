"""Figures: learning and adaptation curves, a session's neighbourhood, streams, users' aspects. Requires matplotlib."""

from graphmeta.plots.aspects import draw_aspects, user_aspects
from graphmeta.plots.figures import adaptation_curves, curves
from graphmeta.plots.session_graph import neighbourhood
from graphmeta.plots.stream import costs, periods

__all__ = ["adaptation_curves", "costs", "curves", "draw_aspects", "neighbourhood", "periods", "user_aspects"]
