"""Serialization of arguments and metadata: as JSON, or as pickles if both sides are set to that.

Unpickling can run any code, so a consumer without ``serializer="pickle"`` never unpickles, whatever an item claims.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import pickle
from typing import Any, Protocol

#: Nesting of JSON arguments at most. The server reads 128 levels, of which an item takes a few.
MAX_DEPTH = 100

#: Fixed, so that producers of different Python versions agree.
_PICKLE_PROTOCOL = 5


class Serializer(Protocol):
    """Converts values to JSON and back."""

    #: Name of the serializer in items.
    name: str

    def encode(self, value: Any, place: str) -> Any:
        """Returns ``value`` in JSON form.

        Raises TypeError or ValueError with the place of a value that cannot be serialized.
        """

    def decode(self, stored: Any) -> Any:
        """Returns the value that ``encode`` took."""


class JsonSerializer:
    """JSON values only. Tuples become lists; keys must be texts; numbers must be finite."""

    name = "json"

    def encode(self, value: Any, place: str) -> Any:
        """Returns a copy of ``value`` that consists of plain dicts, lists, texts, numbers, booleans and None."""
        return _plain(value, place, MAX_DEPTH)

    def decode(self, stored: Any) -> Any:
        """Returns the value unchanged."""
        return stored


class PickleSerializer:
    """Pickles in base64. It is for queues to which only trusted programs can write."""

    name = "pickle"

    def encode(self, value: Any, place: str) -> str:
        """Returns the pickled value in base64."""
        try:
            return base64.b64encode(pickle.dumps(value, _PICKLE_PROTOCOL)).decode("ascii")
        except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
            raise TypeError(f"{place} cannot be pickled: {error}") from error

    def decode(self, stored: Any) -> Any:
        """Returns the unpickled value. Unpickling can run any code."""
        return pickle.loads(base64.b64decode(stored, validate=True))


#: All serializers by name.
SERIALIZERS: dict[str, Serializer] = {"json": JsonSerializer(), "pickle": PickleSerializer()}


def debounce_key(method: str, args: Any, kwargs: Any) -> str:
    """Returns a key of a call that does not depend on the order of its keywords or of the keys in its JSON arguments."""
    text = json.dumps([method, args, kwargs], sort_keys=True, separators=(",", ":"))
    return "deferrable:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def _plain(value: Any, place: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place} is {value!r}, for which JSON has no number")
        return float(value)
    if depth == 0:
        raise ValueError(f"{place} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, (list, tuple)):
        return [_plain(each, f"{place}[{index}]", depth - 1) for index, each in enumerate(value)]
    if isinstance(value, dict):
        return {_key(key, place): _plain(each, f"{place}[{key!r}]", depth - 1) for key, each in value.items()}
    raise TypeError(
        f"{place} is of type {type(value).__qualname__}, which JSON cannot hold:"
        " convert it, or give Deferrable serializer='pickle' on both sides"
    )


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{place} has the key {key!r}, which would come back as a text: JSON has text keys only")
    return _text(key, place)


def _text(value: str, place: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{place} is not text that UTF-8 can hold: {error.reason}") from None
    return str(value)
