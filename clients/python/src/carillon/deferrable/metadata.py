"""What a producer tells its consumers beside a function's arguments: who asked, from which host, in which trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Optional

from carillon.deferrable.serialization import Serializer


class MetadataProducerConsumer:
    """Base class. A subclass sets ``NAMESPACE`` and implements both methods.

    It does not see the item. What it produces is serialized as arguments are: with the default serializer, JSON values.
    """

    #: Unique among those that are registered on one ``Deferrable``. Raises ValueError on construction while it is None.
    NAMESPACE: ClassVar[Optional[str]] = None

    def __init__(self) -> None:
        namespace_of(self)

    def produce_metadata(self) -> Any:
        """What is to be sent along; called on the producer, once for each ``.later()``."""
        raise NotImplementedError

    def consume_metadata(self, metadata: Any) -> None:
        """Called on the consumer before the function runs, with what was produced; with None if the item has none.

        If it raises, the item is neither run nor completed: it comes again when its lease has ended.
        """
        raise NotImplementedError


def namespace_of(registered: MetadataProducerConsumer) -> str:
    """Its namespace. Raises ValueError if it has none."""
    if registered.NAMESPACE is None:
        raise ValueError(f"{type(registered).__qualname__} has no NAMESPACE")
    return registered.NAMESPACE


def produce(registered: Iterable[MetadataProducerConsumer], serializer: Serializer) -> dict[str, Any]:
    """What all of them have to say, serialized, by namespace."""
    produced = {namespace_of(each): each.produce_metadata() for each in registered}
    return {name: serializer.encode(value, f"metadata[{name!r}]") for name, value in produced.items()}


def consume(registered: Iterable[MetadataProducerConsumer], serializer: Serializer, item: Mapping[str, Any]) -> None:
    """Gives each of them its part of an item's metadata, or None."""
    metadata = item.get("metadata") or {}
    for each in registered:
        name = namespace_of(each)
        each.consume_metadata(serializer.decode(metadata[name]) if name in metadata else None)
