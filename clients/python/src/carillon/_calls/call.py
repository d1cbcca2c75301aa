"""The request as data, and the parts that all requests share."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Generic, Optional, TypeVar
from urllib.parse import quote

from carillon.models import read
from carillon.problem import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and the function that reads its response."""

    method: str
    #: Below the server's URL, percent-encoded.
    path: str
    #: Makes the result from the response's JSON, which is None for an empty body.
    parse: Callable[[Any], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The body, with its content type among the headers.
    content: Optional[bytes] = None
    #: Time that the server may wait before it begins to respond, in seconds; 0 where it responds at once.
    wait_seconds: float = 0.0
    #: Whether ``parse`` takes the response's bytes instead of JSON.
    is_raw: bool = False

    def result(self, status: int, body: bytes, retry_after: Optional[str] = None) -> T:
        """Returns the result that a response means.

        Raises Problem if the response is an error, or cannot be read.
        """
        if not 200 <= status < 300:
            raise Problem.of_answer(status, body, retry_after)
        if self.is_raw:
            return self.parse(body)
        try:
            return self.parse(json.loads(body) if body else None)
        except (ValueError, KeyError, TypeError) as error:
            raise Problem.unreadable(status, body, error) from error


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list."""

    items: tuple[T, ...]
    #: Requests the next page; None on the last one.
    next_cursor: Optional[str]


def request(
    method: str,
    path: str,
    parse: Callable[[Any], T],
    *,
    body: Optional[Mapping[str, Any]] = None,
    params: Optional[Mapping[str, Any]] = None,
    headers: Optional[Mapping[str, str]] = None,
    wait_seconds: float = 0.0,
) -> Call[T]:
    """Returns a call with a JSON body. Parameters that are None are omitted."""
    sent = dict(headers or {})
    if body is not None:
        sent["Content-Type"] = "application/json"
    asked = {name: _parameter(value) for name, value in (params or {}).items() if value is not None}
    content = None if body is None else dumps(body)
    return Call(method, path, parse, asked, sent, content, wait_seconds)


def listing(path: str, model: type[T], params: Mapping[str, Any], page_size: Optional[int]) -> Call[Page[T]]:
    """Returns the call for the first page of a list."""

    def parse(doc: Any) -> Page[T]:
        return Page(tuple(read(model, item) for item in doc["items"]), doc["next_cursor"])

    return request("GET", path, parse, params={**params, "limit": page_size})


def after(call: Call[Page[T]], cursor: str) -> Call[Page[T]]:
    """Returns the call for the page of a cursor."""
    return replace(call, params={**call.params, "cursor": cursor})


def reading(model: type[T]) -> Callable[[Any], T]:
    """Returns a parser that reads a response as an instance of the dataclass."""
    return lambda doc: read(model, doc)


def nothing(_doc: Any) -> None:
    """Parses a response that has no content."""


def path(*segments: str) -> str:
    """Returns a path of the API with percent-encoded segments.

    Raises ValueError for an empty segment.
    """
    if not all(segments):
        raise ValueError(f"a name must not be empty: {segments!r}")
    # URL parsers resolve the segments `.` and `..`.
    return "/v1/" + "/".join(quote(segment, safe="") if segment.strip(".") else "%2E" * len(segment) for segment in segments)


def dumps(value: Any) -> bytes:
    """Returns compact JSON in UTF-8.

    Raises ValueError for NaN and infinities.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def check_fields(given: Mapping[str, Any], known: Any, what: str) -> None:
    """Raises TypeError for a field that the TypedDict ``known`` does not have."""
    unknown = sorted(set(given) - known.__optional_keys__)
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], known.__optional_keys__, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise TypeError(f"{what} has no field {', '.join(map(repr, unknown))}{hint}")


def _parameter(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
