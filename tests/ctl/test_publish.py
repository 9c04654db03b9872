"""Tests of relayctl publish, against a real relay."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import PATIENCE, RelayProcess, close_code, receive
from websockets.sync.client import ClientConnection

from relayd.ctl import pattern
from relayd.ctl.publish import watch_command

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


@pytest.mark.parametrize("clip", ["h264_clip", "mjpeg_clip"])
def test_a_named_pipe(
    relay: RelayProcess, relayctl: Start, fifo: Path, clip: str, request: pytest.FixtureRequest
) -> None:
    """Viewers join before a pipe delivers, and get its frames byte for byte."""
    video = request.getfixturevalue(clip).read_bytes()
    process = relayctl("publish", "--server", relay.url, str(fifo))
    stream_id = read_id(process)
    with relay.view(stream_id) as viewer, relay.view(stream_id) as another:
        fifo.write_bytes(video)
        frames = frames_until_end(viewer, stream_id)
        assert frames_until_end(another, stream_id) == frames
    assert b"".join(frames) == video
    assert len(frames) == 60
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
    assert frames[:60] == frames[60:120]
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
    """A server that restarts is one line and exit code 1, also while there is nothing to send."""
    relay = start_relay()
    process = relayctl("publish", "-", "--server", relay.url, stdin=subprocess.PIPE)
    read_id(process)
    relay.signal(signal.SIGTERM)
    expected = "relayctl: the server closed the stream: restarting (1012)\n"
    assert (process.wait(PATIENCE), wait(process)[1]) == (1, expected)


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
