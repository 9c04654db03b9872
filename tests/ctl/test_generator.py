"""Tests of the load generator, against the real process."""

import gc
import socket
import sys
from collections.abc import Callable

import pytest
from harness import RelayProcess

from relayd.ctl import generator as module
from relayd.ctl.generator import Generator, raise_descriptor_limit
from relayd.ctl.load import Load, Result
from relayd.ctl.wire import Closed, HttpRefusal, Refused, Target

Progress = list[tuple[float, int]]


def run(relay: RelayProcess, load: Load, progress: Progress | None = None) -> Result:
    """Put a load on a relay."""
    on_progress = None if progress is None else lambda *args: progress.append(args)
    target = Target("127.0.0.1", relay.port)
    with Generator(load, target, relay.process.pid, on_progress) as generator:
        return generator.run()


@pytest.mark.parametrize(
    ("load", "frames"),
    [
        (Load(streams=3, viewers=4, size=1000, fps=50, duration=0.4, warmup=0.1), 60),
        (Load(streams=2, viewers=1, size=200_000, fps=20, duration=0.4, warmup=0), 16),
        (Load(streams=3, viewers=2, size=None, fps=30, duration=0.4, warmup=0.1), 36),
        (Load(streams=1, viewers=60, size=8, fps=20, duration=0.2, warmup=0.1), 4),
    ],
)
def test_load(start_relay: Callable[..., RelayProcess], load: Load, frames: int) -> None:
    """Every frame is sent, arrives at every viewer, and is counted once."""
    relay = start_relay("--max-viewers-per-stream", "100")
    result = run(relay, load)
    assert (result.frames, result.expected, result.deliveries) == (
        frames,
        frames * load.viewers,
        frames * load.viewers,
    )
    assert (result.share, result.worst_share, result.lost_connections) == (1, 1, 0)
    if load.size is not None:
        assert result.size == result.deliveries * load.size
    assert result.duration > 0
    assert result.p50 is not None
    assert result.p99 is not None
    assert result.max is not None
    assert 0 < result.p50 <= result.p99 <= result.max
    relay.log.wait_for("streamer .*: left", count=load.streams)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_usage(relay: RelayProcess) -> None:
    """The server's CPU time and memory are known when its process is."""
    result = run(relay, Load(streams=1, viewers=1, size=100, duration=0.1, warmup=0))
    assert result.cpu is not None
    assert result.cpu >= 0
    assert result.peak_memory is not None
    assert result.peak_memory > 2**20


def test_server_elsewhere(relay: RelayProcess) -> None:
    """Of a server elsewhere they are not."""
    load = Load(streams=1, viewers=1, size=100, duration=0.1, warmup=0)
    with Generator(load, Target("127.0.0.1", relay.port)) as generator:
        result = generator.run()
    assert (result.share, result.cpu, result.peak_memory) == (1, None, None)


def test_progress(relay: RelayProcess) -> None:
    """Progress is told from the warm-up on."""
    progress: Progress = []
    load = Load(streams=2, viewers=2, size=100, fps=50, duration=0.4, warmup=0.1)
    run(relay, load, progress)
    assert len(progress) >= 3
    assert progress == sorted(progress)
    assert progress[0] == (pytest.approx(-0.1, abs=0.1), 0)
    assert 0 < progress[-1][1] <= 2 * 2 * 20


def test_stop(relay: RelayProcess) -> None:
    """A load that is stopped has a result: of what was sent until then."""
    load = Load(streams=2, viewers=2, size=100, duration=3600, warmup=0.1)
    generators: list[Generator] = []

    def stop_in_time(seconds: float, deliveries: int) -> None:
        if deliveries:
            generators[0].stop()

    with Generator(load, Target("127.0.0.1", relay.port), None, stop_in_time) as generator:
        generators.append(generator)
        result = generator.run()
    assert 0 < result.deliveries == result.expected < 3600 * 30


def test_garbage_collector(relay: RelayProcess) -> None:
    """The collector is off meanwhile, and as before afterwards."""
    during: list[bool] = []
    load = Load(streams=1, viewers=1, size=100, duration=0.1, warmup=0)
    target = Target("127.0.0.1", relay.port)
    with Generator(load, target, None, lambda *_: during.append(gc.isenabled())) as generator:
        generator.run()
        assert gc.isenabled()
        gc.disable()
        try:
            generator.run()
            assert not gc.isenabled()
        finally:
            gc.enable()
    assert not any(during)


def test_too_many_viewers(relay: RelayProcess) -> None:
    """A refusal is raised, and what was open is closed."""
    with pytest.raises(Refused, match="too many viewers"):
        run(relay, Load(streams=3, viewers=11, size=100))
    relay.log.wait_for("streamer .*: left", count=3)


def test_too_many_connections(start_relay: Callable[..., RelayProcess]) -> None:
    """A relay that is full says so."""
    relay = start_relay("--max-connections", "5")
    with pytest.raises(HttpRefusal, match="HTTP 503"):
        run(relay, Load(streams=2, viewers=2, size=100))


def test_frame_too_large(start_relay: Callable[..., RelayProcess]) -> None:
    """A relay that closes every stream ends the load."""
    relay = start_relay("--max-frame-size", "16KiB")
    with pytest.raises(Closed) as caught:
        run(relay, Load(streams=2, viewers=2, size=20_000, fps=100, duration=3600, warmup=0))
    assert caught.value.code == 1009


def test_lost_frames(relay: RelayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that don't arrive are not waited for, but counted, also by viewer."""
    monkeypatch.setattr(module, "QUIET_TIME", 0.5)
    load = Load(streams=1, viewers=2, size=100, fps=50, duration=0.2, warmup=0)
    with Generator(load, Target("127.0.0.1", relay.port)) as generator:
        generator._viewers[0].sock.shutdown(socket.SHUT_RDWR)
        result = generator.run()
    assert (result.expected, result.deliveries, result.share) == (20, 10, 0.5)
    assert (result.worst_share, result.lost_connections) == (0, 1)


def test_server_that_is_slow(start_relay: Callable[..., RelayProcess]) -> None:
    """Frames that wait for the server are late, and go out in the end."""
    relay = start_relay("--viewer-buffer", "64MiB")
    load = Load(streams=1, viewers=1, size=4_000_000, fps=500, duration=0.02, warmup=0)
    result = run(relay, load)
    assert (result.frames, result.share) == (10, 1)
    assert result.late > 0


def test_frame_that_is_due_while_the_generator_is_behind(relay: RelayProcess) -> None:
    """A generator that is a whole frame behind says so."""
    load = Load(streams=1, viewers=1, size=100, fps=100_000, duration=0.001, warmup=0)
    assert run(relay, load).late > 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_descriptor_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is raised where it is lower, as far as the system allows."""
    import resource

    limits = [(100, 500), (100, 500), (100, 500), (-1, -1), (100, -1)]
    limits = [
        tuple(resource.RLIM_INFINITY if n == -1 else n for n in pair)  # type: ignore[misc]
        for pair in limits
    ]
    asked = iter(limits)
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: next(asked))
    monkeypatch.setattr(resource, "setrlimit", lambda what, pair: calls.append(pair))
    for wanted in (50, 200, 1000, 1000, 1000):
        raise_descriptor_limit(wanted)
    assert calls == [(200, 500), (500, 500), (1000, resource.RLIM_INFINITY)]


def test_descriptor_limit_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no such limit."""
    monkeypatch.setattr(sys, "platform", "win32")
    raise_descriptor_limit(10**9)
