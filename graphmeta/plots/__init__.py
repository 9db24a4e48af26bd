"""Figures: curves, a session's neighbourhood, streams, clusters, aspects, pages of audits. Requires matplotlib."""

from graphmeta.plots.aspects import draw_aspects, user_aspects
from graphmeta.plots.audit_page import audit_html, audit_page
from graphmeta.plots.figures import adaptation_curves, curves
from graphmeta.plots.session_graph import neighbourhood
from graphmeta.plots.stream import costs, periods
from graphmeta.plots.user_clusters import clusters

__all__ = [
    "adaptation_curves",
    "audit_html",
    "audit_page",
    "clusters",
    "costs",
    "curves",
    "draw_aspects",
    "neighbourhood",
    "periods",
    "user_aspects",
]
