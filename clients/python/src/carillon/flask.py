"""Callbacks to Flask applications, as Doppler's helper makes them, over Carillon's Doppler API.

    doppler = Doppler("http://localhost:7070/compat/doppler")

    @doppler.listen("/expire", max_retries=5, retry_delay=10)
    def expire(id): ...

    doppler.register(app)
    expire.delay(3600, id="foo")

The arguments travel through the server, signed with the application's ``SECRET_KEY`` for one endpoint; the signature expires a while after
the last retry. A request with a bad signature gets the status 400, and the function does not run. The arguments are not encrypted: the
server and readers of its database can read them. A callback can arrive twice; functions must allow for that.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Callable, Optional, Union, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from flask import Flask, Response, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from carillon._doppler import DopplerApi, Job, JobNotFoundError
from carillon.signing import EXPIRES, BadSignature, sign, verify

if TYPE_CHECKING:
    from werkzeug.local import LocalProxy

__all__ = ["ArgumentMismatchError", "Callback", "Doppler", "Job", "JobNotFoundError"]

#: Time of a callback: seconds from now, a time from now, or a point in time. It is rounded up to a whole second.
Delay = Union[int, float, timedelta, datetime]

#: Name of the signed item with the endpoint. It is not a valid name of an argument.
_ROUTE = "@route"

#: Duration of an attempt at most, in seconds.
_ATTEMPT_SECONDS = 30

#: Time after the last retry for which a callback is still accepted, since a server that was down delivers late.
LEEWAY = timedelta(days=1)

_LOG = logging.getLogger(__name__)


class ArgumentMismatchError(TypeError):
    """The given names are not exactly those of the function's arguments."""


@dataclass(frozen=True)
class _Registration:
    """Settings of a registered application."""

    api: DopplerApi
    url_prefix: str
    callback_url: Optional[str]


class Doppler:
    """Schedules callbacks to functions of Flask applications.

    ``url``: URL of the Doppler API; user information holds a token: ``https://:TOKEN@host/compat/doppler``.
    ``app``: an application to register.
    ``leeway``: time after the last retry for which a callback is still accepted; None means for ever.
    ``allow_unsigned``: accept applications without a ``SECRET_KEY``. Their callbacks are not signed, so everybody who reaches the
    endpoints can call the functions with any arguments.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        app: Optional[Flask] = None,
        *,
        leeway: Union[timedelta, float, None] = LEEWAY,
        allow_unsigned: bool = False,
    ) -> None:
        """Raises ValueError for a URL that is not http(s), and with ``app`` what ``register`` raises."""
        self.url = _stripped(url)
        self.leeway = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
        self.allow_unsigned = allow_unsigned
        self._apis: dict[str, DopplerApi] = {}
        self._callbacks: list[Callback] = []
        self._apps: WeakKeyDictionary[Flask, _Registration] = WeakKeyDictionary()
        if self.url is not None:
            self._api(self.url)
        if app is not None:
            self.register(app)

    def listen(
        self, route: str, max_retries: int = 0, retry_delay: int = 10, **flask_route_kwargs: Any
    ) -> Callable[[Callable[..., Any]], Callback]:
        """Makes a function an endpoint for callbacks: POST, at ``route`` below the prefix of ``register``.

        A failed callback (a status of 400 or more, or no response) is repeated up to ``max_retries`` times, ``retry_delay`` seconds after
        each failure. Other arguments go to Flask's ``add_url_rule``. The function returns what a view may return, or None.

        Raises TypeError for a function with arguments that cannot be given by name, and ValueError for an invalid route.
        """
        _check_count("max_retries", max_retries)
        _check_count("retry_delay", retry_delay)
        if not route.startswith("/") or "<" in route:
            raise ValueError(f"a route begins with a slash and has no variables, since arguments travel in the body: {route!r}")
        methods = {method.upper() for method in flask_route_kwargs.setdefault("methods", ["POST"])}
        if "POST" not in methods:
            raise ValueError("callbacks are POST requests: `methods` has to have it")

        def decorate(function: Callable[..., Any]) -> Callback:
            callback = Callback(self, function, route, max_retries, retry_delay, flask_route_kwargs)
            self._callbacks.append(callback)
            for app, registration in list(self._apps.items()):
                callback._add_to(app, registration.url_prefix)
            return callback

        return decorate

    def register(
        self,
        app: Flask,
        doppler_url: Optional[str] = None,
        url_prefix: str = "/_callbacks",
        *,
        callback_url: Optional[str] = None,
    ) -> None:
        """Adds all endpoints to an application, including those that ``listen`` declares later.

        ``callback_url``: URL of the application for the server, such as ``https://shop.example.org``. By default it is made from Flask's
        ``SERVER_NAME``, ``APPLICATION_ROOT`` and ``PREFERRED_URL_SCHEME``, never from the host of a request.

        ``DOPPLER_URL`` and ``DOPPLER_CALLBACK_URL`` in the application's config also set the two URLs.

        Raises RuntimeError if the application has no ``SECRET_KEY`` (unless ``allow_unsigned``) or there is no URL of a Doppler API, and
        ValueError for a URL that is not http(s).
        """
        self._secret(app)
        url = _stripped(doppler_url) or self.url or _stripped(app.config.get("DOPPLER_URL"))
        if url is None:
            raise RuntimeError(f"{_NO_URL}, or to register(), or set DOPPLER_URL in the application's config")
        callback_url = _stripped(callback_url or app.config.get("DOPPLER_CALLBACK_URL"))
        if callback_url is not None and (urlsplit(callback_url).scheme not in ("http", "https") or not urlsplit(callback_url).netloc):
            raise ValueError(f"the application's address is http:// or https:// and a host, not {callback_url!r}")
        registration = _Registration(self._api(url), url_prefix.rstrip("/"), callback_url)
        for callback in self._callbacks:
            callback._add_to(app, registration.url_prefix)
        self._apps[app] = registration

    def get_job(self, request_id: str) -> Optional[Job]:
        """Returns a job by its id, or None if the server does not know it."""
        api = self._default_api()
        document = api.get(request_id)
        return None if document is None else Job(api, document)

    def close(self) -> None:
        """Closes the connections to the server; the next request opens a new one."""
        for api in self._apis.values():
            api.close()

    def _secret(self, app: Flask) -> Union[str, bytes, None]:
        """Returns the secret that signs an application's callbacks; None if they are not signed.

        Raises RuntimeError if the application has none, unless unsigned callbacks are allowed.
        """
        if app.secret_key:
            return app.secret_key
        if not self.allow_unsigned:
            raise RuntimeError(
                f"{app.name} has no SECRET_KEY: its callbacks would not be signed, and everybody who reaches them could call them. "
                "Set SECRET_KEY before register(), or pass allow_unsigned=True to Doppler()"
            )
        if not app.extensions.get("carillon.unsigned"):
            app.extensions["carillon.unsigned"] = True
            _LOG.warning("%s has no SECRET_KEY: its callbacks are not signed, and anybody who reaches them can call them", app.name)
        return None

    def _api(self, url: str) -> DopplerApi:
        if url not in self._apis:
            self._apis[url] = DopplerApi(url)
        return self._apis[url]

    def _default_api(self) -> DopplerApi:
        if self._apps and (self.url is None or current_app or len(self._apps) == 1):
            return self._apps[self._app()].api
        if self.url is None:
            raise RuntimeError(f"{_NO_URL}, or register an application")
        return self._api(self.url)

    def _app(self) -> Flask:
        """Returns the current application; without one, the only registered application."""
        # Flask declares the proxy as the application that it stands for.
        proxy = cast("LocalProxy[Flask]", current_app)
        app = proxy._get_current_object() if proxy else None
        if app is not None and app in self._apps:
            return app
        apps = list(self._apps)
        if len(apps) == 1:
            return apps[0]
        if not apps:
            raise RuntimeError("no application is registered: doppler.register(app)")
        raise RuntimeError(f"{len(apps)} applications are registered: say which by `with app.app_context():`")


class Callback:
    """A registered function: it can be called, and scheduled with ``delay``."""

    def __init__(
        self,
        doppler: Doppler,
        function: Callable[..., Any],
        route: str,
        max_retries: int,
        retry_delay: int,
        route_options: Mapping[str, Any],
    ) -> None:
        self._doppler = doppler
        self._function = function
        self._arguments = _arguments_of(function)
        self._route = route
        self._options = dict(route_options)
        name = f"doppler:{function.__module__}:{function.__qualname__}".replace(".", ":")
        self._endpoint: str = self._options.pop("endpoint", None) or name
        self.max_retries = max_retries
        self.retry_delay = retry_delay
        update_wrapper(self, function)
        self._name: str = function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function directly."""
        return self._function(*args, **kwargs)

    @property
    def url(self) -> str:
        """URL of the endpoint.

        Raises RuntimeError if the application's URL is not known.
        """
        app = self._doppler._app()
        return self._url(app, self._doppler._apps[app])

    def delay(self, seconds: Delay, /, **arguments: Any) -> Job:
        """Schedules a call of the function, not before the given time, which is rounded up to a second. A time in the past means now.

        Raises ArgumentMismatchError unless the names are exactly the function's arguments, TypeError for arguments that JSON cannot hold
        and for an invalid time, RuntimeError if no application is registered or a URL or the ``SECRET_KEY`` is missing, Problem if the
        server refuses, and ``httpx.TransportError`` if the server cannot be reached.
        """
        self._check(arguments)
        run_at = _run_at(seconds, time.time())
        app = self._doppler._app()
        registration = self._doppler._apps[app]
        url = self._url(app, registration)
        message = self._message(app, registration, arguments, run_at)
        return registration.api.schedule(url, message, run_at, self.max_retries, self.retry_delay)

    def _check(self, arguments: Mapping[str, Any]) -> None:
        missing = sorted(self._arguments - set(arguments))
        surplus = sorted(set(arguments) - self._arguments)
        if missing or surplus:
            parts = [f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("unknown", surplus)) if names]
            raise ArgumentMismatchError(f"{self._name}: {'; '.join(parts)}")

    def _message(self, app: Flask, registration: _Registration, arguments: Mapping[str, Any], run_at: int) -> str:
        secret = self._doppler._secret(app)
        if secret is None:
            return json.dumps(arguments, allow_nan=False)
        leeway = self._doppler.leeway
        expires = None if leeway is None else run_at + self.max_retries * (self.retry_delay + _ATTEMPT_SECONDS) + _ATTEMPT_SECONDS + leeway
        return sign({**arguments, _ROUTE: registration.url_prefix + self._route}, secret, expires=expires)

    def _add_to(self, app: Flask, url_prefix: str) -> None:
        rule = url_prefix + self._route

        def view() -> ResponseReturnValue:
            try:
                arguments = _read(app, self._doppler._secret(app), request.get_data(), rule)
            except BadSignature as error:
                return _bad_request("Unsign error", error)
            try:
                self._check(arguments)
            except ArgumentMismatchError as error:
                return _bad_request("Argument mismatch", error)
            returned: Optional[ResponseReturnValue] = app.ensure_sync(self._function)(**arguments)
            return ("", 204) if returned is None else returned

        app.add_url_rule(rule, endpoint=self._endpoint, view_func=view, **self._options)

    def _url(self, app: Flask, registration: _Registration) -> str:
        if registration.callback_url is not None:
            path = app.url_map.bind("localhost").build(self._endpoint)
            return registration.callback_url + path
        adapter = app.create_url_adapter(None)
        if adapter is None:
            raise RuntimeError(
                "the application's address is not known: set SERVER_NAME, or give register() a callback_url, or set DOPPLER_CALLBACK_URL"
            )
        return adapter.build(self._endpoint, force_external=True)


_NO_URL = "there is no address of a Doppler API: give one to Doppler()"


def _read(app: Flask, secret: Union[str, bytes, None], body: bytes, rule: str) -> dict[str, Any]:
    """Returns the arguments of a callback; without a secret they are not signed.

    Raises BadSignature unless this application signed them for this endpoint.
    """
    if secret is None:
        try:
            arguments = json.loads(body)
        except (ValueError, RecursionError):
            raise BadSignature("the body is not JSON") from None
        if not isinstance(arguments, dict):
            raise BadSignature("the body is not a JSON object")
        return arguments
    values = verify(body, [secret, *(app.config.get("SECRET_KEY_FALLBACKS") or ())])
    if values.pop(_ROUTE, None) != rule:
        raise BadSignature("the text was signed for another endpoint")
    return values


def _bad_request(error: str, why: Exception) -> Response:
    """Returns a response with the status 400, past the application's error handlers."""
    _LOG.warning("a callback to %s is refused: %s: %s", request.path, error, why)
    response = jsonify(error=error, detail=str(why))
    response.status_code = 400
    return response


def _arguments_of(function: Callable[..., Any]) -> frozenset[str]:
    """Returns the names of a function's arguments."""
    parameters = inspect.signature(function).parameters.values()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    nameless = [str(parameter) for parameter in parameters if parameter.kind not in by_name]
    if nameless:
        raise TypeError(f"the arguments of a callback are given by name, and all of them: not {', '.join(nameless)}")
    if EXPIRES in (parameter.name for parameter in parameters):
        raise TypeError(f"no argument can be called `{EXPIRES}`: it says until when a callback is good")
    return frozenset(parameter.name for parameter in parameters)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} is not negative: {value}")


def _run_at(delay: Any, now: float) -> int:
    """Converts a time to Unix seconds, rounded up. A time in the past means now."""
    if isinstance(delay, datetime):
        if delay.utcoffset() is None:
            raise ValueError("the time has no time zone; give it one: datetime.now(timezone.utc), or .astimezone()")
        at = delay.timestamp()
    elif isinstance(delay, timedelta):
        at = now + delay.total_seconds()
    elif isinstance(delay, (int, float)) and not isinstance(delay, bool):
        at = now + delay
    else:
        raise TypeError(f"a delay is a number of seconds, a timedelta or a datetime, not {delay!r}")
    if not math.isfinite(at):
        raise ValueError(f"a delay is finite, not {delay!r}")
    return math.ceil(at) if at > now else math.floor(now)


def _stripped(url: Any) -> Optional[str]:
    return url.rstrip("/") if url else None
