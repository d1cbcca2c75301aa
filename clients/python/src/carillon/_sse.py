"""Parser of Server-Sent Events (the HTML standard, section 9.2). It does no input or output.

Lines end with CR, LF or CRLF only: JSON may contain U+2028 unescaped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True)
class Message:
    """A message with data. Comments and messages without data are skipped."""

    #: The kind.
    event: str
    data: str


class Parser:
    """Turns the bytes of one stream into messages. A new stream needs a new parser."""

    def __init__(self) -> None:
        #: Newest id in the stream; None before the first one.
        self.last_id: Optional[str] = None
        #: Time until the client should reconnect, in milliseconds; None if the stream does not say.
        self.retry_ms: Optional[int] = None
        self._rest = b""
        self._id: Optional[str] = None
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Message]:
        """Returns the messages that these bytes complete."""
        lines = _LINE_END.split(self._rest + chunk)
        if chunk.endswith(b"\r"):
            # This may be the first half of a CRLF: the line stays open until the next byte.
            self._rest = lines[-2] + b"\r"
            lines = lines[:-2]
        else:
            self._rest = lines.pop()
        found = [self._line(line.decode("utf-8", "replace")) for line in lines]
        return [message for message in found if message is not None]

    def _line(self, line: str) -> Optional[Message]:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isdecimal():
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> Optional[Message]:
        message = Message(self._event or "message", "\n".join(self._data)) if self._data else None
        # An id counts only with its whole message: otherwise the server would not repeat a message that broke off.
        self.last_id = self._id
        self._event, self._data = "", []
        return message
