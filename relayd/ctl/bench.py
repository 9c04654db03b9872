"""`relayctl bench`: put a load on relayd and say what it made of it."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO
from urllib.parse import urlsplit

from .. import protocol
from ..protocol import CloseCode
from . import client, usage
from .client import ClientError
from .generator import Generator
from .load import Load, Result
from .meter import counted
from .wire import Closed, HttpRefusal, LinkError, Refused, Target

_DEFAULT_PORT = 80
_LINE_SIZE = 60


def bench(server: str, load: Load, *, as_json: bool) -> None:
    """Put a load on a server; print what was measured, as text or as one JSON object.

    SIGINT and SIGTERM end it early, which is a normal end: what was measured so far is printed.

    Raises:
        ClientError: If the server can't be reached, refuses, or closes every stream.
    """
    target = _target(server)
    # This client has the words for what may be wrong on the way to a server.
    asyncio.run(_check(server))
    try:
        pid = usage.find_server(target.host, target.port)
        with (
            Progress(load, sys.stderr) as progress,
            Generator(load, target, pid, progress.show) as generator,
            _signals_call(generator.stop),
        ):
            result = generator.run()
    except LinkError as exc:
        raise ClientError(_explain(exc, load)) from None
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise ClientError(f"cannot open all connections: {reason}") from None
    if not result.frames:  # Ended while it warmed up.
        return
    if as_json:
        print(json.dumps(report(load, result)))
    else:
        print("\n".join(lines(load, result)))


def report(load: Load, result: Result) -> dict[str, Any]:
    """Return a result for machines. Sizes are in bytes, times in the unit that the key names."""
    return {
        "streams": load.streams,
        "viewers": load.viewers,
        "frame_size": load.size if load.size is not None else "mixed",
        "fps": load.fps,
        "seconds": result.duration,
        "frames": result.frames,
        "expected_deliveries": result.expected,
        "deliveries": result.deliveries,
        "delivered_share": result.share,
        "worst_viewer_share": result.worst_share,
        "deliveries_per_second": result.rate,
        "megabytes_per_second": result.megabytes,
        "latency_ms": {"p50": result.p50, "p99": result.p99, "max": result.max},
        "late_sends": result.late,
        "lost_connections": result.lost_connections,
        "server_cpu_us_per_delivery": result.cpu_per_delivery,
        "server_cpu_seconds": result.cpu,
        "server_peak_memory": result.peak_memory,
    }


def lines(load: Load, result: Result) -> list[str]:
    """Return a result for people."""
    text = [
        f"load           {counted(load.streams, 'stream')} of {counted(load.viewers, 'viewer')},"
        f" {_size(load.size)} at {load.fps:g} fps, {result.duration:.1f} s",
        f"delivered      {percent(result.share)}, {result.deliveries} of {result.expected} frames",
        f"rate           {result.rate:.0f} deliveries/s, {result.megabytes:.1f} MB/s",
    ]
    if result.p50 is not None:
        latency = f"p50 {result.p50:.2f} ms, p99 {result.p99:.2f} ms, max {result.max:.2f} ms"
        text.append(f"latency        {latency}")
    if result.cpu is not None and result.cpu_per_delivery is not None:
        share = result.cpu / result.duration * 100
        text.append(
            f"server CPU     {result.cpu_per_delivery:.1f} µs per delivery, {share:.1f} % of a core"
        )
    if result.peak_memory is not None:
        text.append(f"server memory  {result.peak_memory / 1e6:.0f} MB at its peak")
    if result.share < 1:
        text.append(f"worst viewer   {percent(result.worst_share)} delivered")
    if result.late:
        text.append(f"late           {result.late} of {result.frames} frames were sent late")
    if result.lost_connections:
        text.append(f"lost           {result.lost_connections} connections")
    return text


def percent(share: float) -> str:
    """Write a share, never rounded up to 100 %."""
    return "100 %" if share == 1 else f"{int(share * 1000) / 10:.1f} %"


def _size(size: int | None) -> str:
    if size is None:
        return "mixed frames"
    return f"frames of {size // 1024} KiB" if size % 1024 == 0 else f"frames of {size} bytes"


class Progress:
    """Shows how far the load has got, on one line of a terminal; nothing where there is none."""

    def __init__(self, load: Load, output: TextIO) -> None:
        self._duration = load.duration
        self._output = output
        self._is_shown = output.isatty()

    def __enter__(self) -> "Progress":
        self._write("opening connections")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._write("")

    def show(self, seconds: float, deliveries: int) -> None:
        """Show the seconds since the measured time began, and the deliveries since then."""
        if seconds < 0:
            self._write("warming up")
            return
        rate = deliveries / seconds if seconds else 0.0
        self._write(f"{seconds:.0f} of {self._duration:.0f} s   {rate:.0f} deliveries/s")

    def _write(self, text: str) -> None:
        if self._is_shown:
            with contextlib.suppress(OSError):  # The terminal is gone.
                self._output.write(f"\r{text:{_LINE_SIZE}}\r{text}")
                self._output.flush()


def _target(server: str) -> Target:
    url = urlsplit(server)
    if url.scheme != "ws":
        raise ClientError("bench speaks no TLS: measure the relay behind the proxy, on ws://")
    if url.username is not None:
        raise ClientError("bench can't log in: measure the relay behind the proxy")
    # A brace in the path is not ours.
    path = url.path.replace("{", "{{").replace("}", "}}")
    return Target(
        url.hostname or "",
        url.port or _DEFAULT_PORT,
        f"{path}/ws/stream",
        path + "/ws/view/{stream}",
    )


async def _check(server: str) -> None:
    async with client.opened(server, "/ws/stream"):
        pass


def _explain(exc: LinkError, load: Load) -> str:
    if isinstance(exc, HttpRefusal) and exc.status == 503:
        total = load.streams * (load.viewers + 1)
        return f"the server is full (HTTP 503); raise its MAX_CONNECTIONS over {total}"
    if isinstance(exc, Refused) and exc.message == protocol.TooManyViewers.message:
        return f"{exc}; raise the server's MAX_VIEWERS_PER_STREAM to {load.viewers}"
    if isinstance(exc, Refused) and exc.message == protocol.TooManyStreams.message:
        return f"{exc}; raise the server's MAX_STREAMS to at least {load.streams}"
    if isinstance(exc, Closed) and exc.code == CloseCode.MESSAGE_TOO_BIG:
        return "a frame is too large; raise the server's MAX_FRAME_SIZE"
    return str(exc)


@contextlib.contextmanager
def _signals_call(callback: Callable[[], None]) -> Iterator[None]:
    """Call this once at SIGINT or SIGTERM; a second signal ends the program as ever."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(*_: object) -> None:
        restore()
        callback()

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
