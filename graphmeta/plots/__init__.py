"""Pictures of a training, of adaptation, of one session in its graph and of a stream of periods; needs matplotlib.

``curves(histories, path)`` draws losses and validation metrics of each epoch, ``adapting`` adaptation curves,
``neighbourhood`` one session in its graph, ``periods`` and ``costs`` a stream.
"""

from graphmeta.plots.figures import adapting, curves, neighbourhood
from graphmeta.plots.stream import costs, periods

__all__ = ["adapting", "costs", "curves", "neighbourhood", "periods"]
