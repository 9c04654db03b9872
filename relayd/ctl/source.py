"""Where frames come from: a file, a pipe, the test pattern."""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from . import media, pattern
from .client import ClientError
from .cutting import KEYFRAME, Frame, VideoFormat
from .tasks import in_thread

STDIN = "-"
_STDIN_DESCRIPTOR = 0

QUIET_TIME = 0.25
"""Seconds without a byte after which a live source is taken to have delivered its picture whole.

The end of an H.264 picture shows only when the next begins, and on a screen that stands still there
is no next one: the last picture would wait for ever. Far longer than the gaps within a picture,
which an encoder writes in one go; short enough that nobody waits for it.
"""

_HEAD_SIZE = 1024 * 1024
"""Bytes of a file that are looked at before it is read, for what the video is."""

_READ_SIZE = 256 * 1024


@dataclass(frozen=True)
class Source:
    """A file or a pipe with video, looked at and found good, but not read yet.

    Attributes:
        path: Where it is, a hyphen for standard input.
        is_file: Rather than a pipe: it has an end, may be read again and needs a pace.
        format: What is known of the video: of a pipe, nothing.
    """

    path: str
    is_file: bool
    format: VideoFormat = field(default_factory=dict)

    async def frames(self, *, repeat: bool = False) -> AsyncIterator[Frame]:
        """Yield the frames; where they repeat, again and again.

        The file is never closed: the program ends with it, and until then a thread may read from
        it.

        Raises:
            ClientError: If it can't be read.
            MediaError: If it can't be cut into frames.
        """
        try:
            descriptor = await in_thread(_open, self.path)
            start = os.lseek(descriptor, 0, os.SEEK_CUR) if self.is_file else 0
            while True:
                async for frame in self._cut(descriptor):
                    yield frame
                if not repeat:
                    return
                os.lseek(descriptor, start, os.SEEK_SET)
        except OSError as exc:
            _fail(self.path, exc)

    async def _cut(self, descriptor: int) -> AsyncIterator[Frame]:
        cutter = media.SniffingCutter(self.path)
        quiet_time = None if self.is_file else QUIET_TIME
        async for chunk in _chunks(descriptor, quiet_time):
            for frame in cutter.feed(chunk) if chunk else cutter.release():
                yield frame
        for frame in cutter.flush():
            yield frame


def find(path: str) -> Source:
    """Look at a file or a pipe, or at standard input where the path is ``-``.

    A pipe is not read. Of a file the beginning is, so that an unusable one, and the format of a
    good one, is known before a stream is registered.

    Raises:
        ClientError: If it can't be read.
        MediaError: If a file can't be cut into frames.
    """
    try:
        status = os.fstat(_STDIN_DESCRIPTOR) if path == STDIN else Path(path).stat()
        if stat.S_ISREG(status.st_mode):
            head = _head(path)
            media.sniff(head, path)
            return Source(path, is_file=True, format=media.describe(head))
        if stat.S_ISDIR(status.st_mode):
            raise _os_error(errno.EISDIR)
        if path != STDIN and not os.access(path, os.R_OK):
            raise _os_error(errno.EACCES)
    except OSError as exc:
        _fail(path, exc)
    return Source(path, is_file=False)


async def pattern_frames() -> AsyncIterator[Frame]:
    """Yield the test pattern without end."""
    for image in pattern.images():
        yield Frame(image, KEYFRAME)


def _fail(path: str, exc: OSError) -> NoReturn:
    name = "standard input" if path == STDIN else path
    raise ClientError(f"cannot read {name}: {(exc.strerror or str(exc)).lower()}") from None


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _open(path: str) -> int:
    if path == STDIN:
        return _STDIN_DESCRIPTOR
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def _head(path: str) -> bytes:
    descriptor = _open(path)
    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        return os.read(descriptor, _HEAD_SIZE)
    finally:
        if path == STDIN:
            os.lseek(descriptor, start, os.SEEK_SET)
        else:
            os.close(descriptor)


async def _chunks(descriptor: int, quiet_time: float | None) -> AsyncIterator[bytes]:
    """Yield the bytes of a file as they come; b"" where none came for quiet_time seconds."""
    while True:
        reading = in_thread(os.read, descriptor, _READ_SIZE)
        done, _ = await asyncio.wait({reading}, timeout=quiet_time)
        if not done:
            yield b""
        chunk = await reading
        if not chunk:
            return
        yield chunk
