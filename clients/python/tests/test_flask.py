"""Doppler's helper for Flask: functions that are called back by a real server, in an application that really listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import Any, Callable

import httpx
import pytest
from flask import Flask, abort
from support import Server, until
from website import serving

from carillon import Problem
from carillon.flask import ArgumentMismatchError, Callback, Doppler, Job, JobNotFoundError

Make = Callable[..., Callback]


def mount(server: Server) -> str:
    return f"{server.url}/compat/doppler"


@pytest.fixture
def doppler(server: Server) -> Iterator[Doppler]:
    doppler = Doppler(mount(server) + "/")
    yield doppler
    doppler.close()


@pytest.fixture
def listening(doppler: Doppler) -> Iterator[Make]:
    """Makes a callback of a function, in an application that listens."""
    with ExitStack() as stack:

        def make(function: Callable[..., Any], **options: Any) -> Callback:
            app = Flask("shop")
            app.config["SECRET_KEY"] = "foo"
            callback = doppler.listen("/callback", **options)(function)
            doppler.register(app)
            stack.enter_context(serving(app))
            return callback

        yield make


def done(job: Job) -> Job:
    until("the job is done", lambda: job.refresh().status == "done")
    return job


def test_a_function_is_called_back_with_its_arguments(listening: Make) -> None:
    calls: list[dict[str, Any]] = []

    def remind_user(user_id: str, message: str, options: Any) -> None:
        calls.append({"user_id": user_id, "message": message, "options": options})

    given = {"user_id": "foo", "message": "Don’t forget to buy milk 🥛", "options": {"n": [1, 2.5, None, True], "é": "&=?|"}}
    done(listening(remind_user).delay(0, **given))
    assert calls == [given]


def test_the_result_is_still_the_function(listening: Make) -> None:
    def double(n: int) -> int:
        "Doubles."
        return 2 * n

    callback = listening(double)
    assert (callback(3), callback(n=4)) == (6, 8)
    assert (callback.__name__, callback.__doc__) == ("double", "Doubles.")  # type: ignore[attr-defined]
    assert callback.url.endswith("/_callbacks/callback")


def test_a_job_has_the_attributes_of_doppler(listening: Make) -> None:
    before = time.time()
    job = listening(lambda: None, max_retries=3).delay(3600)
    assert (job.status, job.state, job.last_retry, job.retries_left) == ("early", "early", None, 3)
    assert job.run_at is not None
    assert before + 3600 <= job.run_at <= time.time() + 3601
    assert job.scheduled_at is not None
    assert int(before) <= job.scheduled_at <= time.time()
    assert len(job.request_id) == 36
    job.cancel()


def test_a_job_is_found_by_its_id(doppler: Doppler, listening: Make) -> None:
    job = listening(lambda: None).delay(3600)
    found = doppler.get_job(job.request_id)
    assert found is not None
    assert vars(found) | {"_api": None} == vars(job.refresh()) | {"_api": None}
    assert found.cancel()
    assert doppler.get_job("00000000-0000-4000-8000-000000000000") is None
    assert doppler.get_job("../../v1/groups") is None
    stranger = Job(found._api, {**vars(found), "request_id": "00000000-0000-4000-8000-000000000000"})
    with pytest.raises(JobNotFoundError):
        stranger.refresh()


def test_a_cancelled_job_never_runs(listening: Make) -> None:
    calls: list[str] = []

    def expire(id: str) -> None:
        calls.append(id)

    callback = listening(expire)
    job = callback.delay(2, id="cancelled")
    assert job.cancel() is True
    assert job.state == "done"
    assert job.cancel() is False
    assert job.refresh().state == "done"
    other = callback.delay(2, id="kept")
    done(other)
    assert calls == ["kept"]
    assert other.cancel() is False


def test_a_callback_that_aborts_is_tried_again(listening: Make) -> None:
    calls: list[float] = []

    def expire(id: str) -> None:
        calls.append(time.monotonic())
        if len(calls) < 3:
            abort(400)

    job = listening(expire, max_retries=5, retry_delay=1).delay(0, id="foo")
    until("the first try has failed", lambda: job.refresh().last_retry is not None)
    assert (job.status in ("early", "late", "waiting"), job.retries_left) == (True, 4)
    done(job)
    assert len(calls) == 3
    assert all(later - earlier >= 1.0 for earlier, later in zip(calls, calls[1:]))


def test_it_is_called_once_and_then_so_many_times_more(listening: Make) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(len(calls))
        raise RuntimeError("always")

    done(listening(fail, max_retries=2, retry_delay=0).delay(0))
    assert len(calls) == 3


def test_a_time_is_a_number_a_period_or_a_point(listening: Make) -> None:
    callback = listening(lambda: None)
    now = time.time()
    at = datetime.fromtimestamp(now + 500.25, timezone(timedelta(hours=5)))
    for delay in (500.25, timedelta(seconds=500.25), at):
        job = callback.delay(delay)
        assert job.run_at is not None
        # Rounded up to a whole second: never early.
        assert now + 500.25 <= job.run_at < time.time() + 501.25
        job.cancel()
    for delay in (0, -5, timedelta(days=-1), datetime(2000, 1, 1, tzinfo=timezone.utc)):
        done(callback.delay(delay))


@pytest.mark.parametrize(
    ("delay", "error"),
    [
        ("10", TypeError),
        (None, TypeError),
        (True, TypeError),
        (datetime(2030, 1, 1), ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
    ],
)
def test_what_is_no_time(listening: Make, delay: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        listening(lambda: None).delay(delay)


def test_the_names_are_exactly_those_of_the_function(listening: Make) -> None:
    def expire(id: str, *, why: str = "late", seconds: int = 1) -> None:
        pass

    callback = listening(expire)
    with pytest.raises(ArgumentMismatchError, match="expire: missing: id, why; unknown: whi"):
        callback.delay(10, whi="x", seconds=1)
    with pytest.raises(ArgumentMismatchError, match="missing: why"):
        callback.delay(10, id="x", seconds=1)
    callback.delay(10, id="x", why="y", seconds=1).cancel()


def test_what_json_cannot_hold_is_named(listening: Make) -> None:
    def expire(id: object) -> None:
        pass

    callback = listening(expire)
    with pytest.raises(TypeError, match="'id'"):
        callback.delay(10, id=object())
    with pytest.raises(ValueError, match="'id'"):
        callback.delay(10, id=float("nan"))


def test_a_thread_without_any_context_can_delay(listening: Make) -> None:
    called = threading.Event()
    callback = listening(lambda: called.set())
    thread = threading.Thread(target=lambda: callback.delay(0))
    thread.start()
    thread.join()
    assert called.wait(20)


def test_an_address_that_is_no_doppler_api_is_hinted_at(server: Server, listening: Make) -> None:
    callback = listening(lambda: None)
    wrong = Doppler(server.url)
    app = Flask("shop")
    app.config.update(SERVER_NAME="localhost:1", SECRET_KEY="foo")
    wrong.register(app)
    with pytest.raises(Problem, match="/compat/doppler"):
        wrong.listen("/x")(lambda: None).delay(0)
    wrong.close()
    callback.delay(0)


def test_what_the_server_refuses_is_a_problem(doppler: Doppler) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="foo")
    doppler.register(app, callback_url="http://127.0.0.1:1")
    callback = doppler.listen("/x", retry_delay=2**70)(lambda: None)
    with pytest.raises(Problem) as caught:
        callback.delay(0)
    assert 400 <= caught.value.status < 500


def test_a_server_that_is_not_there_is_a_transport_error() -> None:
    doppler = Doppler("http://127.0.0.1:9")
    app = Flask("shop")
    app.config.update(SECRET_KEY="foo")
    doppler.register(app, callback_url="http://127.0.0.1:1")
    with pytest.raises(httpx.TransportError):
        doppler.listen("/x")(lambda: None).delay(0)
    doppler.close()


def test_a_token_goes_in_the_address(tmp_path_factory: pytest.TempPathFactory) -> None:
    token = "a-token-of-16-characters"
    server = Server(tmp_path_factory.mktemp("guarded"), (), {"CARILLON_AUTH__ADMIN_TOKEN": token})
    for url, status in ((mount(server), 401), (mount(server).replace("//", f"//:{token}@"), None)):
        doppler, app = Doppler(url), Flask("shop")
        app.config.update(SECRET_KEY="foo")
        doppler.register(app, callback_url="http://127.0.0.1:1")
        callback = doppler.listen("/x")(lambda: None)
        if status is None:
            assert callback.delay(100).cancel()
        else:
            with pytest.raises(Problem) as caught:
                callback.delay(100)
            assert caught.value.status == status
        doppler.close()
    server.stop()
