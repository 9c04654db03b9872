"""The load generator: streamers and viewers by the hundred, in one process, on one event loop."""

import gc
import random
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self, TypeVar

from . import usage
from .link import SMALL, STAMP_SIZE, Frame, Link, Streamer
from .load import KEYFRAME_SIZE, LARGEST_BETWEEN, Load, Result, percentile
from .poller import Poller
from .wire import Closed, LinkError, Target

L = TypeVar("L", bound=Link)

QUIET_TIME = 1.0
"""Seconds without a delivery after which frames that have not arrived count as lost."""

PROGRESS_INTERVAL = 0.25
"""Seconds between two calls of a progress function."""

PROBES = 50
"""Viewers, about, of which latency is taken; they sit at all places of the fan-out."""

_OPENED_AT_ONCE = 16
_SPARE_DESCRIPTORS = 100


class Generator:
    """Puts a load on a relay. A context manager: its connections are open meanwhile.

    Entering raises LinkError if the server refuses a connection, OSError if it can't be reached or
    this process can't open that many sockets.

    Args:
        load: The load.
        target: The relay.
        pid: Its process, if it is on this machine.
        on_progress: Called now and then with the seconds since the measured time began (negative
            before) and the deliveries since then.
    """

    def __init__(
        self,
        load: Load,
        target: Target,
        pid: int | None = None,
        on_progress: Callable[[float, int], None] | None = None,
    ) -> None:
        self._load = load
        self._target = target
        self._pid = pid
        self._on_progress = on_progress
        self._poller = Poller()
        self._streamers: list[Streamer] = []
        self._viewers: list[Link] = []
        self._frames: list[list[Frame]] = []
        self._latencies: list[int] = []
        self._sent = [0] * load.streams
        self._late = 0
        self._stopped = False

    def stop(self) -> None:
        """End soon; `run` returns what was measured. May be called from a signal handler."""
        self._stopped = True

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def run(self) -> Result:
        """Warm up, then send all and wait for the last delivery.

        Raises:
            Closed: If the server closes every streamer's connection.
        """
        with _without_garbage_collection():
            self._run_phase(round(self._load.warmup * self._load.fps), -self._load.warmup)
            return self._measure()

    def _close(self) -> None:
        for link in (*self._streamers, *self._viewers):
            link.leave()
        self._poller.close()

    def _open(self) -> None:
        load = self._load
        raise_descriptor_limit(load.streams * (load.viewers + 1) + _SPARE_DESCRIPTORS)
        noise = memoryview(
            random.Random(load.seed).randbytes(load.size or KEYFRAME_SIZE)  # noqa: S311 - noise
        )
        sizes = [load.sizes(stream) for stream in range(load.streams)]
        frames = {size: Frame(size, noise) for size in set().union(*sizes)}
        self._frames = [[frames[size] for size in cycle] for cycle in sizes]

        prefix = f"bench-{secrets.token_hex(4)}"
        ids = [f"{prefix}-{stream}" for stream in range(load.streams)]
        usual = load.size or LARGEST_BETWEEN
        read_size = usual if usual <= SMALL else STAMP_SIZE
        total = load.streams * load.viewers
        # One more than would do: else a probe would be at the same place in each of ten viewers.
        stride = total // PROBES + 1
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
            for sock in _all(pool.submit(self._target.open_streamer, name) for name in ids):
                self._add(self._streamers, Streamer(sock, self._poller.want_write))
            names = (name for name in ids for _ in range(load.viewers))
            socks = _all(pool.submit(self._target.open_viewer, name) for name in names)
            for index, sock in enumerate(socks):
                latencies = None if index % stride else self._latencies
                self._add(self._viewers, Link(sock, read_size, latencies))

    def _add(self, links: list[L], link: L) -> None:
        links.append(link)
        self._poller.add(link)

    def _measure(self) -> Result:
        load = self._load
        self._latencies.clear()
        before = [(link.messages, link.size) for link in self._viewers]
        sent_before, late_before = list(self._sent), self._late
        cpu_before = usage.cpu_seconds(self._pid) if self._pid is not None else 0.0
        start = time.monotonic()
        end = self._run_phase(max(1, round(load.duration * load.fps)), 0.0)
        cpu = usage.cpu_seconds(self._pid) - cpu_before if self._pid is not None else None
        memory = usage.peak_memory(self._pid) if self._pid is not None else None

        counts = [link.messages - n for link, (n, _) in zip(self._viewers, before, strict=True)]
        sizes = [link.size - n for link, (_, n) in zip(self._viewers, before, strict=True)]
        sent = [now - then for now, then in zip(self._sent, sent_before, strict=True)]
        shares = (
            n / sent[i // load.viewers] for i, n in enumerate(counts) if sent[i // load.viewers]
        )
        latencies = sorted(self._latencies)
        return Result(
            duration=end - start,
            frames=sum(sent),
            expected=sum(sent) * load.viewers,
            deliveries=sum(counts),
            size=sum(sizes),
            worst_share=min(shares, default=1.0),
            late=self._late - late_before,
            lost_connections=sum(not link.is_open for link in (*self._streamers, *self._viewers)),
            p50=percentile(latencies, 50),
            p99=percentile(latencies, 99),
            max=percentile(latencies, 100),
            cpu=cpu,
            peak_memory=memory,
        )

    def _run_phase(self, count: int, origin: float) -> float:
        """Send so many frames of every stream; wait until all have arrived, or nothing more does.

        Args:
            count: The frames, spread evenly over the time.
            origin: What progress calls the beginning, in seconds.

        Returns:
            When the last arrived, on the clock of `time.monotonic`.
        """
        streams, serve = self._load.streams, self._poller.serve
        delivered = self._delivered()
        interval = 1 / self._load.fps
        step = interval / streams
        start = report_due = time.monotonic()
        done = 0
        while done < count * streams and not self._stopped:
            now = time.monotonic()
            while done < count * streams and (due := start + done * step) <= now:
                self._send(done % streams, is_late=now - due > interval)
                done += 1
            if now >= report_due:
                report_due = now + PROGRESS_INTERVAL
                self._report(origin + now - start, self._delivered() - delivered)
            serve(min(start + done * step - time.monotonic(), PROGRESS_INTERVAL))
        return self._settle(delivered + done * self._load.viewers)

    def _send(self, stream: int, *, is_late: bool) -> None:
        streamer, cycle = self._streamers[stream], self._frames[stream]
        if is_late or streamer.is_blocked:
            self._late += 1
        if streamer.is_open:
            streamer.send(cycle[self._sent[stream] % len(cycle)], time.monotonic_ns())
        self._sent[stream] += 1

    def _report(self, seconds: float, deliveries: int) -> None:
        if not any(streamer.is_open for streamer in self._streamers):
            raise Closed(self._streamers[0].close_code)
        if self._on_progress is not None:
            self._on_progress(seconds, deliveries)

    def _settle(self, expected: int) -> float:
        last = time.monotonic()
        while self._delivered() < expected:
            if self._poller.serve(QUIET_TIME):
                last = time.monotonic()
            elif time.monotonic() - last >= QUIET_TIME:
                break
        return last

    def _delivered(self) -> int:
        return sum(link.messages for link in self._viewers)


def raise_descriptor_limit(wanted: int) -> None:
    """Let this process open so many files and sockets, as far as the system allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _all(opening: Iterable[Future[socket.socket]]) -> list[socket.socket]:
    """Return all sockets, or, if one can't be opened, close the others and raise why."""
    futures = list(opening)
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        for future in futures:
            with suppress(CancelledError, LinkError, OSError):
                future.result().close()
        raise


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Keep the collector from adding to the latencies; nothing here makes cycles."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
