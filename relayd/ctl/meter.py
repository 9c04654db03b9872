"""The live line: frames and bits per second, on standard error where it is a terminal."""

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TextIO

WINDOW = 1.0
"""Seconds over which the live line takes its rates."""

REFRESH_INTERVAL = 0.25
"""Seconds between two updates of the live line."""


class Meter:
    """Counts frames and bytes. Pure, but for the clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._recent: deque[tuple[float, int]] = deque()
        self._frames = 0
        self._bytes = 0

    def count(self, size: int) -> None:
        """Count a frame of this many bytes."""
        self._frames += 1
        self._bytes += size
        self._recent.append((self._clock(), size))
        self._forget()

    def line(self) -> str:
        """Return the rates of the last WINDOW seconds and the frames so far."""
        self._forget()
        fps = len(self._recent) / WINDOW
        kbits = sum(size for _, size in self._recent) * 8 / 1000 / WINDOW
        return f"{fps:.0f} fps   {kbits:.0f} kbit/s   {counted(self._frames, 'frame')}"

    def summary(self) -> str:
        """Return the frames so far and the rates from the start to now."""
        seconds = self._clock() - self._start
        text = f"{counted(self._frames, 'frame')} in {seconds:.1f} s"
        if not self._frames or seconds <= 0:
            return text
        fps = self._frames / seconds
        kbits = self._bytes * 8 / 1000 / seconds
        return f"{text}: {fps:.1f} fps, {kbits:.0f} kbit/s, {self._bytes / 1e6:.1f} MB"

    def _forget(self) -> None:
        horizon = self._clock() - WINDOW
        while self._recent and self._recent[0][0] <= horizon:
            self._recent.popleft()


def counted(count: int, noun: str) -> str:
    """Return a number of things in words; the noun takes an s."""
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"


class Readout(Protocol):
    """What a live line shows, such as a meter."""

    def line(self) -> str:
        """Return how things are now."""

    def summary(self) -> str:
        """Return how they were from the start to now."""


class LiveLine:
    """Shows a readout on a terminal while its context lasts, then one line that sums up.

    Shows nothing where the output is no terminal.
    """

    def __init__(self, readout: Readout, output: TextIO | None = None) -> None:
        self._readout = readout
        self._output = output or sys.stderr
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "LiveLine":
        if self._output.isatty():
            self._task = asyncio.create_task(self._refresh())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            self.say(self._readout.summary())

    def say(self, text: str) -> None:
        """Write a line that stays, terminal or not."""
        if self._task is not None:
            self._show("")
            text = f"\r{text}"
        self._write(f"{text}\n")

    async def _refresh(self) -> None:
        while True:
            self._show(self._readout.line())
            await asyncio.sleep(REFRESH_INTERVAL)

    def _show(self, text: str) -> None:
        # A line as wide as the terminal would wrap, and \r would not get back to its start.
        width = _columns(self._output) - 1
        self._write("\r" + text[:width].ljust(width))

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # The terminal is gone.
            self._output.write(text)
            self._output.flush()


def _columns(output: TextIO) -> int:
    """Return the terminal's width; 80, as most programs do, where it doesn't know."""
    try:
        return os.get_terminal_size(output.fileno()).columns or 80
    except OSError:
        return 80
