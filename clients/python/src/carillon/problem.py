"""Error responses as an exception (RFC 9457)."""

from __future__ import annotations

import json
from typing import Any, Optional

#: Prefix of the server's own problem types.
_PREFIX = "urn:carillon:problem:"

#: Length of the excerpt of a response that is not a problem document, in characters.
_MAX_EXCERPT_CHARS = 500


class Problem(Exception):
    """An error response of the server, or a response that is not Carillon's.

    A missing response is an ``httpx.TransportError`` instead.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        *,
        type: str = "about:blank",
        pointer: Optional[str] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(status, title, detail)
        #: HTTP status.
        self.status = status
        #: Text of the type, the same for all problems of one type.
        self.title = title
        #: Description of this case, and what to do about it.
        self.detail = detail
        #: Identifier of the type for programs, such as ``urn:carillon:problem:not-found``.
        self.type = type
        #: JSON pointer to the offending part of the request's body; None if there is none.
        self.pointer = pointer
        #: Time until the request may succeed, in seconds; None if the server does not say.
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """Type without its prefix: ``not-found``, ``invalid``, ``conflict``, …"""
        return self.type[len(_PREFIX) :] if self.type.startswith(_PREFIX) else self.type

    def __str__(self) -> str:
        place = f" at {self.pointer}" if self.pointer else ""
        return f"{self.status} {self.title}{place}: {self.detail}"

    @classmethod
    def of_answer(cls, status: int, body: bytes, retry_after: Optional[str] = None) -> Problem:
        """Returns the problem of a response with a status of 300 or more."""
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        doc = _object(body)
        if "title" not in doc:
            shown = body.decode("utf-8", "replace").strip()[:_MAX_EXCERPT_CHARS]
            return cls(status, "The answer is not Carillon's", shown or "it is empty", retry_after=seconds)
        return cls(
            status,
            str(doc["title"]),
            str(doc.get("detail", "")),
            type=str(doc.get("type", "about:blank")),
            pointer=doc.get("pointer"),
            retry_after=seconds,
        )

    @classmethod
    def unreadable(cls, status: int, body: bytes, why: Exception) -> Problem:
        """Returns the problem of a successful response that does not have the expected form."""
        shown = body.decode("utf-8", "replace").strip()[:_MAX_EXCERPT_CHARS]
        return cls(status, "The answer cannot be read", f"{type(why).__name__}: {why}; it begins: {shown!r}")


def _object(body: bytes) -> dict[str, Any]:
    try:
        doc = json.loads(body)
    except ValueError:
        return {}
    return doc if isinstance(doc, dict) else {}
