"""Rules for the tasks of rows in results of plain operations, one per kind. Importing this package registers them."""

from graphmeta.adapt.stacked.rules import elementwise, indexing, layers, losses, products, shapes, writing

__all__ = ["elementwise", "indexing", "layers", "losses", "products", "shapes", "writing"]
