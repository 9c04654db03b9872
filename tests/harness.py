"""What the tests share: a relay as a real process, clients for it, tools that may be missing."""

import http.client
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from relayd.ctl.usage import own_cpu_seconds

PATIENCE = 15
"""Seconds that a test waits for an event before it fails."""

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from relayd.cli import main; main()"


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test on a user's machine, fail it in CI, where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def require_tool(name: str) -> str:
    """Return the path of a program; skip the test where it is missing, in CI fail it."""
    path = shutil.which(name)
    if path is None:
        skip_or_fail(f"{name} is not installed")
    return path


def install_with_npm(package: str, folder: Path) -> None:
    """Install a package of Node into a folder; skip the test where that can't be, in CI fail it."""
    options = "--no-audit --no-fund --prefer-offline"
    limits = "--fetch-retries=1 --fetch-retry-mintimeout=500 --fetch-timeout=10000"
    install = subprocess.run(
        [require_tool("npm"), "install", *f"{options} {limits} --prefix".split(), folder, package],
        capture_output=True,
        text=True,
    )
    if install.returncode:
        skip_or_fail(f"npm can't install {package}:\n{install.stderr}")


@contextmanager
def open_chromium(*flags: str) -> Iterator[Any]:
    """Start Chromium without a window, with more flags; give the Playwright browser.

    While it is open, this thread can run no other event loop.
    """
    path = require_tool("chromium")
    try:
        playwright = importlib.import_module("playwright.sync_api")
    except ModuleNotFoundError:
        skip_or_fail("playwright is not installed")
    with (
        playwright.sync_playwright() as driver,
        driver.chromium.launch(executable_path=path, args=[*CHROMIUM_FLAGS, *flags]) as browser,
    ):
        yield browser


class LineReader:
    """Collects the lines of a process's output; lets a test wait for one."""

    def __init__(self, pipe: Any) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: Any) -> None:
        with pipe, suppress(ValueError):  # the test may close it first
            for line in pipe:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def matching(self, pattern: str) -> list[re.Match[str]]:
        """Return the matches of a pattern so far, at most one a line."""
        return [match for line in self.lines if (match := re.search(pattern, line))]

    def wait_for(
        self, pattern: str, count: int = 1, patience: float = PATIENCE
    ) -> list[re.Match[str]]:
        """Wait until this many lines match."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self.matching(pattern)) >= count or self._ended, patience
            )
            found = self.matching(pattern)
        assert len(found) >= count, f"no {pattern!r} ({count}) in:\n" + "\n".join(self.lines)
        return found

    def wait_for_end(self) -> list[str]:
        """Wait until the process has closed its output; return all lines."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.lines


class RelayProcess:
    """A relayd of its own on an ephemeral port of the loopback interface.

    Args:
        options: Command-line options beside host and port.
        env: Environment variables to add.
        loop: ``"uvloop"`` or ``"asyncio"``.
    """

    def __init__(
        self, *options: str, env: dict[str, str] | None = None, loop: str = "uvloop"
    ) -> None:
        program = ["-m", "relayd"] if loop == "uvloop" else ["-c", WITHOUT_UVLOOP]
        self.process = subprocess.Popen(
            [sys.executable, *program, "--host", "127.0.0.1", "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
        )
        assert self.process.stderr is not None
        self.log = LineReader(self.process.stderr)
        (listening,) = self.log.wait_for(r"listening on 127\.0\.0\.1:(\d+)")
        self.port = int(listening[1])
        self.url = f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> "RelayProcess":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
        self.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end of the process; return its exit code."""
        code = self.process.wait(PATIENCE)
        self.log.wait_for_end()
        return code

    def busy_time(self) -> float:
        """Return the seconds of CPU time that the process has had; elsewhere than on Linux, all.

        That is how long it holds up a client, whatever else the machine does.
        """
        if sys.platform != "linux":
            return time.monotonic()
        return own_cpu_seconds(self.process.pid)

    def memory(self) -> int:
        """Return the resident memory of the process, in bytes (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one plain HTTP request; return the response and its body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def operate(
        self, method: str, path: str, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Make a request on the operator's port; return the response and its body."""
        (found,) = self.log.wait_for(r"operator's port on 127\.0\.0\.1:(\d+)")
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=PATIENCE)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=fields)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def health(self) -> dict[str, Any]:
        """Return what /health says."""
        _, body = self.request("GET", "/health")
        report: dict[str, Any] = json.loads(body)
        return report

    def connect(self, path: str, **options: Any) -> AbstractContextManager[ClientConnection]:
        """Open a WebSocket, as a context manager."""
        options = {"compression": None, "max_size": None, "open_timeout": PATIENCE} | options
        return connect(self.url + path, **options)

    @contextmanager
    def register(
        self, stream_id: str | None = None, **fields: Any
    ) -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
        """Register a stream, with more fields; give the streamer's connection and the reply."""
        with self.connect("/ws/stream") as streamer:
            send(streamer, type="register", stream_id=stream_id, **fields)
            reply = receive(streamer)
            assert reply["type"] == "registered", reply
            yield streamer, reply

    @contextmanager
    def stream(self, stream_id: str | None = None) -> Iterator[tuple[ClientConnection, str]]:
        """Register a stream; give the streamer's connection and the id."""
        with self.register(stream_id) as (streamer, reply):
            yield streamer, reply["stream_id"]

    @contextmanager
    def subscribe(
        self, stream_id: str, **fields: Any
    ) -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
        """Subscribe to a stream, with more fields; give the viewer's connection and the reply."""
        with self.connect(f"/ws/view/{stream_id}") as viewer:
            send(viewer, type="subscribe", stream_id=stream_id, **fields)
            reply = receive(viewer)
            assert reply["type"] == "subscribed", reply
            yield viewer, reply

    @contextmanager
    def view(self, stream_id: str, **options: Any) -> Iterator[ClientConnection]:
        """Subscribe to a stream; give the viewer's connection."""
        with self.connect(f"/ws/view/{stream_id}", **options) as viewer:
            send(viewer, type="subscribe", stream_id=stream_id)
            assert receive(viewer) == {"type": "subscribed", "stream_id": stream_id}
            yield viewer


def send(client: ClientConnection, **fields: Any) -> None:
    """Send one signalling message."""
    client.send(json.dumps(fields))


def receive(client: ClientConnection) -> dict[str, Any]:
    """Receive one signalling message."""
    text = client.recv(PATIENCE)
    assert isinstance(text, str)
    message: dict[str, Any] = json.loads(text)
    return message


def close_code(client: ClientConnection) -> int | None:
    """Wait for the server to close; nothing but the close frame may come."""
    with pytest.raises(ConnectionClosed):
        pytest.fail(f"unexpected: {client.recv(PATIENCE)!r}")
    return client.close_code


def address(client: ClientConnection) -> str:
    """Return the client's address as the log shows it."""
    host, port = client.local_address
    return f"{host}:{port}"
