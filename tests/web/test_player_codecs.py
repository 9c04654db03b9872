"""`<relayd-player>` and each kind of video: it shows the colours and the movement of the source."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clips
import pytest
from browser import picture, wait_for_state, wait_until
from clips import LARGE, TALL, WIDE, clip, formats, merged, unmarked
from film import Message
from harness import RelayProcess, open_chromium, require_tool
from watching import (
    PLAYER,
    check_colours,
    drawn,
    lose,
    numbers,
    push,
    recording,
    wait_for_picture,
    watch,
)

NAL = b"\x00\x00\x00\x01"

DELIMITER = NAL + b"\x09\xf0"
"""An access unit delimiter (ITU-T H.264 section 7.3.2.4)."""

CROPPED = (334, 186)
"""A size that is no multiple of 16, in pixels."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for the tests of this module."""
    with open_chromium() as browser, recording(browser) as context:
        yield context


@contextmanager
def watch_once(browser: Any, relay: RelayProcess, stream_id: str) -> Iterator[Any]:
    """Open the page of a stream; its player must do without joining anew to get a keyframe."""
    with watch(browser, relay, stream_id) as page:
        yield page
        assert page.evaluate("recorder.sockets.length") == 1


@pytest.fixture(scope="module")
def h265() -> bytes:
    """A keyframe in H.265, with its parameters."""
    source = "-f lavfi -i color=red:size=320x192:duration=1 -frames:v 1"
    coding = "-c:v libx265 -preset ultrafast -x265-params log-level=none -f hevc"
    command = [require_tool("ffmpeg"), *f"-v error {source} {coding} -".split()]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize("kind", clips.KINDS)
def test_with_format(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """A stream whose format the streamer gave is shown, from its first picture to its last."""
    pictures = clip(kind)
    with (
        relay.register(stream_id, format=formats(kind)) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, pictures[:3])
        wait_for_picture(page, 2)
        push(streamer, pictures[3:])
        wait_for_picture(page, 29)
        assert wait_for_state(page, "playing") == "Live."
        assert drawn(page)[-1].size == WIDE


@pytest.mark.parametrize("kind", [kind for kind in clips.KINDS if kind != "rgba"])
def test_without_format(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """A stream that says nothing of its format is known by its bytes; a late viewer sees it too."""
    pictures = clip(kind)
    with relay.stream(stream_id) as (streamer, _):
        push(streamer, pictures[:15])
        with watch_once(browser, relay, stream_id) as page:
            wait_for_picture(page, 14)
            push(streamer, pictures[15:])
            wait_for_picture(page, 29)


@pytest.mark.parametrize("is_marked", [True, False])
def test_parameters_in_the_keyframe(
    browser: Any, relay: RelayProcess, stream_id: str, is_marked: bool
) -> None:
    """H.264 with its parameters in the same message as each keyframe is shown, marked or not."""
    pictures = merged(clip("high"))
    if not is_marked:
        pictures = unmarked(pictures)
    with (
        relay.stream(stream_id) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, pictures)
        wait_for_picture(page, 29)


@pytest.mark.parametrize("is_marked", [True, False])
def test_parameters_only_once(
    browser: Any, relay: RelayProcess, stream_id: str, is_marked: bool
) -> None:
    """H.264 whose parameters come once, before the first keyframe, is shown from group to group."""
    first, *others = clip("baseline")
    pictures = [first, *([picture[-1]] for picture in others)]
    if not is_marked:
        pictures = unmarked(pictures)
    with relay.stream(stream_id) as (streamer, _), watch_once(browser, relay, stream_id) as page:
        wait_for_state(page, "waiting")
        push(streamer, pictures[:15])
        wait_for_picture(page, 14)
        if is_marked:  # the relay keeps them for who comes later
            with watch_once(browser, relay, stream_id) as late:
                wait_for_picture(late, 14)
        push(streamer, pictures[15:])
        wait_for_picture(page, 29)


def test_parameters_one_by_one(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """H.264 whose SPS and PPS come in messages of their own is shown, also with delimiters."""
    with (
        relay.stream(stream_id) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        for picture in unmarked(clip("high")):
            *parameters, whole = picture
            for message in parameters:
                sps, pps = message.data.split(NAL)[1:]
                push(streamer, [[Message("", NAL + sps), Message("", NAL + pps)]])
            push(streamer, [[Message("", DELIMITER + whole.data)]])
        wait_for_picture(page, 29)


@pytest.mark.parametrize("kind", ["baseline", "vp8", "vp9", "av1"])
def test_joined_amid_a_group(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """Of a stream without marks nothing is drawn before its next keyframe, and the words say so."""
    pictures = unmarked(clip(kind))
    with (
        relay.register(stream_id, format=formats(kind)) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        words = wait_for_state(page, "waiting")
        assert words.startswith("Waiting for the stream. The next whole picture is shown")
        push(streamer, pictures[5:10])
        assert numbers(page) == []
        push(streamer, pictures[10:])
        wait_for_picture(page, 29)
        assert numbers(page)[0] == 10


def test_b_frames(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """H.264 whose pictures come in another order than they are shown in is shown in order."""
    with (
        relay.stream(stream_id) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, clip("b-frames"))
        wait_for_picture(page, 27)  # the decoder keeps two, because they may not be the next ones
        assert numbers(page) == sorted(set(numbers(page)))


@pytest.mark.parametrize("kind", ["baseline", "jpeg", "vp8", "vp9", "av1"])
def test_rotation(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """A picture that is turned, grows or shrinks is whole; the player keeps its place."""
    with (
        relay.register(stream_id, format=formats(kind)) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        box = page.locator("relayd-player").bounding_box()
        push(streamer, clip(kind, 5))
        wait_for_picture(page, 4)
        for first, size in [(5, TALL), (10, LARGE), (15, WIDE)]:
            push(streamer, clip(kind, 5, first=first, size=size))
            wait_for_picture(page, first + 4)
            assert drawn(page)[-1].size == size
            assert page.locator("relayd-player").bounding_box() == box
        assert {draw.size for draw in drawn(page) if 5 <= draw.number < 10} == {TALL}
        wait_until(page, f"{PLAYER}.statistics.width === {WIDE[0]}")


@pytest.mark.parametrize("kinds", [("baseline", "jpeg"), ("jpeg", "vp8"), ("vp9", "rgba")])
def test_another_kind_after_resume(
    browser: Any, relay: RelayProcess, stream_id: str, kinds: tuple[str, str]
) -> None:
    """A streamer that comes back with another kind of video is shown."""
    before, after = kinds
    fields = {"features": ["resume"], "format": formats(before)}
    with (
        relay.register(stream_id, **fields) as (streamer, reply),
        watch_once(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, clip(before))
        wait_for_picture(page, 29)
        lose(streamer)
        wait_for_state(page, "paused")
        fields = {"resume_token": reply["resume_token"], "format": formats(after)}
        with relay.register(stream_id, **fields) as (again, _):
            wait_for_state(page, "waiting")
            push(again, clip(after, 10, first=40))
            wait_for_picture(page, 49)
            wait_for_state(page, "playing")


@pytest.mark.parametrize(
    ("codec", "kind"), [("avc1.42E01F", "jpeg"), ("jpeg", "vp8"), ("theora", "high"), (7, "png")]
)
def test_wrong_format(
    browser: Any, relay: RelayProcess, stream_id: str, codec: object, kind: str
) -> None:
    """What the bytes say counts more than a format that is wrong, unknown or nonsense."""
    with (
        relay.register(stream_id, format={"codec": codec, "width": "wide"}) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, clip(kind))
        wait_for_picture(page, 29)


@pytest.mark.parametrize("kind", ["baseline", "jpeg", "vp9", "av1"])
def test_odd_size(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """A picture that does not fill the last blocks of its codec is shown without their padding."""
    with relay.stream(stream_id) as (streamer, _), watch_once(browser, relay, stream_id) as page:
        wait_for_state(page, "waiting")
        push(streamer, clip(kind, 5, size=CROPPED))
        wait_for_picture(page, 4)
        assert drawn(page)[-1].size == CROPPED
        edges = picture(page, [(0.001, 0.001), (0.999, 0.001), (0.001, 0.999), (0.999, 0.999)])
        check_colours(edges)


@pytest.mark.parametrize("codec", ["hvc1.1.6.L93.B0", "avc1.42E01F", None])
def test_unsupported(
    browser: Any, relay: RelayProcess, stream_id: str, codec: str | None, h265: bytes
) -> None:
    """H.265, known by its format or by its bytes, is refused in words, once and for all."""
    with (
        relay.register(stream_id, format={"codec": codec}) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        if codec != "hvc1.1.6.L93.B0":
            wait_for_state(page, "waiting")
            streamer.send(h265)
        words = wait_for_state(page, "unsupported")
        assert words.startswith("Can't be shown here. This browser can't decode H.265.")
        relay.log.wait_for(f"viewer {stream_id} .*: left")
        assert page.evaluate("recorder.events.filter(([type]) => type === 'error').length") == 1


@pytest.mark.parametrize("codec", [None, "rgba", "jpeg", "avc1.42E01F", "vp8"])
def test_unknown(browser: Any, relay: RelayProcess, stream_id: str, codec: str | None) -> None:
    """Bytes that are no video leave no black box: the words stay."""
    noise = random.Random(str(codec))
    with (
        relay.register(stream_id, format={"codec": codec}) as (streamer, _),
        watch_once(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        for _ in range(20):
            streamer.send(b"\x00" + noise.randbytes(300))
        wait_until(page, f"{PLAYER}.statistics.bitrate > 0")  # it has them
        shown = page.locator("relayd-player").get_by_role("status")
        assert shown.inner_text().startswith("Waiting for the stream")
        assert shown.evaluate("(words) => getComputedStyle(words).opacity") == "1"
        assert numbers(page) == []


@pytest.mark.parametrize("kind", ["high", "slices", "jpeg"])
def test_relayctl(
    browser: Any, relay: RelayProcess, stream_id: str, kind: str, tmp_path: Path
) -> None:
    """A file that `relayctl publish` sends is shown."""
    path = tmp_path / "clip"
    path.write_bytes(b"".join(part.data for picture in clip(kind) for part in picture))
    options = f"--id {stream_id} --server {relay.url} --fps 30 --loop".split()
    command = [sys.executable, "-m", "relayd.ctl", "publish", str(path), *options]
    with (
        watch(browser, relay, stream_id) as page,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as publish,
    ):
        try:
            wait_for_state(page, "playing")
            wait_for_picture(page, 20)
            wait_until(page, "recorder.draws.length > 60")
            assert len(set(numbers(page)) & set(range(30))) > 20  # it moves
        finally:
            publish.terminate()
