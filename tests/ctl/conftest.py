"""Fixtures: relayctl as a real process, media made by ffmpeg."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, require_tool

RELAYCTL = [sys.executable, "-m", "relayd.ctl"]


@pytest.fixture
def relayctl() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start relayctl with arguments; what still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*args: str, **options: Any) -> "subprocess.Popen[bytes]":
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process: Any = subprocess.Popen([*RELAYCTL, *args], **options)
        processes.append(process)
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


@pytest.fixture
def terminal() -> Iterator[tuple[int, Callable[[str], str]]]:
    """A pseudo-terminal: the program's end, and a function that waits for text on the screen.

    The function returns all text so far.
    """
    if sys.platform == "win32":
        pytest.skip("there are no pseudo-terminals")
    screen, program = os.openpty()
    text = ""

    def wait_for(expected: str) -> str:
        nonlocal text
        while expected not in text:
            ready, _, _ = select.select([screen], [], [], PATIENCE)
            assert ready, f"no {expected!r} in {text!r}"
            text += os.read(screen, 4096).decode()
        return text

    yield program, wait_for
    os.close(screen)
    os.close(program)


def _ffmpeg(*args: str) -> None:
    command = [require_tool("ffmpeg"), "-v", "error", "-y", *args]
    subprocess.run(command, check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make two seconds of video with ffmpeg: a file name and the encoder's options."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str, *options: str) -> Path:
        path = folder / name
        if not path.exists():
            picture = "testsrc2=size=320x240:rate=30:duration=2"
            _ffmpeg("-f", "lavfi", "-i", picture, "-pix_fmt", "yuvj420p", *options, str(path))
        return path

    return make


@pytest.fixture(scope="session")
def h264_clip(make_clip: Callable[..., Path]) -> Path:
    """60 pictures of two slices each."""
    encoder = ["-c:v", "libx264", "-preset", "ultrafast", "-x264-params", "slices=2"]
    return make_clip("slices.h264", *encoder, "-f", "h264")


@pytest.fixture(scope="session")
def mjpeg_clip(make_clip: Callable[..., Path]) -> Path:
    """60 JPEG images."""
    return make_clip("clip.mjpeg", "-f", "mjpeg")
