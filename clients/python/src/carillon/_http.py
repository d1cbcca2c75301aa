"""What the two clients have in common: where the server is, who asks, and how long they wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional, TypeVar

import httpx

from carillon._calls.call import Call
from carillon.problem import Problem
from carillon.times import Period, seconds

T = TypeVar("T")

#: How long the server may take to answer if the caller does not say, in seconds; two thirds of it are the longest wait for a lease.
TIMEOUT = 30.0

#: The server may wait that much longer than it was asked to, in seconds.
_SLACK = 5.0

_USER_AGENT = "carillon-python"


@dataclass(frozen=True)
class Place:
    """A server, and who asks it."""

    base: str
    headers: dict[str, str]
    auth: Optional[httpx.BasicAuth]
    timeout: float

    @classmethod
    def of(cls, url: str, token: Optional[str], tenant: Optional[str], timeout: Period) -> Place:
        """Reads the address; its user information becomes Basic authentication.

        Raises ValueError for what is no http(s) address, and for two credentials at once.
        """
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"the server's address is http:// or https:// and a host, not {url!r}")
        if parsed.query or parsed.fragment:
            raise ValueError("the server's address has no query and no fragment")
        auth = httpx.BasicAuth(parsed.username, parsed.password) if parsed.userinfo else None
        if auth is not None and token is not None:
            raise ValueError("the address has user information and there is a token, too: one of them is meant")
        limit = seconds(timeout)
        if limit is None or not 0 < limit < math.inf:
            raise ValueError("the timeout is a positive number of seconds or a timedelta")
        headers = {"User-Agent": _USER_AGENT, "Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if tenant is not None:
            headers["Carillon-Tenant"] = tenant
        bare = parsed.copy_with(username=None, password=None)
        return cls(str(bare).rstrip("/"), headers, auth, limit)

    def options(self) -> dict[str, Any]:
        """What an httpx client is made with."""
        # Without TLS there is nothing to verify, and the authorities, which take a while to read, are not read.
        verify = self.base.startswith("https:")
        options = {"headers": self.headers, "auth": self.auth, "timeout": self.timeout}
        return {**options, "verify": verify, "follow_redirects": False}

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """What an httpx client sends."""
        patience = call.patience + _SLACK if call.patience else 0.0
        return {
            "method": call.method,
            "url": self.base + call.path,
            "params": dict(call.params),
            "headers": dict(call.headers),
            "content": call.content,
            "timeout": httpx.Timeout(self.timeout, read=max(self.timeout, patience)),
        }


def answered(call: Call[T], response: httpx.Response) -> T:
    """What an answer means. Raises Problem."""
    return call.result(response.status_code, response.content, response.headers.get("Retry-After"))


def refused(response: httpx.Response) -> Problem:
    """The problem that an answer is, whose body has been read."""
    return Problem.of_answer(response.status_code, response.content, response.headers.get("Retry-After"))
