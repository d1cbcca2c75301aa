"""Metadata that producers send to consumers beside a function's arguments, such as a user, a host or a trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Optional

from carillon.deferrable.serialization import Serializer


class MetadataProducerConsumer:
    """Base class of objects that produce and consume metadata. A subclass sets ``NAMESPACE`` and implements both methods.

    It does not see the item. Metadata are serialized as arguments are: with the default serializer, they are JSON values.
    """

    #: Unique among the registered objects of one ``Deferrable``. While it is None, the constructor raises ValueError.
    NAMESPACE: ClassVar[Optional[str]] = None

    def __init__(self) -> None:
        namespace_of(self)

    def produce_metadata(self) -> Any:
        """Returns the metadata of a call; called in the producer, once for each ``.later()``."""
        raise NotImplementedError

    def consume_metadata(self, metadata: Any) -> None:
        """Takes the metadata of an item, or None; called in the consumer before the function runs.

        If it raises, the item is neither run nor completed: it is popped again when its lease has expired.
        """
        raise NotImplementedError


def namespace_of(registered: MetadataProducerConsumer) -> str:
    """Returns the namespace.

    Raises ValueError if there is none.
    """
    if registered.NAMESPACE is None:
        raise ValueError(f"{type(registered).__qualname__} has no NAMESPACE")
    return registered.NAMESPACE


def produce(registered: Iterable[MetadataProducerConsumer], serializer: Serializer) -> dict[str, Any]:
    """Returns the serialized metadata of all producers, by namespace."""
    produced = {namespace_of(each): each.produce_metadata() for each in registered}
    return {name: serializer.encode(value, f"metadata[{name!r}]") for name, value in produced.items()}


def consume(registered: Iterable[MetadataProducerConsumer], serializer: Serializer, item: Mapping[str, Any]) -> None:
    """Gives each consumer its part of an item's metadata, or None."""
    metadata = item.get("metadata") or {}
    for each in registered:
        name = namespace_of(each)
        each.consume_metadata(serializer.decode(metadata[name]) if name in metadata else None)
