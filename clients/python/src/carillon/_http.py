"""What all clients share: the server's URL, the credentials, and the timeouts."""

from __future__ import annotations

import math
import os
import ssl
from dataclasses import dataclass
from typing import Any, Optional, TypeVar, Union

import httpx

from carillon._calls.call import Call
from carillon.problem import Problem
from carillon.times import Period, seconds

T = TypeVar("T")

#: Name of a file.
Path = Union[str, "os.PathLike[str]"]

#: Default timeout, in seconds. The server waits at most two thirds of it for a lease.
TIMEOUT = 30.0

#: Added to a wait that the client requests of the server, in seconds: the response takes some time, too.
_SLACK_SECONDS = 5.0

#: Environment variable that names a file with certificate authorities, where a client is given none.
_CA_FILE = "CARILLON_CA_FILE"

#: Environment variable that names a file with the client's certificate, where a client is given none.
_CLIENT_CERT = "CARILLON_CLIENT_CERT"

_USER_AGENT = "carillon-python"


@dataclass(frozen=True)
class Endpoint:
    """A server, and the client's credentials."""

    #: URL without user information and without a trailing slash.
    base: str
    headers: dict[str, str]
    auth: Optional[httpx.BasicAuth]
    #: In seconds.
    timeout: float
    #: File with certificate authorities that are trusted in addition.
    ca_file: Optional[str] = None
    #: File with the client's certificate and its private key.
    client_cert: Optional[str] = None

    @classmethod
    def of(
        cls,
        url: str,
        token: Optional[str],
        tenant: Optional[str],
        timeout: Period,
        ca_file: Optional[Path] = None,
        client_cert: Optional[Path] = None,
    ) -> Endpoint:
        """Parses the URL; its user information becomes Basic authentication.

        Raises ValueError for a URL that is not http(s), for two credentials at once, and for a timeout that is not positive.
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
        files = _file(ca_file, _CA_FILE), _file(client_cert, _CLIENT_CERT)
        return cls(str(bare).rstrip("/"), headers, auth, limit, *files)

    def options(self) -> dict[str, Any]:
        """Returns the arguments for the constructor of an httpx client.

        Raises OSError if a file with certificates cannot be read; ssl.SSLError is one.
        """
        # Without TLS there is nothing to verify: loading the certificate authorities would only take time.
        verify: Union[bool, ssl.SSLContext] = self.base.startswith("https:")
        if verify and (self.ca_file is not None or self.client_cert is not None):
            verify = httpx.create_ssl_context()
            if self.ca_file is not None:
                verify.load_verify_locations(self.ca_file)
            if self.client_cert is not None:
                verify.load_cert_chain(self.client_cert)
        options = {"headers": self.headers, "auth": self.auth, "timeout": self.timeout}
        return {**options, "verify": verify, "follow_redirects": False}

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Returns the arguments for ``request`` of an httpx client."""
        read_seconds = call.wait_seconds + _SLACK_SECONDS if call.wait_seconds else 0.0
        return {
            "method": call.method,
            "url": self.base + call.path,
            "params": dict(call.params),
            "headers": dict(call.headers),
            "content": call.content,
            "timeout": httpx.Timeout(self.timeout, read=max(self.timeout, read_seconds)),
        }


def _file(given: Optional[Path], variable: str) -> Optional[str]:
    """Returns the name of a file that was given, or that the environment names."""
    return os.fspath(given) if given is not None else os.environ.get(variable) or None


def read_response(call: Call[T], response: httpx.Response) -> T:
    """Returns the result of a call.

    Raises Problem if the response is an error, or cannot be read.
    """
    return call.result(response.status_code, response.content, response.headers.get("Retry-After"))


def problem_of(response: httpx.Response) -> Problem:
    """Returns the problem of an error response whose body has been read."""
    return Problem.of_answer(response.status_code, response.content, response.headers.get("Retry-After"))
