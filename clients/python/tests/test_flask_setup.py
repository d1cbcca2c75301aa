"""How a Doppler, its functions and its applications find each other."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from carillon.flask import Doppler

URL = "http://127.0.0.1:9/compat/doppler"


def application(name: str = "shop", **config: Any) -> Flask:
    app = Flask(name)
    app.config.update(SECRET_KEY="foo", **config)
    return app


def test_an_address_is_needed() -> None:
    doppler = Doppler()
    callback = doppler.listen("/x")(lambda: None)
    with pytest.raises(RuntimeError, match="address of a Doppler API"):
        doppler.register(application())
    with pytest.raises(RuntimeError, match="address of a Doppler API"):
        doppler.get_job("x")
    with pytest.raises(RuntimeError, match="register"):
        callback.delay(0)
    with pytest.raises(RuntimeError, match="register"):
        _ = callback.url


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://localhost", "http://"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ValueError):
        Doppler(url)
    with pytest.raises(ValueError):
        Doppler().register(application(), url)
    with pytest.raises(ValueError):
        Doppler(URL).register(application(), callback_url=url)


def test_an_address_comes_from_wherever() -> None:
    for doppler, app, arguments in (
        (Doppler(URL), application(), []),
        (Doppler(), application(), [URL]),
        (Doppler(), application(DOPPLER_URL=URL + "/"), []),
    ):
        doppler.register(app, *arguments)
        assert doppler._apps[app].api is doppler._api(URL)


def test_an_application_can_be_given_at_once() -> None:
    app = application(SERVER_NAME="localhost:1")
    doppler = Doppler(URL, app)
    assert doppler.listen("/x")(lambda: None).url == "http://localhost:1/_callbacks/x"


@pytest.mark.parametrize(
    ("config", "callback_url", "url"),
    [
        ({"SERVER_NAME": "shop.example"}, None, "http://shop.example/_callbacks/x"),
        ({"SERVER_NAME": "shop.example", "PREFERRED_URL_SCHEME": "https"}, None, "https://shop.example/_callbacks/x"),
        ({"SERVER_NAME": "shop.example", "APPLICATION_ROOT": "/app"}, None, "http://shop.example/app/_callbacks/x"),
        ({}, "https://10.0.0.5:8443/app/", "https://10.0.0.5:8443/app/_callbacks/x"),
        ({"SERVER_NAME": "shop.example"}, "http://inside:81", "http://inside:81/_callbacks/x"),
        ({"DOPPLER_CALLBACK_URL": "http://inside:81"}, None, "http://inside:81/_callbacks/x"),
    ],
)
@pytest.mark.filterwarnings("ignore:Current server name")  # so says Flask before 3.1
def test_where_the_server_calls(config: Any, callback_url: Any, url: str) -> None:
    doppler = Doppler(URL)
    callback = doppler.listen("/x")(lambda: None)
    app = application(**config)
    doppler.register(app, callback_url=callback_url)
    assert callback.url == url
    with app.test_request_context("http://evil.example/", headers={"Host": "evil.example"}):
        assert callback.url == url


def test_without_an_address_of_its_own_a_request_does_not_lend_one() -> None:
    doppler = Doppler(URL)
    callback = doppler.listen("/x")(lambda: None)
    app = application()
    doppler.register(app)
    with pytest.raises(RuntimeError, match="SERVER_NAME"):
        _ = callback.url
    with app.test_request_context("http://evil.example/"), pytest.raises(RuntimeError, match="SERVER_NAME"):
        callback.delay(0)


def test_a_prefix_is_chosen() -> None:
    doppler, app = Doppler(URL), application(SERVER_NAME="h")
    callback = doppler.listen("/x")(lambda: None)
    doppler.register(app, url_prefix="/hooks/")
    assert callback.url == "http://h/hooks/x"
    assert app.test_client().post("http://h/hooks/x").status_code == 400
    assert app.test_client().post("http://h/_callbacks/x").status_code == 404


def test_functions_are_declared_before_or_after() -> None:
    doppler, app = Doppler(URL), application(SERVER_NAME="h")
    before = doppler.listen("/before")(lambda: None)
    doppler.register(app)

    @doppler.listen("/after")
    def after() -> None:
        pass

    assert {before.url, after.url} == {"http://h/_callbacks/before", "http://h/_callbacks/after"}
    for path in ("before", "after"):
        assert app.test_client().post(f"http://h/_callbacks/{path}").status_code == 400


def test_a_factory_makes_several_applications() -> None:
    doppler = Doppler(URL)
    callback = doppler.listen("/x")(lambda: None)
    one, two = application("one", SERVER_NAME="one"), application("two", SERVER_NAME="two")
    doppler.register(one)
    doppler.register(two)
    with one.app_context():
        assert callback.url == "http://one/_callbacks/x"
    with two.app_context():
        assert callback.url == "http://two/_callbacks/x"
    with pytest.raises(RuntimeError, match="2 applications"):
        _ = callback.url


def test_one_application_is_meant_also_inside_a_stranger() -> None:
    doppler, app = Doppler(URL), application(SERVER_NAME="h")
    callback = doppler.listen("/x")(lambda: None)
    doppler.register(app)
    with application("stranger").app_context():
        assert callback.url == "http://h/_callbacks/x"


def test_flask_gets_the_rest_of_the_options() -> None:
    doppler, app = Doppler(URL), application(SERVER_NAME="h")
    doppler.register(app)
    doppler.listen("/x", endpoint="mine", methods=["POST", "PUT"], strict_slashes=False)(lambda: None)
    assert app.test_client().put("http://h/_callbacks/x/").status_code == 400
    assert "mine" in app.view_functions


def test_functions_of_one_name_do_not_clash() -> None:
    doppler, app = Doppler(URL), application(SERVER_NAME="h")
    doppler.register(app)

    def first() -> Any:
        def work() -> None:
            pass

        return work

    def second() -> Any:
        def work() -> None:
            pass

        return work

    assert doppler.listen("/1")(first()).url != doppler.listen("/2")(second()).url


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"route": "x"}, ValueError),
        ({"route": "/x/<id>"}, ValueError),
        ({"route": "/x", "methods": ["GET"]}, ValueError),
        ({"route": "/x", "max_retries": -1}, ValueError),
        ({"route": "/x", "max_retries": 1.5}, TypeError),
        ({"route": "/x", "max_retries": True}, TypeError),
        ({"route": "/x", "retry_delay": "10"}, TypeError),
        ({"route": "/x", "retry_delay": -1}, ValueError),
    ],
)
def test_what_no_callback_can_be(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Doppler(URL).listen(**arguments)


def _expires(_expires: int) -> None:
    pass


@pytest.mark.parametrize("function", [lambda *args: None, lambda **kwargs: None, _expires, eval("lambda a, /: None")])
def test_arguments_have_names_to_be_given(function: Any) -> None:
    with pytest.raises(TypeError):
        Doppler(URL).listen("/x")(function)
