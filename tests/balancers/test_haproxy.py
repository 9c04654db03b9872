"""HAProxy in front of two relays, as the README sets it up."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from balancer import (
    CLIENT_ADDRESS,
    HAPROXY_DEFAULTS,
    TRUSTING,
    Balancer,
    Fan,
    haproxy_recipe,
    make_certificate,
    replaced,
    run_haproxy,
)
from harness import PATIENCE, RelayProcess, close_code, require_tool
from websockets.exceptions import InvalidStatus

from relayd.config import Config

DEBIAN = Path("/etc/haproxy/haproxy.cfg")
"""What the README adds to; where it isn't there, the part of it that matters does."""

FANS = 5
"""Viewers of each stream that come back."""


@pytest.mark.parametrize("spread", [False, True])
def test_configuration(tmp_path: Path, spread: bool) -> None:
    """HAProxy has nothing to say against the recipes."""
    haproxy = require_tool("haproxy")
    make_certificate(tmp_path)
    given = DEBIAN.read_text() if DEBIAN.is_file() else HAPROXY_DEFAULTS
    recipe = replaced(haproxy_recipe(spread), ("/etc/haproxy", str(tmp_path)))
    file = tmp_path / "haproxy.cfg"
    file.write_text(f"{given}\n{recipe}")
    command = [haproxy, "-c", "-f", file]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    said = result.stdout + result.stderr
    assert (result.returncode, said.strip()) == (0, "Configuration file is valid")


@pytest.fixture
def relays(start_relay: Callable[..., RelayProcess]) -> list[RelayProcess]:
    """Two relays that trust the balancer."""
    return [start_relay(env=TRUSTING) for _ in range(2)]


def test_address(tmp_path: Path, relays: list[RelayProcess]) -> None:
    """Relays log the client's address, whatever it says itself."""
    lie = {"X-Forwarded-For": "192.0.2.1"}
    with (
        run_haproxy(tmp_path, relays) as balancer,
        balancer.stream("x", additional_headers=lie),
        balancer.view("x"),
    ):
        relays[0].log.wait_for(rf"streamer x {CLIENT_ADDRESS}\b.*: registered")
        relays[0].log.wait_for(rf"viewer x {CLIENT_ADDRESS}\b.*: subscribed")


def test_silence(tmp_path: Path, start_relay: Callable[..., RelayProcess]) -> None:
    """A relay's pings keep a connection without frames open, as those of the default would."""
    relays = [start_relay("--ping-interval", "300ms") for _ in range(2)]
    shorter = ("timeout tunnel 1m", "timeout tunnel 1s")
    assert Config().ping_interval < 60 / 2
    with (
        run_haproxy(tmp_path, relays, shorter) as balancer,
        balancer.stream("x") as streamer,
        balancer.view("x") as viewer,
    ):
        with pytest.raises(TimeoutError):
            viewer.recv(timeout=2)
        streamer.send(b"frame")
        assert viewer.recv(PATIENCE) == b"frame"


def test_default_check(tmp_path: Path, relays: list[RelayProcess]) -> None:
    """HAProxy's own check, OPTIONS / HTTP/1.0, tells a relay that drains from one that works."""
    default = ("option httpchk GET /health", "option httpchk")
    with run_haproxy(tmp_path, relays, default) as balancer, balancer.stream("x"):
        relays[0].signal(signal.SIGTERM)
        balancer.log.wait_for("Server relayd/one is DOWN, reason: Layer7 wrong status, code: 503")
        with balancer.stream("y"):
            relays[1].log.wait_for("streamer y .*: registered")
    assert not balancer.log.matching("Server relayd/two is DOWN")


def test_drain_and_return(
    tmp_path: Path, relays: list[RelayProcess], start_relay: Callable[..., RelayProcess]
) -> None:
    """When a relay stops, all get to the second; when it is back, all get to the first."""
    first, second = relays
    with run_haproxy(tmp_path, relays) as balancer, ExitStack() as stack:
        fans = []
        for stream in "ab":
            stack.enter_context(balancer.relayctl("publish", "--test-pattern", "--id", stream))
            first.log.wait_for(f"streamer {stream} .*: registered")
            fans += [stack.enter_context(Fan(balancer, f"/ws/view/{stream}")) for _ in range(FANS)]
        first.log.wait_for("viewer . .*: subscribed", 2 * FANS)
        with balancer.stream("c") as streamer, balancer.view("c") as viewer:
            first.signal(signal.SIGTERM)
            balancer.log.wait_for("Server relayd/one is DOWN.*code: 503")
            for n in range(10):  # none is refused: the first is not asked any more
                with balancer.stream(f"new-{n}"):
                    pass
            second.log.wait_for("streamer new-. .*: registered", 10)
            streamer.send(b"goes on")
            assert viewer.recv(PATIENCE) == b"goes on"
            assert close_code(viewer) == 1012
        assert first.wait() == 0
        second.log.wait_for("streamer [ab] .*: registered", 2)
        second.log.wait_for("viewer [ab] .*: subscribed", 2 * FANS)
        assert {"stream not found", 1012} >= set().union(*(fan.endings for fan in fans)) >= {1012}

        back = start_relay("--port", str(first.port))
        balancer.log.wait_for("Server relayd/one is UP")
        back.log.wait_for("streamer [ab] .*: registered", 2)
        back.log.wait_for("viewer [ab] .*: subscribed", 2 * FANS)
    endings = set().union(*(fan.endings for fan in fans))
    assert endings <= {"stream not found", 1012, "cut"}


@pytest.fixture
def spreading(tmp_path: Path, relays: list[RelayProcess]) -> Iterator[Balancer]:
    """Run HAProxy so that both relays work."""
    with run_haproxy(tmp_path, relays, spread=True) as balancer:
        yield balancer


def test_spread(
    spreading: Balancer, relays: list[RelayProcess], start_relay: Callable[..., RelayProcess]
) -> None:
    """Viewers find streams on either relay, also after a drain, a return and a reload."""
    first, second = relays
    ids = [f"stream-{n}" for n in range(6)]

    def all_are_found() -> None:
        for stream_id in ids:
            with spreading.view(stream_id):
                pass

    with ExitStack() as stack:
        streamers = {
            stream_id: stack.enter_context(spreading.stream(stream_id, f"?id={stream_id}"))
            for stream_id in ids
        }
        assert (first.health()["streams"], second.health()["streams"]) == (3, 3)
        all_are_found()
        first.signal(signal.SIGTERM)
        spreading.log.wait_for("Server relayd/one is DOWN.*code: 503")
        assert first.wait() == 0
        for found in first.log.matching("streamer (stream-.) .*: registered"):
            assert close_code(streamers[found[1]]) == 1012
            stack.enter_context(spreading.stream(found[1], f"?id={found[1]}"))
        assert second.health()["streams"] == 6
        all_are_found()

        back = start_relay("--port", str(first.port))
        spreading.log.wait_for("Server relayd/one is UP")
        all_are_found()
        ids.append("new")
        stack.enter_context(spreading.stream("new", "?id=new"))
        assert back.health()["streams"] == 1
        all_are_found()

        spreading.process.send_signal(signal.SIGUSR2)
        spreading.log.wait_for("Loading success", 2)
        for stream_id in ids:
            with Fan(spreading, f"/ws/view/{stream_id}") as fan:
                assert fan.watching.wait(PATIENCE)
        all_are_found()


def test_spread_needs_ids(spreading: Balancer, relays: list[RelayProcess]) -> None:
    """A streamer that does not say its id in the URL is refused, not put where nobody looks."""
    with pytest.raises(InvalidStatus, match="HTTP 400"), spreading.stream("x"):
        pytest.fail("accepted")
