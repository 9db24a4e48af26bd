"""What per-task values do when they meet an operation: one handler for each kind. Importing this registers them."""

from graphmeta.adapt.stacked.operations import elementwise, fused, indexing, layers, products, shapes

__all__ = ["elementwise", "fused", "indexing", "layers", "products", "shapes"]
