"""Tests of relayctl top."""

import os
import re
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator

import pytest
from ctl.reports import LOST, SLOW, operator_port, stream, viewer_fields
from harness import PATIENCE, LineReader, RelayProcess

from relayd.ctl import top

Start = Callable[..., "subprocess.Popen[bytes]"]

STREAMS = [
    stream("kitchen", viewer_fields(1)),
    stream("lobby", viewer_fields(17), viewer_fields(18, **SLOW)),
    stream("attic", **LOST),
]


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    """A relay with an operator's port."""
    with RelayProcess("--admin-port", "0") as relay:
        yield relay


def test_page() -> None:
    """A page sums up, then shows the streams and the viewers in trouble."""
    title, *lines = top.page(STREAMS, None, "/run/relayd/admin.sock", None, None)
    now, summed_up, where = title.split("   ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", now)
    assert (summed_up, where) == ("3 streams, 3 viewers, 2 in trouble", "/run/relayd/admin.sock")
    assert [line.split()[0] for line in lines] == ["STREAM", "attic", "lobby", "18", "kitchen"]


def test_page_of_one_stream() -> None:
    """The page of one stream shows all its viewers; the stream need not be there."""
    lines = top.page(STREAMS, "lobby", "", None, None)[1:]
    assert [line.split()[0] for line in lines] == ["STREAM", "lobby", "18", "17"]
    assert top.page(STREAMS, "cellar", "", None, None)[1:] == ["There is no stream cellar."]


@pytest.mark.parametrize("height", range(2, 8))
def test_height(height: int) -> None:
    """A page is cut to what fits, and says how many lines did not."""
    whole = top.page(STREAMS, None, "", 60, None)
    lines = top.page(STREAMS, None, "", 60, height)
    assert max(map(len, lines)) <= 60
    if height >= len(whole):
        assert lines[1:] == whole[1:]
    else:
        assert len(lines) == height
        assert lines[-1] == f"  and {len(whole) - height + 1} more"


def test_a_pipe(relay: RelayProcess, relayctl: Start) -> None:
    """In a pipe one table follows the other, without escapes, and as many as were asked for."""
    options = ["--admin", f"http://{operator_port(relay)}", "--interval", "0.1", "-n", "3"]
    with relay.stream("piped"), relay.view("piped"):
        process = relayctl("top", "piped", *options)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")
    tables = output.decode().removesuffix("\n\n").split("\n\n")
    assert len(tables) == 3
    for table in tables:
        title, header, stream_row, viewer_row = table.split("\n")
        assert title.isprintable()
        assert title.endswith(f"   1 stream, 1 viewer   {operator_port(relay)}")
        assert header.startswith("STREAM")
        assert stream_row.startswith("piped")
        assert viewer_row.startswith("  ")


def test_the_reader_leaves(relay: RelayProcess, relayctl: Start) -> None:
    """When the program that reads the tables ends, so does relayctl, without a word."""
    process = relayctl("top", "--interval", "0.1", "--admin", operator_port(relay))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE) == 1
    assert process.stderr.read() == b""


def without_size() -> dict[str, str]:
    """Return an environment that says nothing of a terminal's size."""
    return {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal(
    relay: RelayProcess,
    relayctl: Start,
    terminal: tuple[int, Callable[[str], str]],
    number: signal.Signals,
) -> None:
    """On a terminal the table stays in place and fits, its new size too; Ctrl-C ends it."""
    import fcntl
    import termios

    program, wait_for = terminal

    def resize(rows: int, columns: int) -> None:
        fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    resize(4, 50)
    options = ["--admin", operator_port(relay), "--interval", "0.1"]
    with relay.stream("first"), relay.stream("second"), relay.stream("third"):
        process = relayctl("top", *options, stdout=program, env=without_size())
        wait_for("  and 2 more")
        resize(24, 120)
        text = wait_for("UNACKED")
        wait_for("third")
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
    first, *pages = text.split("\x1b[H")[1:]
    assert first.startswith("\x1b[2J")
    assert pages
    small = [page for page in pages if "more" in page]
    for page in (first, *small):
        lines = re.sub(r"\x1b\[\w*?[A-Za-z]", "", page).split("\r\n")
        assert len(lines) == 4
        assert max(map(len, lines)) <= 49
        assert "STATE" in lines[1]


def test_the_relay_restarts(start_relay: Callable[..., RelayProcess], relayctl: Start) -> None:
    """A relay that goes away is waited for, and shown again when it is back."""
    first = start_relay("--admin-port", "0")
    where = operator_port(first)
    process = relayctl("top", "--interval", "0.1", "--admin", where, text=True)
    output = LineReader(process.stdout)
    output.wait_for("0 streams, 0 viewers")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    output.wait_for(f"nothing listens at {where}")
    seen = len(output.matching("0 streams, 0 viewers"))
    start_relay("--admin-port", where.rpartition(":")[2])
    output.wait_for("0 streams, 0 viewers", seen + 1)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0


def test_no_relay(relayctl: Start) -> None:
    """A relay that can't be asked at first is one line and exit code 1."""
    process = relayctl("top", "--admin", "/nowhere/admin.sock")
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, b"")
    assert errors.startswith(b"relayctl: nothing listens at /nowhere/admin.sock; ")
