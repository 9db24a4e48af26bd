"""Handlers of operations on per-task values, one per kind of operation. Importing this package registers them."""

from graphmeta.adapt.stacked.operations import elementwise, fused, indexing, layers, products, shapes

__all__ = ["elementwise", "fused", "indexing", "layers", "products", "shapes"]
