"""A streamer that is lost comes back with its token, against the real process."""

import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness import RelayProcess, close_code, receive
from hostile import BINARY, CLOSE, eventually, frame
from rawclient import RawClient

StartRelay = Callable[..., RelayProcess]

CONFIG, KEYFRAME = {"type": "config"}, {"type": "keyframe"}

PAUSED, RESUMED = {"type": "stream_paused"}, {"type": "stream_resumed"}

IN_USE = {"type": "error", "message": "stream id already in use"}


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    """A relay on each event loop that waits for a lost streamer longer than any test does."""
    with RelayProcess(env={"RESUME_WINDOW": "1h"}, loop=request.param) as relay:
        yield relay


@pytest.fixture(scope="module")
def impatient() -> Iterator[RelayProcess]:
    """A relay that waits only a moment for a lost streamer, and has room for two."""
    with RelayProcess(env={"RESUME_WINDOW": "600ms", "MAX_STREAMS": "2"}) as relay:
        yield relay


def start(relay: RelayProcess, stream_id: str | None = "x", **fields: Any) -> RawClient:
    """Register a stream that can be resumed, or resume it."""
    return RawClient.streamer(relay, stream_id, **{"features": ["resume"], **fields})


def watch(relay: RelayProcess, stream_id: str = "x") -> RawClient:
    """Subscribe to a stream, and to its pauses."""
    return RawClient.viewer(relay, stream_id, features=["status"])


def ended(stream_id: str = "x") -> dict[str, str]:
    """Return what a viewer is told at the end."""
    return {"type": "stream_ended", "stream_id": stream_id}


@contextmanager
def live(relay: RelayProcess) -> Iterator[tuple[RawClient, RawClient]]:
    """Give a streamer that can resume and a viewer; all is over afterwards."""
    with start(relay) as streamer, watch(relay) as viewer:
        streamer.send(b"first")
        assert viewer.receive() == b"first"
        yield streamer, viewer
    # A test that leaves its stream paused must not hold the id.
    assert relay.health()["streams"] == 0


def goes_on(streamer: RawClient, viewer: RawClient) -> None:
    """Check that frames arrive; then end the stream."""
    streamer.send(b"on and on")
    assert viewer.receive() == b"on and on"
    assert streamer.leave() == []
    assert [viewer.receive(), viewer.receive()] == [ended(), 1000]


def vanish(streamer: RawClient) -> None:
    """Be gone without a goodbye."""
    streamer.reset()


def leave_for_now(streamer: RawClient) -> None:
    """Close as a page does that is being left."""
    streamer.send(1001)
    streamer.receive_until(1001)


def leave_with_a_code(streamer: RawClient) -> None:
    """Close with a code of the app's own."""
    streamer.send(4000)
    streamer.receive_until(4000)


def break_the_protocol(streamer: RawClient) -> None:
    """Send a frame that is not masked."""
    streamer.socket.sendall(b"\x82\x01x")
    streamer.receive_until(1002)


def send_too_much(streamer: RawClient) -> None:
    """Send signalling that is too large."""
    streamer.send("x" * 16_385)
    streamer.receive_until(1009)


def stop_within_a_frame(streamer: RawClient) -> None:
    """Be gone with half a frame sent."""
    streamer.socket.sendall(frame(BINARY, bytes(100_000))[:50_000])
    streamer.socket.close()


@pytest.mark.parametrize(
    "lose",
    [
        vanish,
        leave_for_now,
        leave_with_a_code,
        break_the_protocol,
        send_too_much,
        stop_within_a_frame,
    ],
)
def test_resume(relay: RelayProcess, lose: Callable[[RawClient], None]) -> None:
    """However a streamer was lost, but for a clean close, its token brings its stream back."""
    with live(relay) as (first, viewer):
        lose(first)
        assert viewer.receive() == PAUSED
        assert relay.health() == {"status": "ok", "streams": 1, "viewers": 1}
        with start(relay, resume_token=first.token) as second:
            assert second.reply == {
                "type": "registered",
                "stream_id": "x",
                "features": ["resume"],
                "resume_token": second.token,
                "resumed": True,
            }
            assert second.token != first.token
            assert viewer.receive() == RESUMED
            goes_on(second, viewer)
    relay.log.wait_for(rf"streamer x {second.address}: resumed$")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_resume_when_silent(start_relay: StartRelay, loop: str) -> None:
    """A streamer that answers no pings is lost, not gone."""
    keepalive = {"PING_INTERVAL": "100ms", "PING_TIMEOUT": "200ms"}
    relay = start_relay(env=keepalive, loop=loop)
    with start(relay) as first, relay.subscribe("x", features=["status"]) as (viewer, _):
        assert receive(viewer) == PAUSED
        with start(relay, resume_token=first.token) as second:
            assert receive(viewer) == RESUMED
            second.send(b"frame")
            assert viewer.recv() == b"frame"


def test_takeover(relay: RelayProcess) -> None:
    """A token takes over a connection that still looks alive, which can do nothing more."""
    with live(relay) as (first, viewer), start(relay, resume_token=first.token) as second:
        assert second.reply["resumed"] is True
        assert first.receive() == 4409
        assert [viewer.receive(), viewer.receive()] == [PAUSED, RESUMED]
        first.send(b"too late")
        first.send(4409)
        first.finish()
        relay.log.wait_for(rf"streamer x {first.address}: replaced after")
        assert relay.health() == {"status": "ok", "streams": 1, "viewers": 1}
        goes_on(second, viewer)


def test_takeover_in_a_row(relay: RelayProcess) -> None:
    """Each token works once, and the last one always does."""
    with live(relay) as (first, viewer):
        streamers = [first]
        for _ in range(5):
            with start(relay, resume_token=streamers[-1].token) as rightful:
                assert streamers[-1].receive() == 4409
                for outdated in streamers:
                    with start(relay, resume_token=outdated.token) as thief:
                        assert thief.reply == IN_USE
                        assert thief.receive() == 4409
                vanish(rightful)
                streamers.append(rightful)
                assert [viewer.receive() for _ in range(3)] == [PAUSED, RESUMED, PAUSED]
                streamers[-1] = start(relay, resume_token=rightful.token)
                assert viewer.receive() == RESUMED
        goes_on(streamers[-1], viewer)
        for streamer in streamers:
            streamer.socket.close()


@pytest.mark.parametrize("token", ["", "wrong", "é\ud800", "x" * 5_000, None], ids=repr)
@pytest.mark.parametrize("paused", [False, True], ids=["live", "paused"])
def test_wrong_token(relay: RelayProcess, token: str | None, paused: bool) -> None:
    """Without the right token the id is in use; the stream does not notice."""
    with live(relay) as (streamer, viewer):
        if paused:
            vanish(streamer)
            assert viewer.receive() == PAUSED
        for wrong in (token, streamer.token[:-1], streamer.token + "x", streamer.token.swapcase()):
            with start(relay, resume_token=wrong) as thief:
                assert thief.reply == IN_USE
                assert thief.receive() == 4409
        if paused:
            with start(relay, resume_token=streamer.token) as second:
                assert viewer.receive() == RESUMED
                goes_on(second, viewer)
        else:
            goes_on(streamer, viewer)


def test_token_of_another_stream(relay: RelayProcess) -> None:
    """A token opens its own stream alone."""
    with live(relay) as (streamer, viewer):
        with start(relay, "y") as other, start(relay, "y", resume_token=streamer.token) as thief:
            assert thief.reply == IN_USE
            assert other.leave() == []
        goes_on(streamer, viewer)


def test_nothing_to_resume(relay: RelayProcess) -> None:
    """A token for an id that is free begins a new stream."""
    with live(relay) as (first, viewer):
        goes_on(first, viewer)
        for stream_id in ("x", None):
            with start(relay, stream_id, resume_token=first.token) as second:
                assert "resumed" not in second.reply
                assert second.token != first.token
                second.leave()


def test_not_asked_for(relay: RelayProcess) -> None:
    """A stream whose streamer did not ask for it ends with every loss, at once."""
    for lose in (vanish, leave_for_now, break_the_protocol):
        with start(relay, features=["stats"]) as streamer, watch(relay) as viewer:
            assert "resume_token" not in streamer.reply
            lose(streamer)
            assert viewer.receive() == ended()
            assert viewer.receive() == 1000
            with start(relay) as another:
                another.leave()


def test_not_asked_for_again(relay: RelayProcess) -> None:
    """Nor can a streamer resume again that did not ask for it when it resumed."""
    with live(relay) as (first, viewer):
        with start(relay, resume_token=first.token, features=[]) as second:
            assert second.reply == {
                "type": "registered",
                "stream_id": "x",
                "features": [],
                "resumed": True,
            }
            vanish(second)
        assert [viewer.receive() for _ in range(3)] == [PAUSED, RESUMED, ended()]


def test_clean_close(relay: RelayProcess) -> None:
    """A streamer that closes with 1000 ends its stream at once."""
    with live(relay) as (streamer, viewer):
        streamer.send(1000)
        assert [viewer.receive(), viewer.receive()] == [ended(), 1000]
        with start(relay, resume_token=streamer.token) as another:
            assert "resumed" not in another.reply
            another.leave()


def test_window_ends(impatient: RelayProcess) -> None:
    """A streamer that does not come back in time ends its stream; one that does starts afresh."""
    relay = impatient
    with start(relay) as saved, watch(relay) as viewer:
        vanish(saved)
        assert viewer.receive() == PAUSED
        with (
            start(relay, resume_token=saved.token) as second,
            start(relay, "late") as late,
            watch(relay, "late") as bereft,
            RawClient.viewer(relay, "late") as plain,
        ):
            assert viewer.receive() == RESUMED
            vanish(late)
            assert bereft.receive_until(1000) == [PAUSED, ended("late"), 1000]
            assert plain.receive_until(1000) == [ended("late"), 1000]
            relay.log.wait_for("stream late: ended: not resumed in time")
            with start(relay, "late", resume_token=late.token) as another:
                assert "resumed" not in another.reply
                another.leave()
            # The window of the one that was saved would have ended before.
            goes_on(second, viewer)


def test_no_window(start_relay: StartRelay) -> None:
    """With RESUME_WINDOW=0 nobody is granted what can't be kept."""
    relay = start_relay(env={"RESUME_WINDOW": "0"})
    with start(relay, features=["resume", "viewers"]) as streamer, watch(relay) as viewer:
        assert streamer.reply == {
            "type": "registered",
            "stream_id": "x",
            "features": ["viewers"],
        }
        vanish(streamer)
        assert viewer.receive() == ended()


def test_limits(impatient: RelayProcess) -> None:
    """A paused stream counts once: it can be resumed at the limit, and no other fits."""
    relay = impatient
    with start(relay, "a") as first, start(relay, "b") as other, watch(relay, "a") as viewer:

        def check_full() -> None:
            with start(relay, "c") as refused:
                assert refused.reply == {"type": "error", "message": "too many streams"}
                assert refused.receive() == 4429
            assert relay.health() == {"status": "ok", "streams": 2, "viewers": 1}

        check_full()
        vanish(first)
        assert viewer.receive() == PAUSED
        check_full()
        with start(relay, "a", resume_token=first.token) as second:
            assert viewer.receive() == RESUMED
            check_full()
            vanish(second)
        assert viewer.receive() == PAUSED
        check_full()
        assert viewer.receive() == ended("a")
        with start(relay, "c") as another:
            assert another.reply["type"] == "registered"
            another.leave()
        other.leave()


def test_viewers_of_a_paused_stream(relay: RelayProcess) -> None:
    """Viewers join a paused stream, see its last picture at once, and leave."""
    with live(relay) as (first, viewer):
        for message in (CONFIG, b"config", KEYFRAME, b"keyframe", b"delta"):
            first.send(message)
        vanish(first)
        viewer.receive_until(PAUSED)
        with watch(relay) as informed, RawClient.viewer(relay, "x") as plain:
            assert informed.receive() == PAUSED
            for joiner in (informed, plain):
                assert [joiner.receive() for _ in range(3)] == [b"config", b"keyframe", b"delta"]
            assert relay.health() == {"status": "ok", "streams": 1, "viewers": 3}
            assert plain.leave() == []
            informed.reset()
            eventually(relay, lambda: relay.health()["viewers"] == 1)
        resumed_features = ["resume", "viewers", "keyframe_requests"]
        with start(relay, resume_token=first.token, features=resumed_features) as second:
            assert second.receive() == {"type": "viewers", "count": 1}
            # Without one, the viewer sees nothing of what comes now.
            assert second.receive() == {"type": "keyframe_request"}
            second.leave()
        assert [viewer.receive(), viewer.receive()] == [RESUMED, ended()]


def test_marked_stream(relay: RelayProcess) -> None:
    """A marked stream goes on at its next keyframe; its config stays until a new one comes."""
    with live(relay) as (first, viewer):
        for message in (CONFIG, b"config", KEYFRAME, b"keyframe", b"delta", KEYFRAME):
            first.send(message)
        assert viewer.receive_until(b"delta") == [b"config", b"keyframe", b"delta"]
        vanish(first)  # with a mark that is of no frame
        assert viewer.receive() == PAUSED
        with start(relay, resume_token=first.token) as second:
            assert viewer.receive() == RESUMED
            second.send(b"no picture")
            for message in (KEYFRAME, b"new keyframe", b"new delta"):
                second.send(message)
            assert [viewer.receive(), viewer.receive()] == [b"new keyframe", b"new delta"]
            with RawClient.viewer(relay, "x") as joiner:
                shown = [b"config", b"new keyframe", b"new delta"]
                assert [joiner.receive() for _ in shown] == shown
            for message in (CONFIG, b"new config", KEYFRAME, b"last keyframe"):
                second.send(message)
            assert viewer.receive_until(b"last keyframe") == [b"new config", b"last keyframe"]
            with RawClient.viewer(relay, "x") as joiner:
                assert [joiner.receive(), joiner.receive()] == [b"new config", b"last keyframe"]
            goes_on(second, viewer)


def test_joiner_after_resume(relay: RelayProcess) -> None:
    """Who joins between a resume and the next keyframe gets no frame that it can't decode."""
    with live(relay) as (first, viewer):
        for message in (CONFIG, b"config", KEYFRAME, b"keyframe"):
            first.send(message)
        with start(relay, resume_token=first.token) as second:
            viewer.receive_until(RESUMED)
            second.send(b"no picture")
            with RawClient.viewer(relay, "x") as joiner:
                for message in (b"nor this", KEYFRAME, b"new keyframe"):
                    second.send(message)
                picture = joiner.receive_until(b"new keyframe")
                assert picture == [b"config", b"keyframe", b"new keyframe"]
            assert viewer.receive() == b"new keyframe"
            goes_on(second, viewer)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_stop_while_paused(start_relay: StartRelay, loop: str) -> None:
    """SIGTERM waits for no streamer, and the log never shows a token."""
    settings = {"RESUME_WINDOW": "1h", "DRAIN_TIMEOUT": "0", "LOG_LEVEL": "debug"}
    relay = start_relay(env=settings, loop=loop)
    with (
        start(relay, "live") as streamer,
        start(relay, "paused") as lost,
        relay.subscribe("paused", features=["status"]) as (viewer, _),
        relay.subscribe("live", features=["status"]) as (another, _),
    ):
        with start(relay, "paused", resume_token="guessed") as thief:
            assert thief.reply == IN_USE
        with start(relay, "paused", resume_token=lost.token) as second:
            assert [receive(viewer), receive(viewer)] == [PAUSED, RESUMED]
            vanish(second)
        assert receive(viewer) == PAUSED
        relay.signal(signal.SIGTERM)
        assert [close_code(viewer), close_code(another)] == [1012, 1012]
        assert streamer.receive() == 1012
        streamer.socket.sendall(frame(CLOSE, struct.pack("!H", 1012)))
        streamer.finish()
        assert relay.wait() == 0
    log = "\n".join(relay.log.wait_for_end())
    for token in ("guessed", streamer.token, lost.token, second.token):
        assert token not in log
    assert "Traceback" not in log
