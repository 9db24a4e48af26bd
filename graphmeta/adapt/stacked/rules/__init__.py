"""Whose rows the results of plain operations hold: one rule for each kind. Importing this registers them."""

from graphmeta.adapt.stacked.rules import elementwise, indexing, layers, products, shapes, writing

__all__ = ["elementwise", "indexing", "layers", "products", "shapes", "writing"]
