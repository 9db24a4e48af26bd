"""The published systems, one module per family; the catalogue imports every module of this package."""
