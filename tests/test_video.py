"""Real video from `relayctl publish` to `relayctl watch`, through a real relay."""

import hashlib
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import PATIENCE, RelayProcess, require_tool

FRAMES = 300
"""Ten seconds of video."""

SPS = b"\0\0\1\x67"
"""What a parameter set begins with, of which x264 writes one before each IDR picture."""

ENCODERS = {
    # Two slices a picture: an access unit is more than one NAL unit.
    "h264": "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -x264-params slices=2",
    "mjpeg": "-c:v mjpeg -pix_fmt yuvj420p",
}

# As fast as a test may be, while two viewers on a small machine keep up.
FPS = "150"


def run(command: str, *arguments: str | Path) -> str:
    """Run a program to its end; return what it prints, which must hold no complaint."""
    program, *options = command.split()
    result = subprocess.run(
        [require_tool(program), *options, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize("video_format", ENCODERS)
def test_publish_to_watch(video_format: str, relay: RelayProcess, tmp_path: Path) -> None:
    """Ten seconds of video arrive byte for byte at two viewers that joined first, and play."""
    source = tmp_path / "source"
    picture = "testsrc2=size=320x240:rate=30:duration=10"
    encoder = f"{ENCODERS[video_format]} -f {video_format}"
    run(f"ffmpeg -v error -f lavfi -i {picture} {encoder}", source)
    relayctl = [sys.executable, "-m", "relayd.ctl"]
    with ExitStack() as stack:
        command = ["publish", "-", "--id", video_format, "--fps", FPS, "--server", relay.url]
        publish = stack.enter_context(
            subprocess.Popen([*relayctl, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert publish.stdin is not None
        relay.log.wait_for(f"streamer {video_format} .*: registered")
        outputs = [tmp_path / f"viewer-{n}" for n in range(2)]
        viewers = [
            stack.enter_context(
                subprocess.Popen(
                    [*relayctl, "watch", video_format, "-o", output, "--server", relay.url]
                )
            )
            for output in outputs
        ]
        relay.log.wait_for(f"viewer {video_format} .*: subscribed", 2)
        publish.stdin.write(source.read_bytes())
        publish.stdin.close()
        assert publish.wait(PATIENCE) == 0
        assert [viewer.wait(PATIENCE) for viewer in viewers] == [0, 0]
    configs = source.read_bytes().count(SPS) if video_format == "h264" else 0
    # To the relay a config is a frame like any other.
    relay.log.wait_for(f"streamer {video_format} .*: {FRAMES + configs} frames, ")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    probe = f"ffprobe -v error -f {video_format} -count_frames -of csv=p=0"
    for output in outputs:
        assert hashlib.sha256(output.read_bytes()).hexdigest() == digest
        entries = ("-show_entries", "stream=codec_name,nb_read_frames")
        assert run(probe, *entries, output).strip() == f"{video_format},{FRAMES}"
