"""Tests of relayctl publish, against a real relay."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from ctl.fakes import SILENCE, FakeRelay, fake_relay, resumable
from harness import PATIENCE, RelayProcess, close_code, receive, require_tool, send
from websockets.sync.client import ClientConnection

from relayd import protocol
from relayd.ctl import pattern, source, uplink
from relayd.ctl import publish as publish_module
from relayd.ctl.backoff import Backoff
from relayd.ctl.client import ClientError
from relayd.ctl.cutting import CONFIG, KEYFRAME, Frame
from relayd.ctl.meter import LiveLine
from relayd.ctl.pace import Schedule
from relayd.ctl.publish import publish, watch_command

Start = Callable[..., "subprocess.Popen[bytes]"]

PICTURE = b"\0\0\0\1\x65\x88the slice of a picture"


def read_id(process: "subprocess.Popen[bytes]") -> str:
    """Return the id that relayctl prints."""
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    assert line.endswith("\n"), process.communicate()
    return line.strip()


def wait(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Wait for the end; return exit code and error output."""
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors.decode()


def frames_until_end(viewer: ClientConnection, stream_id: str) -> list[bytes]:
    """Return the frames until the stream has ended."""
    frames = []
    while isinstance(message := viewer.recv(PATIENCE), bytes):
        frames.append(message)
    assert message == f'{{"type": "stream_ended", "stream_id": "{stream_id}"}}'
    assert close_code(viewer) == 1000
    return frames


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A named pipe."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(("clip", "count"), [("h264_clip", 1 + 60), ("mjpeg_clip", 60)])
def test_a_named_pipe(
    relay: RelayProcess,
    relayctl: Start,
    fifo: Path,
    clip: str,
    count: int,
    request: pytest.FixtureRequest,
) -> None:
    """Viewers join before a pipe delivers, and get its config and pictures byte for byte."""
    video = request.getfixturevalue(clip).read_bytes()
    process = relayctl("publish", "--server", relay.url, str(fifo))
    stream_id = read_id(process)
    with relay.view(stream_id) as viewer, relay.view(stream_id) as another:
        fifo.write_bytes(video)
        frames = frames_until_end(viewer, stream_id)
        assert frames_until_end(another, stream_id) == frames
    assert b"".join(frames) == video
    assert len(frames) == count
    assert wait(process) == (0, "")


def test_standard_input(relay: RelayProcess, relayctl: Start, mjpeg_clip: Path) -> None:
    """A hyphen is standard input; an id may be asked for, and a server in the environment."""
    reader, writer = os.pipe()
    environment = os.environ | {"RELAYD_SERVER": f"127.0.0.1:{relay.port}"}
    with os.fdopen(reader, "rb") as stdin, os.fdopen(writer, "wb") as pipe:
        process = relayctl("publish", "-", "--id", "my-phone_1", stdin=stdin, env=environment)
        assert read_id(process) == "my-phone_1"
        with relay.view("my-phone_1") as viewer:
            pipe.write(mjpeg_clip.read_bytes())
            pipe.close()
            frames = frames_until_end(viewer, "my-phone_1")
    assert b"".join(frames) == mjpeg_clip.read_bytes()
    assert wait(process) == (0, "")


def test_a_still_screen(relay: RelayProcess, relayctl: Start) -> None:
    """The last picture of a live H.264 pipe arrives though no other follows it."""
    process = relayctl("publish", "--server", relay.url, "-", stdin=subprocess.PIPE)
    stream_id = read_id(process)
    assert process.stdin is not None
    with relay.view(stream_id) as viewer:
        process.stdin.write(PICTURE)
        process.stdin.flush()
        assert viewer.recv(PATIENCE) == PICTURE


def test_a_file_is_paced(relay: RelayProcess, relayctl: Start, h264_clip: Path) -> None:
    """A file is sent at --fps, again and again with --loop, until a signal says stop."""
    process = relayctl("publish", "--loop", "--fps", "500", "--server", relay.url, str(h264_clip))
    stream_id = read_id(process)
    with relay.view(stream_id) as viewer:
        frames = [viewer.recv(PATIENCE) for _ in range(150)]
        process.send_signal(signal.SIGTERM)
        frames += frames_until_end(viewer, stream_id)
    assert frames[:61] == frames[61:122]  # Each time 60 pictures after their config.
    assert wait(process) == (0, "")


def test_the_test_pattern(relay: RelayProcess, relayctl: Start) -> None:
    """The test pattern goes on until Ctrl-C, which ends the stream cleanly and with 0."""
    process = relayctl("publish", "--test-pattern", "--fps", "200", "--server", relay.url)
    stream_id = read_id(process)
    with relay.view(stream_id) as viewer:
        first = viewer.recv(PATIENCE)
        assert isinstance(first, bytes)
        process.send_signal(signal.SIGINT)
        frames = [first, *frames_until_end(viewer, stream_id)]
    start = next(number for number in range(10_000) if pattern.image(number) == first)
    assert frames == [pattern.image(start + i) for i in range(len(frames))]
    assert wait(process) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_a_pipe_is_silent(
    relay: RelayProcess, relayctl: Start, fifo: Path, number: signal.Signals
) -> None:
    """Ctrl-C does not wait for a pipe that nobody writes to."""
    process = relayctl("publish", str(fifo), "--server", relay.url)
    read_id(process)
    process.send_signal(number)
    assert wait(process) == (0, "")


def test_id_in_use(relay: RelayProcess, relayctl: Start) -> None:
    """An id that is taken is one line and exit code 1."""
    with relay.stream("taken"):
        process = relayctl("publish", "--test-pattern", "--id", "taken", "--server", relay.url)
        assert wait(process) == (
            1,
            "relayctl: stream id already in use; choose another --id, or none to be given one\n",
        )


def test_unusable_file_makes_no_stream(
    relay: RelayProcess, relayctl: Start, tmp_path: Path
) -> None:
    """A file that can't be cut is known before a stream is registered."""
    path = tmp_path / "empty"
    path.touch()
    process = relayctl("publish", str(path), "--id", "unusable", "--server", relay.url)
    assert wait(process) == (1, "relayctl: the input is empty\n")
    assert not relay.log.matching("unusable")


def test_unusable_pipe_ends_the_stream(relay: RelayProcess, relayctl: Start, fifo: Path) -> None:
    """A pipe that can't be cut is one line, exit code 1 and the end of its stream."""
    process = relayctl("publish", str(fifo), "--server", relay.url)
    stream_id = read_id(process)
    with relay.view(stream_id) as viewer:
        fifo.write_bytes(b"")
        assert frames_until_end(viewer, stream_id) == []
    assert wait(process) == (1, "relayctl: the input is empty\n")


def test_the_server_restarts(start_relay: Callable[..., RelayProcess], relayctl: Start) -> None:
    """A server that restarts gets the stream again, under the same id, and viewers may join."""
    relay = start_relay("--drain-timeout", "0")
    process = relayctl("publish", "--test-pattern", "--id", "again", "--server", relay.url)
    assert read_id(process) == "again"
    relay.signal(signal.SIGTERM)
    relay.wait()
    relay = start_relay("--port", str(relay.port))
    relay.log.wait_for("streamer again .*: registered")
    with relay.view("again") as viewer:
        assert viewer.recv(PATIENCE)
        process.send_signal(signal.SIGINT)
        assert wait(process) == (
            0,
            "relayctl: connection lost (restarting), reconnecting\n"
            "relayctl: reconnected, as a new stream: the old one had ended\n",
        )


def test_a_frame_that_is_too_large(
    start_relay: Callable[..., RelayProcess], relayctl: Start, tmp_path: Path
) -> None:
    """A frame over the server's limit is one line and exit code 1."""
    relay = start_relay("--max-frame-size", "16KiB")
    image = tmp_path / "large.jpeg"
    comment = 20_000
    image.write_bytes(b"\xff\xd8\xff\xfe" + comment.to_bytes(2, "big") + bytes(comment))
    process = relayctl("publish", "--server", relay.url, "--loop", str(image))
    read_id(process)
    expected = "relayctl: the server closed the stream: a frame is larger than its MAX_FRAME_SIZE"
    assert wait(process) == (1, f"{expected} (1009)\n")


def test_a_terminal(
    relay: RelayProcess, relayctl: Start, terminal: tuple[int, Callable[[str], str]]
) -> None:
    """On a terminal the command that shows the stream is printed, the live line and a summary."""
    program, wait_for = terminal
    arguments = ["publish", "--test-pattern", "--id=-tty", "--server", relay.url]
    process = relayctl(*arguments, stdout=program, stderr=program)
    text = wait_for(" frames ")
    assert text.startswith(
        f"Publishing -tty. To watch it:  relayctl watch --server {relay.url} -- -tty\r\n\r"
    )
    process.send_signal(signal.SIGINT)
    text = wait_for(" MB\r\n")
    assert "Traceback" not in text
    assert process.wait(PATIENCE) == 0


def test_the_server_of_the_watch_command() -> None:
    """The command that shows a stream names the server unless it is the default."""
    assert watch_command("ws://localhost:8080", "abc") == "relayctl watch abc"
    assert watch_command("ws://[::1]", "abc") == "relayctl watch --server 'ws://[::1]' abc"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_nobody_reads_the_id(relay: RelayProcess, relayctl: Start) -> None:
    """Where nobody reads the id there is no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    process = relayctl("publish", "--test-pattern", "--server", relay.url, stdout=writer)
    os.close(writer)
    assert wait(process) == (1, "")


def test_signalling_is_ignored(relay: RelayProcess, relayctl: Start) -> None:
    """The id that is printed is the one under which viewers subscribe."""
    process = relayctl("publish", "--test-pattern", "--server", relay.url)
    stream_id = read_id(process)
    assert len(stream_id) == 8
    with relay.connect(f"/ws/view/{stream_id}") as viewer:
        viewer.send('{"type": "subscribe"}')
        assert receive(viewer) == {"type": "subscribed", "stream_id": stream_id}


class Feed:
    """A source whose frames the test gives, and a schedule without waiting."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.schedule = CountingSchedule()

    def give(self, *frames: Frame | None) -> None:
        """Let the source have frames; None is its end."""
        for frame in frames:
            self.queue.put_nowait(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield the frames."""
        while (frame := await self.queue.get()) is not None:
            yield frame
            self.queue.task_done()


class CountingSchedule(Schedule):
    """A schedule by which every frame is due, and which counts."""

    def __init__(self) -> None:
        super().__init__(30)
        self.due = 0
        self.restarts = 0

    def next_delay(self) -> float:
        self.due += 1
        return 0.0

    def restart(self) -> None:
        self.restarts += 1


CONFIG_FRAME, KEYFRAMES = Frame(b"config", CONFIG), [Frame(b"K0", KEYFRAME), Frame(b"K1", KEYFRAME)]
PICTURES = [Frame(b"P0"), Frame(b"P1"), Frame(b"P2")]


@pytest.fixture
def attempts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lost connection be made again without a pause."""
    monkeypatch.setattr(
        uplink, "Backoff", lambda: Backoff(first=0.001, largest=0.001, patience=PATIENCE)
    )


class TellingLine(LiveLine):
    """A live line that tells the test what it says."""

    said: "asyncio.Queue[str]"

    def say(self, text: str) -> None:
        super().say(text)
        self.said.put_nowait(text)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> "asyncio.Queue[str]":
    """What is said on the live line."""
    monkeypatch.setattr(publish_module, "LiveLine", TellingLine)
    TellingLine.said = asyncio.Queue()
    return TellingLine.said


async def begin(relay: FakeRelay, feed: Feed) -> None:
    """Give a config, a keyframe and a picture, and cut the streamer off when they have arrived."""
    feed.give(CONFIG_FRAME, KEYFRAMES[0], PICTURES[0])
    streamer = await relay.streamer()
    assert await streamer.receive(5) == ["config", b"config", "keyframe", b"K0", b"P0"]
    streamer.cut_off()


async def finish(relay: FakeRelay, expected: list[str | bytes]) -> None:
    """Check what a streamer sends after it has resumed its stream."""
    streamer = await relay.streamer()
    assert await streamer.receive(len(expected)) == expected
    assert await streamer.end() == 1000


RESUMED = "relayctl: connection lost (cut off), reconnecting\nrelayctl: resumed\n"
ANSWERS = [resumable("t"), SILENCE, SILENCE, resumable("u", resumed=True)]


@pytest.mark.usefixtures("attempts_at_once")
def test_a_paced_source_waits_for_the_connection(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a connection a file stands still; after it, what can't be decoded takes no time."""

    async def main() -> None:
        feed = Feed()
        async with fake_relay(*ANSWERS) as relay, asyncio.TaskGroup() as group:
            group.create_task(publish(relay.url, None, {}, feed.frames(), feed.schedule))
            await begin(relay, feed)
            silent = await relay.streamer()
            feed.give(PICTURES[1], PICTURES[1], KEYFRAMES[1], PICTURES[2], None)
            silent.cut_off()
            silent = await relay.streamer()
            assert feed.queue.qsize() == 4  # The first has been taken, and waits.
            silent.cut_off()
            await finish(relay, ["config", b"config", "keyframe", b"K1", b"P2"])
        assert (feed.schedule.due, feed.schedule.restarts) == (4, 1)

    asyncio.run(main())
    assert capsys.readouterr() == ("abc\n", RESUMED)


@pytest.mark.usefixtures("attempts_at_once")
def test_a_live_source_does_not_wait(
    capsys: pytest.CaptureFixture[str], said: "asyncio.Queue[str]"
) -> None:
    """What a pipe delivers without a connection is dropped."""

    async def main() -> None:
        feed = Feed()
        async with fake_relay(*ANSWERS) as relay, asyncio.TaskGroup() as group:
            group.create_task(publish(relay.url, None, {}, feed.frames(), None))
            await begin(relay, feed)
            silent = await relay.streamer()
            feed.give(PICTURES[1], KEYFRAMES[0], PICTURES[1])
            async with asyncio.timeout(PATIENCE):
                await feed.queue.join()
            silent.cut_off()
            (await relay.streamer()).cut_off()
            async with asyncio.timeout(PATIENCE):
                while await said.get() != "relayctl: resumed":
                    pass
            feed.give(PICTURES[1], KEYFRAMES[1], PICTURES[2], None)
            await finish(relay, ["config", b"config", "keyframe", b"K1", b"P2"])

    asyncio.run(main())
    assert capsys.readouterr() == ("abc\n", RESUMED)


@pytest.mark.usefixtures("attempts_at_once")
def test_another_publisher_takes_the_stream() -> None:
    """A stream that another publisher has resumed is given up."""

    async def main() -> None:
        feed = Feed()
        async with fake_relay(resumable("t")) as relay, asyncio.TaskGroup() as group:
            publishing = publish(relay.url, None, {}, feed.frames(), None)
            task = group.create_task(failure(publishing))
            await (await relay.streamer()).close(4409, "replaced")
        expected = "the server closed the stream: another publisher has taken it over (4409)"
        assert task.result() == expected

    async def failure(work: Coroutine[None, None, None]) -> str:
        with pytest.raises(ClientError) as caught:
            await work
        return str(caught.value)

    asyncio.run(main())


def test_only_pictures_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The live line counts pictures that were sent: neither configs nor what was dropped."""
    shown: list[str] = []

    class Watched(LiveLine):
        async def __aexit__(self, *exc_info: Any) -> None:
            shown.append(self._readout.line())
            await super().__aexit__(*exc_info)

    async def main() -> None:
        feed = Feed()
        feed.give(CONFIG_FRAME, KEYFRAMES[0], PICTURES[0], None)
        async with fake_relay(protocol.registered("abc")) as relay:
            await publish(relay.url, None, {}, feed.frames(), None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish_module, "LiveLine", Watched)
        asyncio.run(main())
    (line,) = shown
    assert line.endswith("   2 frames")


def test_the_live_line(relayctl: Start, terminal: tuple[int, Callable[[str], str]]) -> None:
    """On a terminal the live line has the number of viewers, or that there is no connection."""
    program, wait_for = terminal

    async def main() -> None:
        async with fake_relay(resumable("t"), *[503] * 1000) as relay:
            arguments = ["publish", "--test-pattern", "--server", relay.url]
            process = relayctl(*arguments, stdout=program, stderr=program)
            streamer = await relay.streamer()
            assert streamer.request["format"] == pattern.FORMAT
            await streamer.tell(protocol.viewers(2))
            await asyncio.to_thread(wait_for, " frames   2 viewers ")
            await streamer.tell(protocol.viewers(1))
            await asyncio.to_thread(wait_for, " frames   1 viewer ")
            streamer.cut_off()
            await asyncio.to_thread(
                wait_for, "\rrelayctl: connection lost (cut off), reconnecting\r\n"
            )
            await asyncio.to_thread(wait_for, "   reconnecting ")
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(wait_for, " MB\r\n")
            assert await asyncio.to_thread(process.wait, PATIENCE) == 0

    asyncio.run(main())


class Proxy:
    """A way to a relay that can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect a client to the relay until either leaves."""
        upstream = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, upstream[1]]
        await asyncio.gather(self._pump(reader, upstream[1]), self._pump(upstream[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


def test_a_real_relay_resumes_the_stream(
    relay: RelayProcess, h264_clip: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A viewer at a real relay stays while its streamer is cut off, and can decode what it gets."""

    async def main() -> bytes:
        proxy = Proxy(relay.port)
        server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        video = source.find(str(h264_clip))
        frames = video.frames(repeat=True)
        publishing = asyncio.create_task(
            publish(url, "resumed", video.format, frames, Schedule(300))
        )
        try:
            await asyncio.to_thread(relay.log.wait_for, "streamer resumed .*: registered")
            return await asyncio.to_thread(view, proxy.cut, asyncio.get_running_loop())
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            server.close()

    def view(cut: Callable[[], None], loop: asyncio.AbstractEventLoop) -> bytes:
        received, texts = b"", []
        with relay.connect("/ws/view/resumed") as viewer:
            send(viewer, type="subscribe", features=["status", "format"])
            texts.append(receive(viewer))
            while texts[-1]["type"] != "stream_resumed" or received[-1:] == b"":
                message = viewer.recv(PATIENCE)
                if isinstance(message, bytes):
                    received += message
                    if len(texts) == 1:
                        loop.call_soon_threadsafe(cut)
                else:
                    texts.append(json.loads(message))
            for _ in range(100):
                message = viewer.recv(PATIENCE)
                assert isinstance(message, bytes)
                received += message
        known = source.find(str(h264_clip)).format
        assert [text["type"] for text in texts] == ["subscribed", "stream_paused", "stream_resumed"]
        assert [texts[0]["format"], texts[2]["format"]] == [known, known]
        return received

    clip = tmp_path / "received.h264"
    clip.write_bytes(asyncio.run(main()))
    assert capsys.readouterr() == ("resumed\n", RESUMED)
    command = [require_tool("ffmpeg"), "-v", "error", "-i", str(clip), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    assert done.stderr == b""
