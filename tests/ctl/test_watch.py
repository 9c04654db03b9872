"""Tests of relayctl watch, against a real relay."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import PATIENCE, RelayProcess
from websockets.asyncio.server import ServerConnection, serve

from relayd import protocol
from relayd.ctl.watch import watch

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
def test_text_from_a_newer_server(tmp_path: Path, ending: str | None) -> None:
    """Text that is not understood is ignored; a close with 1000 alone ends the stream as well."""

    async def newer(connection: ServerConnection) -> None:
        assert await connection.recv() == protocol.subscribe("x")
        await connection.send(protocol.subscribed("x"))
        for message in ('{"type": "gap", "frames": 14}', b"fra", "not JSON", b"me"):
            await connection.send(message)
        if ending is not None:
            await connection.send(ending)
            await connection.wait_closed()

    async def main() -> None:
        async with serve(newer, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            await watch(f"ws://127.0.0.1:{port}", "x", str(tmp_path / "out"))

    asyncio.run(main())
    assert (tmp_path / "out").read_bytes() == b"frame"
