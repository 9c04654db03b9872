"""`relayctl top`: what a relay does, as a table that is refreshed."""

import asyncio
import itertools
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TextIO

from . import table
from .client import ClientError
from .operator import Operator
from .report import Stream
from .tasks import in_thread

_HOME = "\x1b[H"
_CLEAR = "\x1b[H\x1b[2J"
_CLEAR_REST_OF_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"
_REVERSE = "\x1b[7m"
_PLAIN = "\x1b[m"

_DEFAULT_SIZE = (80, 24)
"""Columns and lines of a terminal that does not know."""


async def top(
    operator: Operator, stream_id: str | None, interval: float, count: int | None
) -> None:
    """Show the streams of a relay, those in trouble first.

    A relay that goes away meanwhile is waited for: it may be about to start again.

    Args:
        operator: Where to ask.
        stream_id: Show this stream alone, with all its viewers; None: all, with those in trouble.
        interval: Seconds between two tables.
        count: How many tables; None: without end.

    Raises:
        ClientError: If the relay can't be asked the first time.
    """
    streams = await in_thread(operator.streams)
    screen = Screen(sys.stdout)
    try:
        for number in itertools.count(1):
            width, height = screen.size()
            screen.show(page(streams, stream_id, str(operator.address), width, height))
            if number == count:
                return
            await asyncio.sleep(interval)
            while True:
                try:
                    streams = await in_thread(operator.streams)
                    break
                except ClientError as exc:
                    screen.show([f"{_now()}   {exc}"])
                    await asyncio.sleep(interval)
    finally:
        screen.leave()


def page(
    streams: Sequence[Stream],
    stream_id: str | None,
    address: str,
    width: int | None,
    height: int | None,
) -> list[str]:
    """Return a line that sums up and a table, cut to what fits.

    Args:
        streams: The streams of a relay.
        stream_id: Show this one alone, with all its viewers; None: all, with those in trouble.
        address: Where they are from.
        width: Characters that fit on a line; None: any number.
        height: Lines that fit; None: any number.
    """
    title = f"{_now()}   {table.summary(streams)}   {address}"
    if stream_id is None:
        lines = table.top(streams, with_all=False, width=width)
    else:
        listed = [stream for stream in streams if stream.stream_id == stream_id]
        lines = table.top(listed, with_all=True, width=width)
        if not listed:
            lines = [f"There is no stream {stream_id}."]
    lines = [title[:width], *lines]
    if height is not None and len(lines) > height:
        unseen = len(lines) - height + 1
        lines = [*lines[: height - 1], f"  and {unseen} more"[:width]]
    return lines


class Screen:
    """Shows one page after the other: on a terminal in the same place, else one below the other.

    Needs nothing undone when the program is stopped or killed; `leave` is but for looks.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._is_terminal = output.isatty()
        self._is_clear = False

    def size(self) -> tuple[int | None, int | None]:
        """Return how many columns and lines fit; None: any number."""
        if not self._is_terminal:
            return None, None
        columns, lines = shutil.get_terminal_size(_DEFAULT_SIZE)
        # A full last column would leave the cursor there, to clear it.
        return columns - 1, lines

    def show(self, lines: Sequence[str]) -> None:
        """Show a page; the second line is the header of its table."""
        if not self._is_terminal:
            self._write("\n".join(lines) + "\n\n")
            return
        shown = [*lines[:1], *(f"{_REVERSE}{line}{_PLAIN}" for line in lines[1:2]), *lines[2:]]
        text = "\n".join(line + _CLEAR_REST_OF_LINE for line in shown)
        self._write((_HOME if self._is_clear else _CLEAR) + text + _CLEAR_BELOW)
        self._is_clear = True

    def leave(self) -> None:
        """Let what comes next begin on a line of its own."""
        if self._is_clear:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M:%S}"
