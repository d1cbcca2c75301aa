"""Doppler's own HTTP API, which Carillon serves at ``/compat/doppler``: schedule a callback, look at it, cancel it.

What the server refuses raises ``Problem``; that it cannot be reached raises ``httpx.TransportError``. Nothing is sent twice.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import Any, Callable, Optional, TypeVar
from urllib.parse import quote

import httpx

from carillon._http import Endpoint
from carillon.problem import Problem

T = TypeVar("T")

#: The server answers within this many seconds, or is given up.
TIMEOUT = 10.0


class JobNotFoundError(LookupError):
    """The server does not know the job, or has forgotten it."""


class DopplerApi:
    """The API at one address. Threads can share it; a process that was forked off makes connections of its own."""

    def __init__(self, url: str) -> None:
        """Raises ValueError if the address is none."""
        self._endpoint = Endpoint.of(url, None, None, TIMEOUT)
        self._lock = threading.Lock()
        self._http: Optional[httpx.Client] = None
        self._owner: Optional[int] = None

    def schedule(self, callback_url: str, message: str, run_at: int, max_retries: int, retry_delay: int) -> Job:
        """Has ``message`` posted at ``run_at`` (Unix seconds), and ``max_retries`` times more while that fails."""
        document = {
            "callback_url": callback_url,
            "message": message,
            "run_at": run_at,
            "max_retries": max_retries,
            "retry_delay": retry_delay,
        }
        return self._send("POST", "", lambda doc: Job(self, doc), document)

    def get(self, request_id: str) -> Optional[Mapping[str, Any]]:
        """What is known of a job, or None if nothing is."""
        try:
            return self._send("GET", request_id, dict)
        except Problem as problem:
            if problem.status == 404:
                return None
            raise

    def cancel(self, request_id: str) -> bool:
        """Whether the job had not run to its end, and never will."""
        return self._send("DELETE", request_id, lambda doc: bool(doc["was_cancelled"]))

    def close(self) -> None:
        """Closes the connections; the next request opens one again."""
        with self._lock:
            if self._http is not None and self._owner == os.getpid():
                self._http.close()
            self._http = None

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None or self._owner != os.getpid():
                # Those of the parent process are left alone: both would read from them.
                self._http, self._owner = httpx.Client(**self._endpoint.options()), os.getpid()
            return self._http

    def _send(self, method: str, request_id: str, parse: Callable[[Any], T], document: Optional[Mapping[str, Any]] = None) -> T:
        url = f"{self._endpoint.base}/{quote(request_id, safe='')}" if request_id else self._endpoint.base
        response = self._client().request(method, url, json=document)
        if response.status_code != 200:
            raise _refused(response, self._endpoint.base)
        try:
            return parse(response.json())
        except (ValueError, KeyError, TypeError) as error:
            raise Problem.unreadable(response.status_code, response.content, error) from error


#: What the server forgets of a job that is over.
_FORGOTTEN = ("run_at", "scheduled_at", "last_retry")


class Job:
    """A scheduled callback, as it was when the server was last asked."""

    def __init__(self, api: DopplerApi, document: Mapping[str, Any]) -> None:
        self._api = api
        self._take(document)

    def _take(self, document: Mapping[str, Any]) -> None:
        #: Its id.
        self.request_id: str = document["request_id"]
        #: ``early``, ``late``, ``waiting``, ``started`` or ``done``; also ``done``: given up, and cancelled.
        self.status: str = document["status"]
        #: When its next try is, or its last one was, due; in Unix seconds, like all times here.
        self.run_at: Optional[float] = document["run_at"]
        #: When it was scheduled.
        self.scheduled_at: Optional[float] = document["scheduled_at"]
        #: When the last try failed, if one did.
        self.last_retry: Optional[float] = document["last_retry"]
        self.retries_left: int = document["retries_left"]

    @property
    def state(self) -> str:
        """The same as ``status``."""
        return self.status

    def cancel(self) -> bool:
        """Cancels it; it is ``done`` then. False if it has come to its end, or is being tried at this moment."""
        was_cancelled = self._api.cancel(self.request_id)
        if was_cancelled:
            # What the server would say of it now.
            self._take({"request_id": self.request_id, "status": "done", **dict.fromkeys(_FORGOTTEN), "retries_left": 0})
        return was_cancelled

    def refresh(self) -> Job:
        """Asks the server again, and returns the job itself. Raises JobNotFoundError if the server has forgotten it."""
        document = self._api.get(self.request_id)
        if document is None:
            raise JobNotFoundError(f"the server does not know the job {self.request_id}")
        self._take(document)
        return self

    def __repr__(self) -> str:
        return f"<Job {self.request_id} {self.status}>"


def _refused(response: httpx.Response, base: str) -> Problem:
    try:
        detail = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        detail = json.dumps(response.text[:500])
    if response.status_code in (404, 405) and not base.endswith("/compat/doppler"):
        detail += f"; is {base} the address of a Doppler API? Carillon's ends in /compat/doppler"
    return Problem(response.status_code, "The Doppler API refused", detail)
