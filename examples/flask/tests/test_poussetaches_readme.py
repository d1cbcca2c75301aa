"""The Flask handler of poussetaches' README, against a real server.

As it stands there it is no program: the route lacks its slash, `req` is Flask's `request` under another name, and the modules are not
imported. The rest is line by line the README's.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
from flask import Flask
from flask import request as req
from support import Server, until
from website import serving

HANDLER = """
@app.route("/task/my_task", methods=["POST"])
def task_my_task():
    # Ensure poussetaches is the author of the request
    if req.headers.get("Poussetaches-Auth-Key") != POUSSETACHES_AUTH_KEY:
        raise ValueError("Bad auth key")

    # Parse the "envelope" which contains metadata and the payload
    envelope = json.loads(req.data)
    print(req)
    print(f"envelope={envelope!r}")
    payload = json.loads(base64.b64decode(envelope["payload"]))

    app.logger.info(envelope["req_id"])
    app.logger.info(envelope["tries"])
    app.logger.info(payload)

    # Return a successfull status code to let pousssetaches knows the task is done
    return ""
"""

KEY = "shared-by-the-app-and-the-server"


class Log:
    """The application's logger, which remembers."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def info(self, line: Any) -> None:
        self.lines.append(line)


def application(key: str) -> tuple[Flask, Log]:
    """The README's application, which expects this key."""
    app, log = Flask("poussetaches-readme"), Log()
    app.logger = log  # type: ignore[assignment]
    exec(HANDLER, {"app": app, "req": req, "json": json, "base64": base64, "POUSSETACHES_AUTH_KEY": key})
    return app, log


def test_the_handler_of_poussetaches_readme(tmp_path: Path) -> None:
    server = Server(tmp_path, environment={"POUSSETACHES_AUTH_KEY": KEY})
    payload = base64.b64encode(json.dumps({"id": 7}).encode()).decode()
    app, log = application(KEY)
    stranger, ignored = application("another key")
    client = httpx.Client(base_url=f"{server.url}/compat/poussetaches")
    with client as queue, serving(app) as url, serving(stranger) as elsewhere:
        pushed = queue.post("/", json={"url": f"{url}/task/my_task", "payload": payload})
        assert pushed.status_code == 201
        until("the handler has logged", lambda: len(log.lines) == 3)
        request_id, tries, seen = log.lines
        assert (len(request_id), tries, seen) == (12, 1, {"id": 7})
        done = until("the task succeeds", lambda: queue.get("/success").json()["tasks"])
        assert [task["id"] for task in done] == [pushed.headers["Poussetaches-Task-ID"]]

        queue.post("/", json={"url": f"{elsewhere}/task/my_task", "payload": payload})

        def refused() -> list[Any]:
            return [task for task in queue.get("/waiting").json()["tasks"] if task["last_error_status_code"] == 500]

        until("a handler that expects another key refuses", refused)
        assert ignored.lines == []
    server.stop()
