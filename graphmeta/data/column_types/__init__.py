"""Column types of item and user tables; one module of this package per type."""

import importlib
import pkgutil

from graphmeta.data.column_types.base import TYPES, Bags, Column, Numbers, column_type
from graphmeta.data.column_types.categorical import Categorical
from graphmeta.data.column_types.several import Several

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"graphmeta.data.column_types.{_module.name}")

__all__ = ["TYPES", "Bags", "Categorical", "Column", "Numbers", "Several", "column_type"]
