"""Tests of `relayctl bench`, against the real process."""

import dataclasses
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from harness import PATIENCE, RelayProcess

from relayd.ctl import bench as module
from relayd.ctl.bench import Progress, bench, lines, percent, report
from relayd.ctl.client import ClientError
from relayd.ctl.load import Load, Result
from relayd.ctl.wire import HttpRefusal, LinkError, Target

Start = Callable[..., "subprocess.Popen[bytes]"]

LOAD = Load(streams=2, viewers=1, size=32768, duration=10)
RESULT = Result(
    duration=10.0,
    frames=600,
    expected=600,
    deliveries=600,
    size=19_660_800,
    worst_share=1.0,
    late=0,
    lost_connections=0,
    p50=0.2,
    p99=1.234,
    max=5.0,
    cpu=0.006,
    peak_memory=40_000_000,
)
SMALL = ["--streams", "2", "--viewers", "3", "--size", "4KiB", "--duration", "0.2"]


def test_json(relayctl: Start, relay: RelayProcess) -> None:
    """With --json one object is printed, and nothing else."""
    output, errors = relayctl("bench", "--server", relay.url, *SMALL, "--json").communicate(
        timeout=PATIENCE
    )
    assert errors == b""
    assert output.count(b"\n") == 1
    measured = json.loads(output)
    assert measured["deliveries"] == measured["expected_deliveries"] == 2 * 3 * 6
    assert (measured["delivered_share"], measured["worst_viewer_share"]) == (1, 1)
    assert (measured["streams"], measured["viewers"], measured["frame_size"]) == (2, 3, 4096)
    assert (measured["server_peak_memory"] is not None) == (sys.platform == "linux")


def test_text(relayctl: Start, relay: RelayProcess) -> None:
    """In a pipe the result is printed, without progress."""
    process = relayctl("bench", "--server", relay.url, *SMALL)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")
    text = output.decode()
    assert text.startswith(
        "load           2 streams of 3 viewers, frames of 4 KiB at 30 fps, 0.2 s"
    )
    assert "delivered      100 %, 36 of 36 frames" in text
    assert ("server memory" in text) == (sys.platform == "linux")


def test_mixed(relayctl: Start, relay: RelayProcess) -> None:
    """The mixed load comes without a size."""
    arguments = ["--streams", "2", "--viewers", "1", "--duration", "0.2", "--mixed"]
    process = relayctl("bench", "--server", relay.url, *arguments)
    output, _ = process.communicate(timeout=PATIENCE)
    assert "mixed frames at 30 fps" in output.decode()
    assert "delivered      100 %, 12 of 12 frames" in output.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(
    relayctl: Start,
    relay: RelayProcess,
    terminal: tuple[int, Callable[[str], str]],
    number: signal.Signals,
) -> None:
    """On a terminal there is a progress line; Ctrl-C ends the load and shows what was measured."""
    program, wait_for = terminal
    arguments = ["--streams", "2", "--viewers", "1", "--size", "100", "--duration", "3600"]
    process = relayctl("bench", "--server", relay.url, *arguments, stderr=program)
    wait_for("\r1 of 3600 s   ")
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "delivered      100 %" in output.decode()
    assert wait_for("warming up").startswith("\ropening connections")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_interrupted_while_warming_up(
    relayctl: Start, relay: RelayProcess, terminal: tuple[int, Callable[[str], str]]
) -> None:
    """Ctrl-C before anything was measured is a normal end, too."""
    program, wait_for = terminal
    arguments = ["--streams", "1", "--viewers", "1", "--duration", "3600"]
    process = relayctl("bench", "--server", relay.url, *arguments, stderr=program)
    wait_for("warming up")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, b"")


@pytest.mark.parametrize(
    ("settings", "load", "message"),
    [
        (
            [],
            Load(streams=1, viewers=11, size=100),
            "too many viewers; raise the server's MAX_VIEWERS_PER_STREAM to 11",
        ),
        (
            ["--max-streams", "2"],
            Load(streams=3, viewers=1, size=100),
            "too many streams; raise the server's MAX_STREAMS to at least 3",
        ),
        (
            ["--max-connections", "4"],
            Load(streams=3, viewers=1, size=100),
            "the server is full (HTTP 503); raise its MAX_CONNECTIONS over 6",
        ),
        (
            ["--max-frame-size", "16KiB"],
            Load(streams=1, viewers=1, size=20_000, duration=3600),
            "a frame is too large; raise the server's MAX_FRAME_SIZE",
        ),
    ],
)
def test_limits(
    start_relay: Callable[..., RelayProcess], settings: list[str], load: Load, message: str
) -> None:
    """A limit that is too low is one line that says which to raise."""
    relay = start_relay(*settings)
    with pytest.raises(ClientError) as caught:
        bench(relay.url, load, as_json=False)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("ws://127.0.0.1:1", "connection refused; is relayd running there?"),
        ("wss://127.0.0.1:1", "bench speaks no TLS: measure the relay behind the proxy, on ws://"),
        ("ws://me:secret@127.0.0.1:1", "bench can't log in: measure the relay behind the proxy"),
    ],
)
def test_unreachable(server: str, message: str) -> None:
    """A server that can't be measured is one line that says why."""
    with pytest.raises(ClientError) as caught:
        bench(server, LOAD, as_json=False)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LinkError("no WebSocket server answers there"), "no WebSocket server answers there"),
        (HttpRefusal(404), "the server answered HTTP 404"),
        (OSError(24, "Too many open files"), "cannot open all connections: too many open files"),
        (TimeoutError("timed out"), "cannot open all connections: timed out"),
    ],
)
def test_trouble_on_the_way(
    relay: RelayProcess, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """Whatever else keeps connections from opening is one line."""

    def fail(target: Target, stream_id: str) -> None:
        raise error

    monkeypatch.setattr(Target, "open_viewer", fail)
    with pytest.raises(ClientError) as caught:
        bench(relay.url, LOAD, as_json=False)
    assert str(caught.value) == message


def test_second_signal() -> None:
    """Only the first signal ends the load gently."""
    calls: list[None] = []
    # A job in the background begins with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with module._signals_call(lambda: calls.append(None)):
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert calls == [None]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_lines() -> None:
    """All went well: nothing is said of what did not go wrong."""
    assert lines(LOAD, RESULT) == [
        "load           2 streams of 1 viewer, frames of 32 KiB at 30 fps, 10.0 s",
        "delivered      100 %, 600 of 600 frames",
        "rate           60 deliveries/s, 2.0 MB/s",
        "latency        p50 0.20 ms, p99 1.23 ms, max 5.00 ms",
        "server CPU     10.0 µs per delivery, 0.1 % of a core",
        "server memory  40 MB at its peak",
    ]


def test_lines_of_a_bad_run() -> None:
    """What went wrong is said."""
    bad = dataclasses.replace(
        RESULT,
        deliveries=0,
        size=0,
        worst_share=0.0,
        late=7,
        lost_connections=4,
        p50=None,
        p99=None,
        max=None,
        cpu=None,
        peak_memory=None,
    )
    assert lines(dataclasses.replace(LOAD, size=1000), bad) == [
        "load           2 streams of 1 viewer, frames of 1000 bytes at 30 fps, 10.0 s",
        "delivered      0.0 %, 0 of 600 frames",
        "rate           0 deliveries/s, 0.0 MB/s",
        "worst viewer   0.0 % delivered",
        "late           7 of 600 frames were sent late",
        "lost           4 connections",
    ]


def test_report() -> None:
    """For machines all is there, and what is unknown is null."""
    unknown = dataclasses.replace(RESULT, cpu=None, peak_memory=None)
    measured = report(dataclasses.replace(LOAD, size=None), unknown)
    assert measured["frame_size"] == "mixed"
    assert measured["latency_ms"] == {"p50": 0.2, "p99": 1.234, "max": 5.0}
    assert [key for key, value in measured.items() if value is None] == [
        "server_cpu_us_per_delivery",
        "server_cpu_seconds",
        "server_peak_memory",
    ]
    assert report(LOAD, RESULT)["server_cpu_us_per_delivery"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100 %"), (0.99999, "99.9 %"), (0.5, "50.0 %"), (0, "0.0 %")]
)
def test_percent(share: float, text: str) -> None:
    """A share is never rounded up to all."""
    assert percent(share) == text


def test_progress_on_a_terminal_that_goes_away() -> None:
    """A terminal that is gone ends nothing."""

    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError

    with Progress(LOAD, Gone()) as progress:
        progress.show(1.0, 30)
