"""Items: the JSON objects that are pushed for calls, and their changes. Functions that change an item return a changed copy.

The module is pure except for ``failed``, which adds the host and a random id.
"""

from __future__ import annotations

import socket
import traceback
import uuid
from collections.abc import Mapping
from typing import Any

#: An item of a queue.
Item = dict[str, Any]

#: The longest delay, debounce window and backoff, in seconds.
MAX_DELAY_SECONDS = 900

#: Length of an error's text, and of the end of its traceback, in characters: the item must still fit into a job.
MAX_ERROR_TEXT = 16 << 10

#: Required fields of an item, with their types.
_NEEDED: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "serializer": (str,),
    "args": (list, str),
    "kwargs": (list, str),
    "attempts": (int,),
    "max_attempts": (int,),
}


class BadItem(ValueError):
    """The item is not a call that this consumer may run."""


def check(item: Any) -> Item:
    """Returns the item if it has the form of a call.

    Raises BadItem if it does not, because another program pushed it.
    """
    if not isinstance(item, dict):
        raise BadItem(f"an item is a JSON object, not {type(item).__name__}")
    for key, kind in _NEEDED.items():
        if not isinstance(item.get(key), kind):
            raise BadItem(f"the item's {key!r} is missing, or not what it should be: {item.get(key)!r:.100}")
    names = item.get("error_classes") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadItem("the item's 'error_classes' are not a list of names")
    if not isinstance(item.get("metadata") or {}, dict):
        raise BadItem("the item's 'metadata' is not an object")
    if item.get("ttl_seconds"):
        for key in ("ttl_seconds", "item_queued_timestamp"):
            if not isinstance(item.get(key), (int, float)):
                raise BadItem(f"the item's {key!r} is not a number")
    return item


def check_times(delay: float, debounce: float, ttl: float) -> None:
    """Raises ValueError for durations (in seconds) that are too long, or longer than the time to live. A ttl of 0 means none."""
    for what, period in (("delay", delay), ("debounce", debounce)):
        if period > MAX_DELAY_SECONDS:
            raise ValueError(f"{what}_seconds is at most {MAX_DELAY_SECONDS}, not {period}")
        if ttl and period > ttl:
            raise ValueError(f"{what}_seconds ({period}) is longer than ttl_seconds ({ttl}): the item would expire first")


def backoff_seconds(attempts: int) -> int:
    """Returns the pause after a number of failed attempts, in seconds: 4, 6, 10, 18, … at most 900."""
    return min(2 + (1 << min(attempts, MAX_DELAY_SECONDS.bit_length())), MAX_DELAY_SECONDS)


def is_expired(item: Mapping[str, Any], now: float) -> bool:
    """Whether the time to live since the call of ``.later()`` is over at ``now`` (Unix seconds)."""
    ttl = item.get("ttl_seconds")
    return bool(ttl) and now - item["item_queued_timestamp"] > ttl


def is_last_attempt(item: Mapping[str, Any]) -> bool:
    """Whether the attempt that has just failed was the last one. ``max_attempts`` counts executions; 0 also means one."""
    return bool(item["attempts"] >= item["max_attempts"] - 1)


def retried(item: Item, now: float) -> Item:
    """Returns the item for the next attempt, with its backoff if it has one."""
    again = {**item, "attempts": item["attempts"] + 1, "last_push_time": now}
    again.pop("delay", None)
    if item.get("use_exponential_backoff"):
        again["delay"] = backoff_seconds(again["attempts"])
        again["last_push_time"] = now + again["delay"]
    return again


def failed(item: Any, error: BaseException, now: float) -> Item:
    """Returns the item for the error queue: with a description of the error, and without a delay.

    An item that is not an object becomes the field ``item`` of a new one, bytes as hexadecimal digits.
    """
    whole = item if isinstance(item, dict) else {"item": item.hex() if isinstance(item, bytes) else item}
    done = {**whole, "error": _error_info(error, now), "last_push_time": now}
    done.pop("delay", None)
    return done


def _error_info(error: BaseException, now: float) -> dict[str, Any]:
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {
        "error_type": type(error).__name__,
        "error_text": _shown(_text_of(error)[:MAX_ERROR_TEXT]),
        "traceback": _shown(trace[-MAX_ERROR_TEXT:]),
        "hostname": socket.gethostname(),
        "ts": now,
        "id": str(uuid.uuid1()),
    }


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # `__str__` of an error may fail.
        return f"its text cannot be made: {type(broken).__name__}"


def _shown(text: str) -> str:
    """Returns the text with unpaired surrogates escaped, which the server would refuse."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
