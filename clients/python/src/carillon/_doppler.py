"""Client of Doppler's HTTP API, which Carillon serves at ``/compat/doppler``: schedule, read and cancel callbacks.

Every request raises ``Problem`` if the server refuses it, and ``httpx.TransportError`` if the server cannot be reached. No request is
repeated.
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

#: Timeout of a request, in seconds.
TIMEOUT = 10.0


class JobNotFoundError(LookupError):
    """The server does not know the job, or has forgotten it."""


class DopplerApi:
    """Client of the API at one URL. Threads can share it; a forked process opens connections of its own."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that is not http(s)."""
        self._endpoint = Endpoint.of(url, None, None, TIMEOUT)
        self._lock = threading.Lock()
        self._http: Optional[httpx.Client] = None
        self._owner: Optional[int] = None

    def schedule(self, callback_url: str, message: str, run_at: int, max_retries: int, retry_delay: int) -> Job:
        """Schedules a POST of ``message`` at ``run_at`` (Unix seconds), with up to ``max_retries`` retries."""
        document = {
            "callback_url": callback_url,
            "message": message,
            "run_at": run_at,
            "max_retries": max_retries,
            "retry_delay": retry_delay,
        }
        return self._send("POST", "", lambda doc: Job(self, doc), document)

    def get(self, request_id: str) -> Optional[Mapping[str, Any]]:
        """Returns the document of a job, or None if the server does not know it."""
        try:
            return self._send("GET", request_id, dict)
        except Problem as problem:
            if problem.status == 404:
                return None
            raise

    def cancel(self, request_id: str) -> bool:
        """Cancels a job; returns False if it has already ended."""
        return self._send("DELETE", request_id, lambda doc: bool(doc["was_cancelled"]))

    def close(self) -> None:
        """Closes the connections; the next request opens a new one."""
        with self._lock:
            if self._http is not None and self._owner == os.getpid():
                self._http.close()
            self._http = None

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None or self._owner != os.getpid():
                # A fork shares its parent's sockets: both processes would read from them, so they are not used.
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


#: Fields that the server clears when a job ends.
_FORGOTTEN = ("run_at", "scheduled_at", "last_retry")


class Job:
    """A scheduled callback, as of the last response."""

    def __init__(self, api: DopplerApi, document: Mapping[str, Any]) -> None:
        self._api = api
        self._take(document)

    def _take(self, document: Mapping[str, Any]) -> None:
        #: Id of the job.
        self.request_id: str = document["request_id"]
        #: ``early``, ``late``, ``waiting``, ``started``, or ``done``, which includes failed and cancelled jobs.
        self.status: str = document["status"]
        #: Due time of the next attempt, or of the last one, in Unix seconds.
        self.run_at: Optional[float] = document["run_at"]
        #: Time at which it was scheduled, in Unix seconds.
        self.scheduled_at: Optional[float] = document["scheduled_at"]
        #: Time at which the last attempt failed, in Unix seconds; None if none failed.
        self.last_retry: Optional[float] = document["last_retry"]
        self.retries_left: int = document["retries_left"]

    @property
    def state(self) -> str:
        """The same as ``status``."""
        return self.status

    def cancel(self) -> bool:
        """Cancels the job, which is ``done`` then. Returns False if it has ended or an attempt is running."""
        was_cancelled = self._api.cancel(self.request_id)
        if was_cancelled:
            # The document that the server would return now.
            self._take({"request_id": self.request_id, "status": "done", **dict.fromkeys(_FORGOTTEN), "retries_left": 0})
        return was_cancelled

    def refresh(self) -> Job:
        """Updates the job from the server, and returns it.

        Raises JobNotFoundError if the server has forgotten it.
        """
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
