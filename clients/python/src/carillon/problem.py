"""What a server answers instead of what was asked for, as an exception (RFC 9457)."""

from __future__ import annotations

import json
from typing import Any, Optional

#: What the server's own problem types begin with.
_PREFIX = "urn:carillon:problem:"

#: How much of an answer that is no problem document is shown, in characters.
_SHOWN = 500


class Problem(Exception):
    """The server refused or failed, or what answered is not Carillon.

    That no answer came at all is an ``httpx.TransportError`` instead.
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
        #: The HTTP status.
        self.status = status
        #: The kind in words, the same for all problems of one type.
        self.title = title
        #: What is wrong in this case, and what to do about it.
        self.detail = detail
        #: Identifies the kind for programs, such as ``urn:carillon:problem:not-found``.
        self.type = type
        #: Which part of the request's body is meant (JSON pointer), if one is.
        self.pointer = pointer
        #: After how many seconds the request makes sense again, if the server says so.
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """The type without its prefix: ``not-found``, ``invalid``, ``conflict``, …"""
        return self.type[len(_PREFIX) :] if self.type.startswith(_PREFIX) else self.type

    def __str__(self) -> str:
        place = f" at {self.pointer}" if self.pointer else ""
        return f"{self.status} {self.title}{place}: {self.detail}"

    @classmethod
    def of_answer(cls, status: int, body: bytes, retry_after: Optional[str] = None) -> Problem:
        """The problem that an answer with a status of 300 or more is."""
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        doc = _object(body)
        if "title" not in doc:
            shown = body.decode("utf-8", "replace").strip()[:_SHOWN]
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
        """The problem that a successful answer is which does not have the shape it should have."""
        shown = body.decode("utf-8", "replace").strip()[:_SHOWN]
        return cls(status, "The answer cannot be read", f"{type(why).__name__}: {why}; it begins: {shown!r}")


def _object(body: bytes) -> dict[str, Any]:
    try:
        doc = json.loads(body)
    except ValueError:
        return {}
    return doc if isinstance(doc, dict) else {}
