"""H.264 video as an app sends it: made by ffmpeg, cut into messages, and checked by decoding it."""

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness import require_tool
from websockets.sync.client import ClientConnection

FPS = 30

# NAL unit types, ITU-T H.264 table 7-1.
_IDR, _SEI, _PARAMETERS = 5, 6, (7, 8)

_START_CODE = rb"(?=\x00\x00\x00\x01|(?<!\x00)\x00\x00\x01)"


@dataclass(frozen=True)
class Message:
    """A binary message of a streamer.

    Attributes:
        mark: The type of the text message that goes before it; empty: none does.
        data: Its bytes.
    """

    mark: str
    data: bytes


Picture = list[Message]
"""The messages that belong to one picture: its configuration, if there is one, and the picture."""


def make(size: str, seconds: int, group: int, bitrate: str) -> list[Picture]:
    """Film a moving test picture with noise, in groups of so many pictures of two slices each."""
    source = f"testsrc2=size={size}:rate={FPS}:duration={seconds},noise=alls=12:allf=t"
    rate = f"-b:v {bitrate} -maxrate {bitrate} -bufsize {bitrate}"
    coding = f"slices=2:keyint={group}:min-keyint={group}:scenecut=0"
    options = f"-c:v libx264 -preset ultrafast -pix_fmt yuv420p {rate} -x264-params {coding}"
    command = f"-v error -f lavfi -i {source} {options} -f h264 -"
    made = subprocess.run(
        [require_tool("ffmpeg"), *command.split()], capture_output=True, check=True
    )
    pictures = cut(made.stdout)
    assert len(pictures) == seconds * FPS
    assert b"".join(message.data for picture in pictures for message in picture) == made.stdout
    return pictures


def cut(stream: bytes) -> list[Picture]:
    """Cut a byte stream (ITU-T H.264 annex B) of x264 into pictures."""
    pictures: list[Picture] = []
    parameters = prefix = b""
    for unit in re.split(_START_CODE, stream)[1:]:
        payload = unit.index(1) + 1
        kind = unit[payload] & 0x1F
        if kind in _PARAMETERS:
            parameters += unit
        elif kind == _SEI:
            prefix += unit
        elif unit[payload + 1] & 0x80:  # first_mb_in_slice is 0: a picture begins
            config = [Message("config", parameters)] if parameters else []
            mark = "keyframe" if kind == _IDR else ""
            pictures.append([*config, Message(mark, prefix + unit)])
            parameters = prefix = b""
        else:
            begun = pictures[-1].pop()
            pictures[-1].append(Message(begun.mark, begun.data + unit))
    return pictures


def send(streamer: ClientConnection, messages: Iterable[Message]) -> None:
    """Send messages, each after its mark."""
    for message in messages:
        if message.mark:
            streamer.send(json.dumps({"type": message.mark}))
        streamer.send(message.data)


def check_playable(stream: bytes, path: Path) -> None:
    """Decode a byte stream by way of a file; the decoder must have nothing to complain about."""
    path.write_bytes(stream)
    command = f"-v error -xerror -f h264 -i {path} -f null -"
    played = subprocess.run(
        [require_tool("ffmpeg"), *command.split()], capture_output=True, text=True
    )
    assert (played.stderr, played.returncode) == ("", 0)
