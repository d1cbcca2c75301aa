"""What a request is, and what all of them share."""

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
    """A request, and how its answer is read."""

    method: str
    #: Below the server's address, quoted.
    path: str
    #: Makes the result of the answer's JSON, which is None for an answer without a body.
    parse: Callable[[Any], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The body, with its content type among the headers.
    content: Optional[bytes] = None
    #: How many seconds the server may think before it begins to answer, beyond what is usual.
    patience: float = 0.0
    #: Whether the answer is not JSON but bytes, which ``parse`` is given as they are.
    is_raw: bool = False

    def result(self, status: int, body: bytes, retry_after: Optional[str] = None) -> T:
        """What an answer means. Raises Problem for one that is no success, or cannot be read."""
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
    """A part of a list."""

    items: tuple[T, ...]
    #: Asks for the next part; None in the last one.
    next_cursor: Optional[str]


def request(
    method: str,
    path: str,
    parse: Callable[[Any], T],
    *,
    body: Optional[Mapping[str, Any]] = None,
    params: Optional[Mapping[str, Any]] = None,
    headers: Optional[Mapping[str, str]] = None,
    patience: float = 0.0,
) -> Call[T]:
    """A call with a JSON body; parameters that are None are left out."""
    sent = dict(headers or {})
    if body is not None:
        sent["Content-Type"] = "application/json"
    asked = {name: _parameter(value) for name, value in (params or {}).items() if value is not None}
    content = None if body is None else dumps(body)
    return Call(method, path, parse, asked, sent, content, patience)


def listing(path: str, model: type[T], params: Mapping[str, Any], page_size: Optional[int]) -> Call[Page[T]]:
    """The call for the first page of a list."""

    def parse(doc: Any) -> Page[T]:
        return Page(tuple(read(model, item) for item in doc["items"]), doc["next_cursor"])

    return request("GET", path, parse, params={**params, "limit": page_size})


def after(call: Call[Page[T]], cursor: str) -> Call[Page[T]]:
    """The call for the page that the cursor names."""
    return replace(call, params={**call.params, "cursor": cursor})


def reading(model: type[T]) -> Callable[[Any], T]:
    """Reads an answer as an instance of the dataclass."""
    return lambda doc: read(model, doc)


def nothing(_doc: Any) -> None:
    """Reads an answer that says no more than that it worked."""


def path(*segments: str) -> str:
    """A path of the API, whose segments may hold anything but nothing."""
    if not all(segments):
        raise ValueError(f"an empty name is none: {segments!r}")
    # A name that is a dot or two would be taken for a step in the path.
    return "/v1/" + "/".join(quote(segment, safe="") if segment.strip(".") else "%2E" * len(segment) for segment in segments)


def dumps(value: Any) -> bytes:
    """JSON as it is sent: compact, UTF-8, without the NaN that is none."""
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
