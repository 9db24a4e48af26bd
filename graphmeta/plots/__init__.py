"""Pictures: learning and adaptation curves, a session's neighbourhood, streams, users' aspects. Needs matplotlib."""

from graphmeta.plots.figures import adapting, curves
from graphmeta.plots.neighbourhood import neighbourhood
from graphmeta.plots.stream import costs, periods
from graphmeta.plots.user_aspects import draw_aspects, user_aspects

__all__ = ["adapting", "costs", "curves", "draw_aspects", "neighbourhood", "periods", "user_aspects"]
