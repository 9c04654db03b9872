"""Tests of relayctl watch, against a real relay."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ctl.fakes import Clock
from harness import PATIENCE, RelayProcess, receive, send
from websockets.asyncio.server import ServerConnection, serve

from relayd import protocol
from relayd.ctl.watch import Reception, watch
from relayd.protocol import Subscribe

Start = Callable[..., "subprocess.Popen[bytes]"]


def wait(process: "subprocess.Popen[bytes]") -> tuple[int, bytes, str]:
    """Wait for the end; return exit code, output and error output."""
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors.decode()


def wait_for_viewer(relay: RelayProcess, stream_id: str, count: int = 1) -> None:
    """Wait until the relay has this many viewers of a stream."""
    relay.log.wait_for(f"viewer {stream_id} .*subscribed", count)


def test_frames_are_written_back_to_back(
    relay: RelayProcess, relayctl: Start, tmp_path: Path
) -> None:
    """Standard output and files get the frames alone; the end of the stream is exit code 0."""
    frames = [b"first", b"", b"\0\xff\r\n" * 100_000, b"last"]
    with relay.stream("written") as (streamer, _):
        pipe = relayctl("watch", "written", "-o", "-", "--server", relay.url)
        file = relayctl("watch", "written", "-o", str(tmp_path / "out"), "--server", relay.url)
        wait_for_viewer(relay, "written", 2)
        for frame in frames:
            streamer.send(frame)
    assert wait(pipe) == (0, b"".join(frames), "")
    assert wait(file) == (0, b"", "")
    assert (tmp_path / "out").read_bytes() == b"".join(frames)


def test_every_frame_is_written_at_once(relay: RelayProcess, relayctl: Start) -> None:
    """A frame is on standard output before the next one comes."""
    with relay.stream("live") as (streamer, _):
        process = relayctl("watch", "live", "-o", "-", "--server", relay.url)
        wait_for_viewer(relay, "live")
        assert process.stdout is not None
        for frame in (b"one", b"two"):
            streamer.send(frame)
            assert os.read(process.stdout.fileno(), 100) == frame


def test_frames_are_only_counted(relay: RelayProcess, relayctl: Start) -> None:
    """Without -o nothing is written."""
    with relay.stream("counted") as (streamer, _):
        process = relayctl("watch", "counted", "--server", relay.url)
        wait_for_viewer(relay, "counted")
        streamer.send(b"frame")
    assert wait(process) == (0, b"", "")


def test_a_terminal(
    relay: RelayProcess, relayctl: Start, terminal: tuple[int, Callable[[str], str]]
) -> None:
    """On a terminal the live line is shown, Ctrl-C ends it, and a summary follows."""
    program, wait_for = terminal
    with relay.stream("shown") as (streamer, _):
        process = relayctl("watch", "shown", "--server", relay.url, stderr=program)
        wait_for("0 fps   0 kbit/s   0 frames ")
        streamer.send(b"frame")
        wait_for("1 fps   0 kbit/s   1 frame ")
        process.send_signal(signal.SIGINT)
        wait_for("\r1 frame in ")
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_the_output_takes_nothing(
    relay: RelayProcess, relayctl: Start, number: signal.Signals
) -> None:
    """A program that does not read what it is sent does not hold Ctrl-C up."""
    stream_id = f"stuck-{number}"
    with relay.stream(stream_id) as (streamer, _):
        process = relayctl("watch", stream_id, "-o", "-", "--server", relay.url)
        wait_for_viewer(relay, stream_id)
        streamer.send(bytes(1 << 20))
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)  # It is writing.
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0


def test_the_reader_leaves(relay: RelayProcess, relayctl: Start) -> None:
    """When the program that reads the frames ends, so does relayctl, without a word."""
    with relay.stream("left") as (streamer, _):
        process = relayctl("watch", "left", "-o", "-", "--server", relay.url)
        wait_for_viewer(relay, "left")
        assert process.stdout is not None
        process.stdout.close()
        streamer.send(b"frame")
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
        relay.log.wait_for("viewer left .* left")


def test_unknown_stream(relay: RelayProcess, relayctl: Start, tmp_path: Path) -> None:
    """A stream that does not exist is one line and exit code 1, and no file is touched."""
    output = tmp_path / "out"
    process = relayctl("watch", "nowhere", "-o", str(output), "--server", relay.url)
    expected = "relayctl: stream not found; check the id, or start the stream first\n"
    assert wait(process) == (1, b"", expected)
    assert not output.exists()


def test_output_that_cannot_be_written(
    relay: RelayProcess, relayctl: Start, tmp_path: Path
) -> None:
    """An output that can't be opened or takes nothing is one line and exit code 1."""
    with relay.stream("unwritten") as (streamer, _):
        folder = relayctl("watch", "unwritten", "-o", str(tmp_path), "--server", relay.url)
        expected = f"relayctl: cannot write {tmp_path}: is a directory\n"
        assert wait(folder) == (1, b"", expected)
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full")
        full = relayctl("watch", "unwritten", "-o", "/dev/full", "--server", relay.url)
        wait_for_viewer(relay, "unwritten", 2)
        streamer.send(b"frame")
        expected = "relayctl: cannot write /dev/full: no space left on device\n"
        assert wait(full) == (1, b"", expected)


def test_the_server_restarts(start_relay: Callable[..., RelayProcess], relayctl: Start) -> None:
    """A server that restarts is one line and exit code 1."""
    relay = start_relay("--drain-timeout", "2")
    with relay.stream("restarted"):
        process = relayctl("watch", "restarted", "--server", relay.url)
        wait_for_viewer(relay, "restarted")
        relay.signal(signal.SIGTERM)
        expected = "relayctl: the server closed the stream: restarting (1012)\n"
        assert wait(process) == (1, b"", expected)


@pytest.mark.parametrize("ending", [protocol.stream_ended("x"), None])
def test_text_of_other_servers(tmp_path: Path, ending: str | None) -> None:
    """Text that is not understood is ignored; a close with 1000 alone ends the stream as well."""
    requests: list[str | bytes] = []

    async def other(connection: ServerConnection) -> None:
        requests.append(await connection.recv())
        await connection.send(protocol.subscribed("x"))
        messages = ['{"type": "gap", "frames": "?"}', b"fra", "not JSON", '{"type": "new"}', b"me"]
        for message in messages:
            await connection.send(message)
        if ending is not None:
            await connection.send(ending)
            await connection.wait_closed()

    async def main() -> None:
        async with serve(other, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            await watch(f"ws://127.0.0.1:{port}", "x", str(tmp_path / "out"))

    asyncio.run(main())
    assert requests == [protocol.subscribe(Subscribe("x", ("gaps", "status")))]
    assert (tmp_path / "out").read_bytes() == b"frame"


def heed(reception: Reception, *messages: str) -> None:
    """Let a reception heed what a server says."""
    for message in messages:
        reception.heed(json.loads(message))


def test_what_is_lost_is_shown() -> None:
    """Gaps are shown as the frames lost in them, and summed up."""
    reception = Reception(Clock())
    assert reception.line() == "0 fps   0 kbit/s   0 frames"
    assert reception.summary() == "0 frames in 0.0 s"
    heed(reception, protocol.gap(14))
    assert reception.line() == "0 fps   0 kbit/s   0 frames   14 lost"
    assert reception.summary() == "0 frames in 0.0 s; 14 lost in 1 gap"
    heed(reception, protocol.gap(1), '{"type": "gap"}', '{"type": "gap", "frames": "1"}')
    assert reception.line() == "0 fps   0 kbit/s   0 frames   15 lost"
    assert reception.summary() == "0 frames in 0.0 s; 15 lost in 2 gaps"


def test_a_pause_is_shown() -> None:
    """A stream is shown as paused until it is back; the pauses are summed up."""
    reception = Reception(Clock())
    for number, text in enumerate(("1 pause", "2 pauses"), 1):
        heed(reception, protocol.stream_paused())
        assert reception.line() == "0 fps   0 kbit/s   0 frames   paused"
        heed(reception, protocol.stream_resumed({"codec": "jpeg"} if number == 1 else None))
        assert reception.line() == "0 fps   0 kbit/s   0 frames"
        assert reception.summary() == f"0 frames in 0.0 s; {text}"


def test_the_lag_is_shown() -> None:
    """The newest lag is shown, the largest summed up, each with a fitting unit."""
    clock = Clock()
    reception = Reception(clock)
    for seconds in (1.25, 0.042):
        reception.lag.sent()
        clock.now += seconds
        reception.lag.answered()
    assert reception.line().endswith(" frames   lag 42 ms")
    assert reception.summary().endswith(" s; largest lag 1.2 s")
    heed(reception, protocol.stream_paused(), protocol.gap(2))
    assert reception.line().endswith(" frames   2 lost   lag 42 ms   paused")
    assert reception.summary().endswith(" s; 2 lost in 1 gap; 1 pause; largest lag 1.2 s")


def test_the_line_of_a_stream_with_gaps(
    relayctl: Start, terminal: tuple[int, Callable[[str], str]]
) -> None:
    """On a terminal the line has what a server says of gaps and pauses, and the lag."""
    program, wait_for = terminal
    connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(protocol.subscribed("x", ["gaps", "status"]))
        for message in (protocol.gap(14), b"frame", protocol.stream_paused()):
            await connection.send(message)
        connections.put_nowait(connection)
        await connection.wait_closed()

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            process = relayctl("watch", "x", "--server", url, stderr=program)
            text = await asyncio.to_thread(wait_for, " ms   paused ")
            assert re.search(r"1 frame   14 lost   lag \d+ ms   paused ", text)
            await (await connections.get()).send(protocol.stream_ended("x"))
            text = await asyncio.to_thread(wait_for, " ms\r\n")
            assert re.search(r" MB; 14 lost in 1 gap; 1 pause; largest lag \d+ ms\r\n", text)
            assert await asyncio.to_thread(process.wait, PATIENCE) == 0

    asyncio.run(main())


def test_a_paused_stream(relay: RelayProcess, relayctl: Start) -> None:
    """In a pipe nothing is said of a stream that pauses, is resumed and ends."""
    register = {"type": "register", "stream_id": "paused", "features": ["resume"]}
    with relay.connect("/ws/stream") as streamer:
        send(streamer, **register)
        token = receive(streamer)["resume_token"]
        process = relayctl("watch", "paused", "-o", "-", "--server", relay.url)
        wait_for_viewer(relay, "paused")
        streamer.send(b"before, ")
        with relay.connect("/ws/stream") as another:
            send(another, **register, resume_token=token)
            assert receive(another)["resumed"] is True
            another.send(b"after")
    assert wait(process) == (0, b"before, after", "")
