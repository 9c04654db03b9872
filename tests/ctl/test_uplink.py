"""Tests of a stream that outlives its connections."""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import ClassVar

import pytest
from ctl.elementary import AUD, BASELINE, IDR, PPS, SLICE
from ctl.fakes import SILENCE, FakeRelay, fake_relay, resumable
from harness import PATIENCE

from relayd import protocol
from relayd.ctl import client
from relayd.ctl.backoff import Backoff
from relayd.ctl.client import ClientError, ConnectionLost, Refused
from relayd.ctl.cutting import CONFIG, KEYFRAME, Frame
from relayd.ctl.uplink import Uplink

AT_ONCE = Backoff(first=0.001, largest=0.001, patience=PATIENCE)
"""Attempts without a pause."""

CONFIG_FRAME = Frame(AUD + b"\0\0\1" + BASELINE + PPS, CONFIG)
KEYFRAME_FRAME = Frame(IDR, KEYFRAME)
PICTURE = Frame(SLICE)

FEATURES = ["resume", "viewers"]


class Notes(list[str]):
    """The lines that an uplink says, as a test waits for them."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def __call__(self, text: str) -> None:
        self.append(text)
        self._changed.set()

    async def wait_for(self, count: int) -> list[str]:
        """Return all lines once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self) < count:
                self._changed.clear()
                await self._changed.wait()
        return self


@contextlib.asynccontextmanager
async def kept(uplink: Uplink) -> AsyncIterator[Notes]:
    """Keep an uplink while the context lasts; where that fails, so does the context."""
    notes = Notes()
    async with uplink, asyncio.TaskGroup() as group:
        keeping = group.create_task(uplink.keep(notes))
        yield notes
        keeping.cancel()


def synchronous(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@synchronous
async def test_registration() -> None:
    """It asks for what it can make use of and says what it knows, and leaves with 1000."""
    known = {"codec": "png", "width": 3, "height": 2}
    async with fake_relay(resumable("t")) as relay:
        async with kept(Uplink(relay.url, None, known)):
            streamer = await relay.streamer()
        assert await streamer.end() == 1000
    assert streamer.request == {
        "type": "register",
        "stream_id": None,
        "format": known,
        "features": FEATURES,
    }


@synchronous
async def test_what_is_unknown_is_not_said() -> None:
    """Where nothing is known of the video, there is no format."""
    async with fake_relay(resumable("t")) as relay, kept(Uplink(relay.url, "abc", {})):
        request = (await relay.streamer()).request
    assert request == {"type": "register", "stream_id": "abc", "features": FEATURES}


@synchronous
async def test_frames_are_marked() -> None:
    """A mark is sent right before its frame; a frame without one is sent alone."""
    async with fake_relay(resumable("t")) as relay:
        uplink = Uplink(relay.url, None, {})
        async with kept(uplink):
            streamer = await relay.streamer()
            for frame in (CONFIG_FRAME, KEYFRAME_FRAME, PICTURE):
                assert await uplink.send(frame)
            assert await streamer.receive(5) == [
                *("config", CONFIG_FRAME.data),
                *("keyframe", KEYFRAME_FRAME.data),
                PICTURE.data,
            ]


@synchronous
async def test_viewers() -> None:
    """The number of viewers is known once the server has told it, and what it is now."""
    async with fake_relay(resumable("t")) as relay:
        uplink = Uplink(relay.url, None, {}, AT_ONCE)
        async with kept(uplink) as notes:
            streamer = await relay.streamer()
            assert uplink.viewers is None
            for message in ("?", '{"type": "viewers"}', b"", '{"type": "viewers", "count": true}'):
                await streamer.tell(message)
            await streamer.tell(protocol.viewers(2))
            await streamer.tell('{"type": "new", "count": 3}')
            relay.answers.append(resumable("u", resumed=True))
            await streamer.close(1012)
            await notes.wait_for(1)
            assert uplink.viewers is None


@synchronous
async def test_resume() -> None:
    """A lost connection is made again, each time with the newest token."""
    answers = [resumable("first"), resumable("second", resumed=True), resumable("third")]
    async with fake_relay(*answers) as relay:
        uplink = Uplink(relay.url, None, {}, AT_ONCE)
        async with kept(uplink) as notes:
            (await relay.streamer()).cut_off()
            second = await relay.streamer()
            await notes.wait_for(2)
            assert uplink.is_open
            await second.close(1012)
            third = await relay.streamer()
            assert await notes.wait_for(4) == [
                "connection lost (cut off), reconnecting",
                "resumed",
                "connection lost (restarting), reconnecting",
                "reconnected, as a new stream: the old one had ended",
            ]
        again = {"type": "register", "stream_id": "abc", "features": FEATURES}
        assert second.request == {**again, "resume_token": "first"}
        assert third.request == {**again, "resume_token": "second"}
        assert uplink.stream_id == "abc"


@synchronous
async def test_a_decoder_can_go_on() -> None:
    """After a resume come the last config and the next keyframe; what is before is dropped."""
    async with fake_relay(resumable("t"), resumable("t", resumed=True)) as relay:
        uplink = Uplink(relay.url, None, {}, AT_ONCE)
        async with kept(uplink) as notes:
            streamer = await relay.streamer()
            for frame in (CONFIG_FRAME, KEYFRAME_FRAME):
                await uplink.send(frame)
            await streamer.receive(4)
            streamer.cut_off()
            streamer = await relay.streamer()
            await notes.wait_for(2)
            assert not uplink.admits(PICTURE)
            assert not await uplink.send(PICTURE)
            assert uplink.admits(KEYFRAME_FRAME)
            assert await uplink.send(KEYFRAME_FRAME)
            assert await uplink.send(PICTURE)
            assert await streamer.receive(5) == [
                *("config", CONFIG_FRAME.data),
                *("keyframe", KEYFRAME_FRAME.data),
                PICTURE.data,
            ]


@synchronous
async def test_what_is_sent_meanwhile_is_lost() -> None:
    """Without a connection frames are dropped, but the config and what it says are kept in mind."""
    async with fake_relay(resumable("t"), SILENCE, resumable("t", resumed=True)) as relay:
        uplink = Uplink(relay.url, None, {}, AT_ONCE)
        async with kept(uplink) as notes:
            (await relay.streamer()).cut_off()
            silent = await relay.streamer()
            assert not uplink.is_open
            for frame in (CONFIG_FRAME, KEYFRAME_FRAME, PICTURE):
                assert not await uplink.send(frame)
            silent.cut_off()
            streamer = await relay.streamer()
            await notes.wait_for(2)
            assert not await uplink.send(PICTURE)
            assert await uplink.send(KEYFRAME_FRAME)
            assert await streamer.receive(2) == ["config", CONFIG_FRAME.data]
        assert "format" not in silent.request
        known = {"codec": "avc1.42C01F", "width": 1280, "height": 720}
        assert streamer.request["format"] == known


@synchronous
async def test_a_break_that_is_noticed_while_sending() -> None:
    """A frame that can't be sent any more is no error: the connection is lost."""
    async with fake_relay(resumable("t")) as relay, Uplink(relay.url, None, {}) as uplink:
        (await relay.streamer()).cut_off()
        await uplink._connection.wait_closed()
        assert uplink.is_open
        assert not await uplink.send(PICTURE)
        assert not uplink.is_open


@synchronous
async def test_the_format_is_kept() -> None:
    """A format that was known before is said again where the frames tell nothing."""
    known = {"codec": "png", "width": 3, "height": 2}
    async with fake_relay(resumable("t"), resumable("t", resumed=True)) as relay:
        uplink = Uplink(relay.url, None, known, AT_ONCE)
        async with kept(uplink):
            await uplink.send(Frame(b"\x89PNG", KEYFRAME))
            (await relay.streamer()).cut_off()
            assert (await relay.streamer()).request["format"] == known


async def end_of(relay: FakeRelay, backoff: Backoff = AT_ONCE) -> tuple[ClientError, list[str]]:
    """Return the error with which an uplink ends after it was cut off, and what it said."""
    notes = Notes()
    async with Uplink(relay.url, None, {}, backoff) as uplink, asyncio.timeout(PATIENCE):
        (await relay.streamer()).cut_off()
        with pytest.raises(ClientError) as caught:
            await uplink.keep(notes)
    return caught.value, notes


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (protocol.StreamIdInUse(), "the stream can't be resumed: another streamer has its id now"),
        (protocol.TooManyStreams(), "too many streams; try again later, or raise the server's"),
    ],
)
@synchronous
async def test_a_refusal_is_final(refusal: protocol.Refusal, text: str) -> None:
    """Where the server refuses to go on with the stream, it is not asked again."""
    async with fake_relay(resumable("t"), protocol.error(refusal)) as relay:
        error, notes = await end_of(relay)
        assert relay.requests == 2
    assert str(error).startswith(text)
    assert notes == ["connection lost (cut off), reconnecting"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1000, "the server closed the stream: ended (1000)"),
        (1009, "the server closed the stream: a frame is larger than its MAX_FRAME_SIZE (1009)"),
        (4409, "the server closed the stream: another publisher has taken it over (4409)"),
        (4403, "the server closed the stream: code 4403"),
    ],
)
@synchronous
async def test_a_close_that_is_final(code: int, text: str) -> None:
    """Where the server ends the stream, it is not registered again."""
    async with fake_relay(resumable("t")) as relay:
        async with Uplink(relay.url, None, {}, AT_ONCE) as uplink:
            await (await relay.streamer()).close(code)
            notes = Notes()
            with pytest.raises(ClientError) as caught:
                await uplink.keep(notes)
        assert relay.requests == 1
    assert str(caught.value) == text
    assert notes == []
    assert not isinstance(caught.value, ConnectionLost)


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013])
@synchronous
async def test_a_close_that_is_not_final(code: int) -> None:
    """After any other close the stream is resumed."""
    answers = [resumable("t"), resumable("t", resumed=True)]
    async with fake_relay(*answers) as relay, kept(Uplink(relay.url, None, {}, AT_ONCE)) as notes:
        await (await relay.streamer()).close(code)
        assert (await notes.wait_for(2))[1] == "resumed"


@synchronous
async def test_attempts_that_fail() -> None:
    """An attempt that fails is followed by another: a full server, a restart, a cut, a delay."""
    late = protocol.error(protocol.TimedOut())
    answers = [503, 502, 404, None, 1012, 1011, late, resumable("t", resumed=True)]
    async with fake_relay(resumable("t"), *answers) as relay:
        async with kept(Uplink(relay.url, None, {}, AT_ONCE)) as notes:
            (await relay.streamer()).cut_off()
            assert (await notes.wait_for(2))[1] == "resumed"
        assert relay.requests == 1 + len(answers)


@synchronous
async def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first message without an answer is given up, and another attempt is made."""
    answers = [resumable("t"), SILENCE, resumable("t", resumed=True)]
    async with fake_relay(*answers) as relay, kept(Uplink(relay.url, None, {}, AT_ONCE)) as notes:
        streamer = await relay.streamer()
        monkeypatch.setattr(client, "OPEN_TIMEOUT", 0.5)
        streamer.cut_off()
        await relay.streamer()
        monkeypatch.undo()
        assert (await notes.wait_for(2))[1] == "resumed"


class Attempts(Backoff):
    """Attempts without a pause, counted since a connection last lasted."""

    counts: ClassVar[list[int]] = []

    def delays(self) -> Iterator[float]:
        for count in itertools.count(1):
            self.counts.append(count)
            yield 0.0


@pytest.mark.parametrize(("steady", "counts"), [(PATIENCE, [1, 2, 3]), (0.0, [1, 1, 1])])
@synchronous
async def test_a_server_that_lets_nobody_stay(
    monkeypatch: pytest.MonkeyPatch, steady: float, counts: list[int]
) -> None:
    """Attempts come further and further apart unless a connection has lasted for a while."""
    monkeypatch.setattr(Attempts, "counts", [])
    async with fake_relay(*[resumable("t")] * 4) as relay:
        backoff = Attempts(patience=PATIENCE, steady=steady)
        async with kept(Uplink(relay.url, "x", {}, backoff)):
            for _ in range(3):
                (await relay.streamer()).cut_off()
            await relay.streamer()
    assert Attempts.counts == counts


@synchronous
async def test_patience_has_an_end() -> None:
    """When the server stays away, the last reason is the error; so it is while one waits."""
    async with fake_relay(resumable("t"), *[503] * 9999) as relay:
        error, notes = await end_of(relay, Backoff(first=0.001, largest=0.001, patience=0.5))
        assert relay.requests > 2
        assert "the server is full or restarting (HTTP 503)" in str(error)
        assert len(notes) == 1
        relay.answers[:0] = [resumable("t")]
        error, _ = await end_of(relay, Backoff(first=PATIENCE, patience=0.01))
        assert str(error).endswith(" was lost")


@synchronous
async def test_a_server_that_knows_no_resume() -> None:
    """Without a token a lost connection is the end."""
    async with fake_relay(protocol.registered("abc")) as relay:
        error, notes = await end_of(relay)
        assert relay.requests == 1
    assert str(error).endswith(" was lost")
    assert notes == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(503, ConnectionLost), (protocol.error(protocol.TooManyStreams()), Refused)],
)
@synchronous
async def test_the_first_connection_is_made_once(answer: str | int, kind: type[Exception]) -> None:
    """Where the first connection fails, there is no other."""
    async with fake_relay(answer) as relay:
        with pytest.raises(kind):
            async with Uplink(relay.url, None, {}, AT_ONCE):
                pytest.fail("there is no stream")
        assert relay.requests == 1
