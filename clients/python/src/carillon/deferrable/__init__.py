"""Functions that are called now and run later, somewhere else: the library Deferrable, on Carillon's pull queues.

``docs/deferrable.md`` tells how, and what differs from Deferrable.
"""

from __future__ import annotations

from carillon.deferrable.app import Deferrable, UnknownFunction
from carillon.deferrable.items import BadItem

__all__ = ["BadItem", "Deferrable", "UnknownFunction"]
