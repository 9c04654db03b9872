"""Tests of the meter and its line on a terminal."""

import asyncio
import fcntl
import io
import os
import struct
import termios
from collections.abc import Callable

from ctl.fakes import Clock

from relayd.ctl.meter import LiveLine, Meter, counted


class Terminal(io.StringIO):
    """Says that it is a terminal, and wakes a test that waits for output."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


class LostTerminal(Terminal):
    """A terminal that has been closed."""

    def write(self, text: str) -> int:
        self.written.set()
        raise OSError(5, "Input/output error")


class NarrowTerminal(Terminal):
    """A terminal of ten columns."""

    def __init__(self) -> None:
        super().__init__()
        self._screen, self._program = os.openpty()
        fcntl.ioctl(self._program, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 10, 0, 0))

    def fileno(self) -> int:
        return self._program

    def close(self) -> None:
        super().close()
        os.close(self._screen)
        os.close(self._program)


async def show(make: Callable[[], io.StringIO]) -> str:
    """Show a meter that has counted a frame until the line is there; return the output."""
    output = make()
    meter = Meter()
    with output:
        async with LiveLine(meter, output):
            meter.count(1000)
            if isinstance(output, Terminal):
                await output.written.wait()
        return output.getvalue()


def test_the_line_has_the_rates_of_the_last_second() -> None:
    """Frames and bits of the last second are shown as rates, those before only counted."""
    clock = Clock()
    meter = Meter(clock)
    for _ in range(20):
        clock.now += 0.125
        meter.count(2000)
    assert meter.line() == "8 fps   128 kbit/s   20 frames"
    clock.now += 60
    assert meter.line() == "0 fps   0 kbit/s   20 frames"


def test_the_summary_is_of_the_whole_time() -> None:
    """The summary has the mean rates since the start."""
    clock = Clock()
    meter = Meter(clock)
    for _ in range(300):
        clock.now += 0.04
        meter.count(5000)
    assert meter.summary() == "300 frames in 12.0 s: 25.0 fps, 1000 kbit/s, 1.5 MB"


def test_the_summary_of_nothing() -> None:
    """Where nothing came the summary has no rates, and one frame is not frames."""
    clock = Clock()
    meter = Meter(clock)
    assert meter.summary() == "0 frames in 0.0 s"
    meter.count(1)
    assert meter.summary() == "1 frame in 0.0 s"


def test_a_terminal_shows_the_line_and_then_the_summary() -> None:
    """On a terminal the line is written over itself, cleared at the end, and summed up."""
    text = asyncio.run(show(Terminal))
    live, blank, summary = text.removeprefix("\r").split("\r")
    assert live.rstrip() == "1 fps   8 kbit/s   1 frame"
    assert len(live) == len(blank) == 79
    assert blank.isspace()
    assert summary.startswith("1 frame in ")
    assert summary.endswith("\n")


def test_a_pipe_shows_nothing() -> None:
    """Where the output is no terminal, nothing is written."""
    assert asyncio.run(show(io.StringIO)) == ""


def test_a_line_that_stays() -> None:
    """A line that is said stays: above the live line, or alone in a pipe."""

    async def say(output: io.StringIO) -> str:
        meter = Meter()
        async with LiveLine(meter, output) as live:
            live.say("resumed")
            if isinstance(output, Terminal):
                output.written.clear()
                await output.written.wait()
        return output.getvalue()

    assert asyncio.run(say(io.StringIO())) == "resumed\n"
    blank, said, live, *_ = asyncio.run(say(Terminal())).removeprefix("\r").split("\r")
    assert blank.isspace()
    assert said == "resumed\n"
    assert live.startswith("0 fps ")


def test_counted() -> None:
    """One thing is not many."""
    assert [counted(number, "gap") for number in range(3)] == ["0 gaps", "1 gap", "2 gaps"]


def test_a_terminal_that_goes_away_is_no_error() -> None:
    """When the terminal is closed, the work goes on."""
    assert asyncio.run(show(LostTerminal)) == ""


def test_the_line_is_narrower_than_the_terminal() -> None:
    """On a narrow terminal the line is cut, so that it never wraps."""
    text = asyncio.run(show(NarrowTerminal))
    live, blank, summary = text.removeprefix("\r").split("\r")
    assert live == "1 fps   8"
    assert len(blank) == 9
    assert summary.startswith("1 frame in ")
