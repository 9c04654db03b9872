"""Tests of where frames come from."""

import asyncio
import itertools
import os
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relayd.ctl import pattern, source
from relayd.ctl.client import ClientError
from relayd.ctl.cutting import KEYFRAME, Frame, MediaError

IMAGE_DATA = b"\xff\xd8\xff\xda\0\2pixels\xff\xd9"
PICTURE_DATA = b"\0\0\0\1\x65\x88the slice of a picture"
IMAGE, PICTURE = Frame(IMAGE_DATA, KEYFRAME), Frame(PICTURE_DATA, KEYFRAME)


async def take(frames: AsyncIterator[Frame], count: int) -> list[Frame]:
    """Return the first frames, all of them if there are fewer."""
    taken: list[Frame] = []
    async for frame in frames:
        taken.append(frame)
        if len(taken) == count:
            break
    return taken


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A named pipe."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A file of three images."""
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(IMAGE_DATA * 3)
    return path


def test_a_file(clip: Path) -> None:
    """The frames of a file come in their order, then the end."""
    video = source.find(str(clip))
    assert video.is_file
    assert asyncio.run(take(video.frames(), 9)) == [IMAGE] * 3


def test_a_file_again_and_again(tmp_path: Path) -> None:
    """A file that repeats starts again after its last frame, which stays whole."""
    path = tmp_path / "clip.h264"
    path.write_bytes(PICTURE_DATA * 2 + b"end")
    frames = source.find(str(path)).frames(repeat=True)
    last = Frame(PICTURE_DATA + b"end", KEYFRAME)
    assert asyncio.run(take(frames, 5)) == [PICTURE, last, PICTURE, last, PICTURE]


def test_standard_input_may_be_a_file(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on standard input is read, and read again, from where it stands."""
    with clip.open("rb") as file:
        file.seek(len(IMAGE_DATA))
        monkeypatch.setattr(source, "_STDIN_DESCRIPTOR", file.fileno())
        video = source.find("-")
        assert video.is_file
        assert asyncio.run(take(video.frames(), 9)) == [IMAGE] * 2
        file.seek(len(IMAGE_DATA))
        assert asyncio.run(take(video.frames(repeat=True), 5)) == [IMAGE] * 5


def test_the_format_of_a_file(h264_clip: Path, mjpeg_clip: Path, tmp_path: Path) -> None:
    """What a file says of its video is known before it is read, also where it comes late in it."""
    picture = {"width": 320, "height": 240}
    assert source.find(str(mjpeg_clip)).format == {"codec": "jpeg", **picture}
    found = source.find(str(h264_clip)).format
    assert re.fullmatch(r"avc1\.42C0[0-9A-F]{2}", found["codec"])
    assert found.items() >= picture.items()
    late = tmp_path / "late.h264"
    late.write_bytes(PICTURE_DATA * 20_000 + h264_clip.read_bytes())
    assert source.find(str(late)).format == found
    late.write_bytes(PICTURE_DATA)
    assert source.find(str(late)).format == {}


def test_a_pipe_is_not_touched_before_it_is_read(fifo: Path) -> None:
    """A pipe without a writer is found good, and its frames come when there is one."""
    video = source.find(str(fifo))
    assert not video.is_file
    assert video.format == {}
    writer = threading.Thread(target=fifo.write_bytes, args=(IMAGE_DATA * 2,))

    async def main() -> list[Frame]:
        frames = asyncio.create_task(take(video.frames(), 9))
        writer.start()
        return await frames

    assert asyncio.run(main()) == [IMAGE] * 2
    writer.join()


def test_a_quiet_pipe_gives_its_picture(fifo: Path) -> None:
    """An H.264 picture is given though neither the next nor the end has come."""

    async def main() -> None:
        frames = source.find(str(fifo)).frames()
        first = asyncio.ensure_future(anext(frames))
        with await asyncio.to_thread(fifo.open, "wb", 0) as pipe:
            pipe.write(PICTURE_DATA)
            assert await first == PICTURE
            pipe.write(PICTURE_DATA * 2)
            assert await anext(frames) == PICTURE
        assert await anext(frames) == PICTURE

    asyncio.run(main())


def test_a_pipe_of_unknown_kind(fifo: Path) -> None:
    """What a pipe delivers is looked at when it comes."""

    async def main() -> None:
        frames = asyncio.create_task(take(source.find(str(fifo)).frames(), 1))
        await asyncio.to_thread(fifo.write_bytes, b"this is text, not video")
        await frames

    with pytest.raises(MediaError, match="the input is neither MJPEG nor"):
        asyncio.run(main())


def test_a_file_of_unknown_kind(tmp_path: Path) -> None:
    """What a file begins with is looked at before it is read."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(MediaError, match=f"MP4 .* -i {path} "):
        source.find(str(path))


def test_what_cannot_be_read(
    tmp_path: Path, clip: Path, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is missing, or a directory, or not for this user is one line."""
    with pytest.raises(ClientError, match=r"^cannot read nowhere: no such file or directory$"):
        source.find("nowhere")
    with pytest.raises(ClientError, match=r": is a directory$"):
        source.find(str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)  # Root may read everything.
    with pytest.raises(ClientError, match=r": permission denied$"):
        source.find(str(fifo))


def test_a_file_that_goes_away(clip: Path) -> None:
    """A file that can't be opened when its time has come is one line."""
    video = source.find(str(clip))
    clip.unlink()
    with pytest.raises(ClientError, match=r"^cannot read .*: no such file or directory$"):
        asyncio.run(take(video.frames(), 1))


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard input that does not exist is one line that names it."""
    monkeypatch.setattr(source, "_STDIN_DESCRIPTOR", 1_000_000)
    with pytest.raises(ClientError, match=r"^cannot read standard input: bad file descriptor$"):
        source.find("-")


def test_the_test_pattern() -> None:
    """The test pattern is a source without an end."""
    expected = [Frame(image, KEYFRAME) for image in itertools.islice(pattern.images(), 3)]
    assert asyncio.run(take(source.pattern_frames(), 3)) == expected
