"""Real video through clients that are not of this project: aiohttp, Node's ws, Chromium."""

import asyncio
import base64
import hashlib
import json
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aiohttp
import pytest
from harness import (
    PATIENCE,
    RelayProcess,
    install_with_npm,
    open_chromium,
    require_tool,
    skip_or_fail,
)

T = TypeVar("T")

FRAMES = 300
"""Ten seconds of video."""

VIEWER_BUFFER = 4 * 2**20
"""What the relay keeps for a viewer by default: a film smaller than this is never thinned out,
however fast it is sent."""

SOURCE = "-f lavfi -i testsrc2=size=320x180:rate=30:duration=10"

ENCODERS = {
    "h264": "libx264 -profile:v baseline -pix_fmt yuv420p -g 30 -x264-params slices=1:aud=1",
    "mjpeg": "mjpeg -pix_fmt yuvj420p",
}

FRAME_STARTS = {
    "h264": rb"(?=\x00\x00\x00\x01\x09)",  # access unit delimiter
    "mjpeg": rb"(?<=\xff\xd9)(?=\xff\xd8\xff)",  # end of image, start of image
}

SCRIPT = Path(__file__).parent / "assets" / "clients.js"

NODE_PROGRAM = """
globalThis.WebSocket = require("ws").WebSocket;
{script}
const {{ scene, job }} = JSON.parse(require("fs").readFileSync(0));
const scenes = {{ relayVideo, watch }};
scenes[scene](job).then((seen) => console.log(JSON.stringify(seen)));
"""


@dataclass(frozen=True)
class Video:
    """A film, as ffmpeg made it.

    Attributes:
        format: What ffmpeg calls it.
        frames: Its pictures, in order.
    """

    format: str
    frames: list[bytes]


@dataclass
class Seen:
    """What a viewer received.

    Attributes:
        frames: The binary messages.
        texts: The text messages, each with the number of frames before it.
        close_code: How the server closed, as the library reports it.
    """

    frames: list[bytes] = field(default_factory=list)
    texts: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    close_code: int | None = None


class Client(Protocol):
    """A WebSocket library that plays the scenes."""

    def relay_video(self, url: str, stream_id: str, frames: list[bytes]) -> list[Seen]:
        """Publish frames; return what two viewers saw that joined first."""

    def watch(self, url: str, stream_id: str) -> Seen:
        """Ask for a stream; return what the viewer saw."""


class Aiohttp:
    """Python's aiohttp."""

    def relay_video(self, url: str, stream_id: str, frames: list[bytes]) -> list[Seen]:
        async def scene(session: aiohttp.ClientSession) -> list[Seen]:
            async with session.ws_connect(f"{url}/ws/stream") as streamer:
                await streamer.send_json({"type": "register", "stream_id": stream_id})
                assert (await streamer.receive_json())["type"] == "registered"
                viewers = [await self._join(session, url, stream_id) for _ in range(2)]
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._read(*viewer)) for viewer in viewers]
                    for frame in frames:
                        await streamer.send_bytes(frame)
                    await streamer.close()
            return [task.result() for task in tasks]

        return self._play(scene)

    def watch(self, url: str, stream_id: str) -> Seen:
        async def scene(session: aiohttp.ClientSession) -> Seen:
            return await self._read(*await self._join(session, url, stream_id))

        return self._play(scene)

    def _play(self, scene: Callable[[aiohttp.ClientSession], Awaitable[T]]) -> T:
        async def play() -> T:
            async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
                return await scene(session)

        return asyncio.run(play())

    async def _join(
        self, session: aiohttp.ClientSession, url: str, stream_id: str
    ) -> tuple[aiohttp.ClientWebSocketResponse, Seen]:
        viewer = await session.ws_connect(f"{url}/ws/view/{stream_id}")
        await viewer.send_json({"type": "subscribe", "stream_id": stream_id})
        return viewer, Seen(texts=[(0, await viewer.receive_json())])

    async def _read(self, viewer: aiohttp.ClientWebSocketResponse, seen: Seen) -> Seen:
        async for message in viewer:
            if message.type is aiohttp.WSMsgType.BINARY:
                seen.frames.append(message.data)
            else:
                seen.texts.append((len(seen.frames), message.json()))
        seen.close_code = viewer.close_code
        return seen


class JavaScript:
    """A WebSocket that runs assets/clients.js.

    Args:
        play: Calls a function of the script.
    """

    def __init__(self, play: Callable[[str, dict[str, Any]], list[dict[str, Any]]]) -> None:
        self._play = play

    def relay_video(self, url: str, stream_id: str, frames: list[bytes]) -> list[Seen]:
        encoded = [base64.b64encode(frame).decode() for frame in frames]
        return self._seen("relayVideo", url=url, streamId=stream_id, frames=encoded)

    def watch(self, url: str, stream_id: str) -> Seen:
        (seen,) = self._seen("watch", url=url, streamId=stream_id)
        return seen

    def _seen(self, scene: str, **job: Any) -> list[Seen]:
        return [
            Seen(
                frames=[base64.b64decode(frame) for frame in seen["frames"]],
                texts=[(before, message) for before, message in seen["texts"]],
                close_code=seen["close_code"],
            )
            for seen in self._play(scene, job | {"seconds": PATIENCE})
        ]


@contextmanager
def python_aiohttp(folder: Path) -> Iterator[Client]:
    """Python's aiohttp."""
    yield Aiohttp()


@contextmanager
def node_ws(folder: Path) -> Iterator[Client]:
    """The ws package of Node, installed in a folder of the test's own."""
    node = require_tool("node")
    install_with_npm("ws@8", folder)
    program = folder / "program.cjs"
    program.write_text(NODE_PROGRAM.format(script=SCRIPT.read_text()))

    def play(scene: str, job: dict[str, Any]) -> Any:
        run = subprocess.run(
            [node, str(program)],
            input=json.dumps({"scene": scene, "job": job}),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=2 * PATIENCE,
        )
        return json.loads(run.stdout)

    yield JavaScript(play)


@contextmanager
def chromium(folder: Path) -> Iterator[Client]:
    """Chromium's WebSocket, without a window."""
    with open_chromium() as browser:

        def play(scene: str, job: dict[str, Any]) -> Any:
            with browser.new_page() as page:
                page.add_script_tag(path=SCRIPT)
                return page.evaluate(f"job => {scene}(job)", job)

        yield JavaScript(play)


# Not wider than the module: while Playwright is up, its thread can run no other event loop.
@pytest.fixture(
    scope="module", params=[python_aiohttp, node_ws, chromium], ids=lambda make: make.__name__
)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """Each WebSocket library."""
    make: Callable[[Path], AbstractContextManager[Client]] = request.param
    with make(tmp_path_factory.mktemp("client")) as client:
        yield client


@pytest.fixture(scope="session", params=["h264", "mjpeg"])
def video(request: pytest.FixtureRequest) -> Video:
    """Ten seconds of a moving test picture, in each kind of video."""
    options = f"-v error {SOURCE} -c:v {ENCODERS[request.param]} -f {request.param} -"
    make = subprocess.run([require_tool("ffmpeg"), *options.split()], capture_output=True)
    if make.returncode:
        skip_or_fail(f"ffmpeg can't make {request.param}:\n{make.stderr.decode()}")
    assert len(make.stdout) < VIEWER_BUFFER
    frames = [frame for frame in re.split(FRAME_STARTS[request.param], make.stdout) if frame]
    assert len(frames) == FRAMES
    return Video(request.param, frames)


def probe(path: Path, video_format: str) -> str:
    """Let ffprobe decode a file; return its codec, size and number of frames."""
    entries = "-show_entries stream=codec_name,width,height,nb_read_frames"
    options = f"-v error -f {video_format} -count_frames {entries} -of csv=print_section=0"
    run = subprocess.run(
        [require_tool("ffprobe"), *options.split(), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    return run.stdout.strip()


def digest(frames: list[bytes]) -> str:
    """Return the SHA-256 of frames, one after the other."""
    return hashlib.sha256(b"".join(frames)).hexdigest()


def test_video(
    client: Client,
    video: Video,
    relay: RelayProcess,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Ten seconds of video arrive byte for byte at two viewers that joined first."""
    stream_id = request.node.callspec.id
    viewers = client.relay_video(relay.url, stream_id, video.frames)
    assert len(viewers) == 2
    for seen in viewers:
        assert [len(frame) for frame in seen.frames] == [len(frame) for frame in video.frames]
        assert digest(seen.frames) == digest(video.frames)
        assert seen.texts == [
            (0, {"type": "subscribed", "stream_id": stream_id}),
            (FRAMES, {"type": "stream_ended", "stream_id": stream_id}),
        ]
        assert seen.close_code == 1000
        received = tmp_path / "received"
        received.write_bytes(b"".join(seen.frames))
        assert probe(received, video.format) == f"{video.format},320,180,{FRAMES}"
    relay.log.wait_for(f"streamer {stream_id} .*: left after .*: {FRAMES} frames, ")
    relay.log.wait_for(f"viewer {stream_id} .*: ended after .*, 0 dropped, ", 2)


def test_refusal(client: Client, relay: RelayProcess) -> None:
    """A viewer of an unknown stream is told why, and the library reports the close code."""
    seen = client.watch(relay.url, "nobody")
    assert seen.texts == [(0, {"type": "error", "message": "stream not found"})]
    assert seen.close_code == 4404
    assert seen.frames == []
