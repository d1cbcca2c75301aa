"""A real server in a process of its own, and a receiver of callbacks in a thread.

Nothing here sleeps for luck: what is waited for is asked for until it is there, or the test fails.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

T = TypeVar("T")

#: How long anything may take that is waited for, in seconds.
DEADLINE = 60.0

#: Names the server's program.
BINARY = "CARILLON_BIN"

REPOSITORY = Path(__file__).resolve().parents[3]


def until(what: str, found: Callable[[], Optional[T]], deadline: float = DEADLINE) -> T:
    """Asks until the answer is true in the sense of ``if``."""
    end = time.monotonic() + deadline
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.01)


def binary() -> Path:
    """The server's program: CARILLON_BIN, or where `cargo build --release` puts it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    path = Path(os.environ.get(BINARY, target / "release" / "carillon"))
    assert path.is_file(), f"there is no {path}: build it with `cargo build --release`, or name one with {BINARY}"
    return path


class Server:
    """A server that runs, with a store of its own in ``directory``. It can be killed and started again at the same address."""

    def __init__(
        self,
        directory: Path,
        arguments: Sequence[str] = ("--no-auth",),
        environment: Optional[Mapping[str, str]] = None,
    ) -> None:
        self._directory = directory
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        self._listen = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        """Starts it; returns when it is ready."""
        store = f"sqlite:{self._directory / 'carillon.db'}"
        command = [str(binary()), "serve", "--listen", self._listen, "--store", store, "--log-format", "json"]
        command += ["--egress-allow", "127.0.0.0/8", *self._arguments]
        environment = {
            "CARILLON_KEYS__MASTER_KEY": "00" * 32,
            "CARILLON_LOG": "info",
            # Plugins are compiled once for all servers of a run.
            "CARILLON_POLICY__CACHE_DIR": str(self._directory.parent / "plugin-cache"),
            **self._environment,
        }
        self._process = subprocess.Popen(
            command,
            cwd=self._directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._listen = self._address()
        self.url = f"http://{self._listen}"

    @property
    def port(self) -> int:
        return int(self._listen.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self._wait()

    def stop(self) -> None:
        """SIGTERM; returns when it is gone."""
        self._process.terminate()
        self._wait()

    def _wait(self) -> None:
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _address(self) -> str:
        """Reads the log until it says where the server listens; a thread reads the rest, so that the pipe never fills."""
        found: list[str] = []
        log: list[str] = []
        is_ready = threading.Event()

        def follow() -> None:
            assert self._process.stderr is not None
            for line in self._process.stderr:
                if is_ready.is_set():
                    continue
                log.append(line)
                entry = json.loads(line) if line.startswith("{") else {}
                if entry.get("message") == "ready":
                    found.append(entry["address"])
                    is_ready.set()
            is_ready.set()

        self._reader = threading.Thread(target=follow, daemon=True)
        self._reader.start()
        assert is_ready.wait(DEADLINE), "the server is not ready in time"
        assert found, f"the server does not start: {''.join(log)}"
        return found[0]


@dataclass(frozen=True)
class Arrival:
    """A request that a receiver got."""

    method: str
    #: With its query.
    path: str
    #: Their names in small letters.
    headers: Mapping[str, str]
    body: bytes
    #: Unix seconds.
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What a receiver says."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Proxy:
    """A relay to a server, whose connections can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        #: How many connections there were.
        self.accepted = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Breaks all connections off."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(DEADLINE)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._port))
                with self._lock:
                    self.accepted += 1
                    self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=pair, daemon=True).start()

    @staticmethod
    def _relay(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source:
            while True:
                chunk = source.recv(1 << 16)
                if not chunk:
                    break
                target.sendall(chunk)
            target.shutdown(socket.SHUT_RDWR)


class Receiver:
    """An HTTP server which remembers what it is sent, and answers what it was told to, by path; 200 when it was told nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._script: dict[str, list[Answer]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def url(self, path: str = "/") -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{path}"

    def script(self, path: str, *answers: Answer) -> None:
        """The next answers to requests for this path; the last one stays."""
        with self._lock:
            self._script[path] = list(answers)

    def all(self, path: Optional[str] = None) -> list[Arrival]:
        """What came so far."""
        with self._lock:
            return [arrival for arrival in self._arrivals if path in (None, arrival.path)]

    def arrived(self, path: str, count: int = 1) -> list[Arrival]:
        """Waits for so many requests."""

        def enough() -> Optional[list[Arrival]]:
            arrivals = self.all(path)
            return arrivals if len(arrivals) >= count else None

        return until(f"{count} requests for {path}", enough)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)

    def _take(self, arrival: Arrival) -> Answer:
        with self._lock:
            self._arrivals.append(arrival)
            answers = self._script.get(arrival.path, [Answer()])
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                arrival = Arrival(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body, time.time())
                answer = receiver._take(arrival)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
