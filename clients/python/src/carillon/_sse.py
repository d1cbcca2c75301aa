"""Server-Sent Events (the HTML standard, section 9.2): from bytes to messages, without any input or output.

Lines end with CR, LF or CRLF and with nothing else: JSON may hold U+2028 as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True)
class Message:
    """A message; comments and empty ones are none."""

    #: The kind.
    event: str
    data: str


class Parser:
    """Takes a stream's bytes as they come. Not to be used again after the stream broke off."""

    def __init__(self) -> None:
        #: The newest id that the stream has given, if any.
        self.last_id: Optional[str] = None
        #: After how many milliseconds the client shall come back, if the stream said so.
        self.retry_ms: Optional[int] = None
        self._rest = b""
        self._id: Optional[str] = None
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that these bytes complete."""
        lines = _LINE_END.split(self._rest + chunk)
        if chunk.endswith(b"\r"):
            # Half of a CRLF, perhaps: the line waits for what follows.
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
        # An id counts only with its whole message: otherwise one that broke off would never be sent again.
        self.last_id = self._id
        self._event, self._data = "", []
        return message
