"""Deferred functions: the library Deferrable on Carillon's pull queues.

``docs/deferrable.md`` is the guide, and lists the differences from Deferrable.
"""

from __future__ import annotations

from carillon.deferrable.app import Deferrable, UnknownFunction
from carillon.deferrable.items import BadItem

__all__ = ["BadItem", "Deferrable", "UnknownFunction"]
