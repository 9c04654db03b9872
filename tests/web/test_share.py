"""The share page: what it captures, and what of that is on the wire."""

import time
from collections.abc import Callable

import pytest
from browser import wait_until
from harness import RelayProcess, receive
from sharing import GREEN, RED, STILL, OpenShare, decode, frames_of, take, take_key, watch

from relayd.ctl import h264

PROMPT = 0.5
"""Seconds within which a viewer has a picture."""

WITHOUT = {
    "H.264": """
        const isConfigSupported = VideoEncoder.isConfigSupported;
        VideoEncoder.isConfigSupported = async (config) => config.codec.startsWith("avc")
          ? { supported: false, config } : isConfigSupported.call(VideoEncoder, config);
    """,
    "video encoders": "VideoEncoder.isConfigSupported = async () => ({ supported: false });",
    "WebCodecs": """
        for (const name of ["VideoEncoder", "VideoFrame", "MediaStreamTrackProcessor"]) {
          delete window[name];
        }
    """,
    "a track processor": "delete window.MediaStreamTrackProcessor;",
}

BREAKABLE = """
    const Encoder = window.VideoEncoder;
    window.VideoEncoder = class extends Encoder {
      constructor(init) {
        super(init);
        window.breakEncoder = (name) => {
          this.close();
          init.error(new DOMException("broken", name));
        };
      }
    };
"""
"""`breakEncoder` breaks the encoder that was made last."""

BROKEN_H264 = (
    BREAKABLE
    + """
    const { configure } = Encoder.prototype;
    Encoder.prototype.configure = function (config) {
      configure.call(this, config);
      if (config.codec.startsWith("avc")) {
        queueMicrotask(() => breakEncoder("EncodingError"));
      }
    };
"""
)

COUNTED = """
    window.encodes = 0;
    window.bitrates = [];
    const { encode, configure } = VideoEncoder.prototype;
    VideoEncoder.prototype.encode = function (...args) {
      window.encodes += 1;
      return encode.apply(this, args);
    };
    VideoEncoder.prototype.configure = function (config) {
      window.bitrates.push(config.bitrate);
      return configure.call(this, config);
    };
"""
"""Counts `encodes`, and keeps the `bitrates` of configurations."""

LOSES_FIRST = """
    let isAsked = false;
    const { clone } = MediaStreamTrack.prototype;
    MediaStreamTrack.prototype.clone = function () {
      isAsked = true;
      return clone.call(this);
    };
    const { read } = ReadableStreamDefaultReader.prototype;
    ReadableStreamDefaultReader.prototype.read = async function () {
      for (;;) {
        const result = await read.call(this);
        if (isAsked || result.done) {
          return result;
        }
        result.value.close();
      }
    };
"""
"""Gives no picture until it is asked for one by another use of the track."""

BACKLOG = """
    Object.defineProperty(WebSocket.prototype, "bufferedAmount", {
      get: () => window.backlog ?? 0,
    });
"""
"""Lets the test say how many bytes, a `backlog`, wait for the network."""


NOISE = """
<!doctype html><title>Source</title><style>body { margin: 0 }</style>
<canvas width="1280" height="720"></canvas>
<script>
  const context = document.querySelector("canvas").getContext("2d");
  const image = context.createImageData(1280, 720);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = Math.random() * 2 ** 32 | 255 << 24;
  (function draw() {
    context.putImageData(image, -(Math.random() * 99 | 0), 0);
    requestAnimationFrame(draw);
  })();
</script>
"""
"""A tab that no encoder makes small."""


def test_a_shared_tab_arrives_as_h264(relay: RelayProcess, open_share: OpenShare) -> None:
    """A shared tab arrives as H.264 with its format and real pixels, each frame with its time."""
    share = open_share(relay, shows=STILL.format(RED), size=(641, 361))
    share.start()
    with watch(relay, share.id) as (viewer, video_format):
        assert video_format == {"codec": "avc1.42E01F", "width": 640, "height": 360}
        frames = take(viewer, 2)
        share.show(STILL.format(GREEN))
        frames += take(viewer, 3)
        share.wait_for_words("Live")
        wait_until(share.page, "document.getElementById('viewers').textContent === '1'")
    pictures = decode(frames)
    assert pictures.size == (640, 360)
    assert len(pictures.pixels) == 5
    pictures.check(0, RED)
    pictures.check(-1, GREEN)
    assert frames[0].is_key
    for frame in frames:
        assert abs(frame.captured - frame.at) < 1


def test_a_late_viewer_begins_with_a_keyframe(relay: RelayProcess, open_share: OpenShare) -> None:
    """Keyframes are marked, and about 3 s apart: the relay has a group for a viewer that joins."""
    share = open_share(relay)
    share.start()
    with relay.view(share.id, close_timeout=0.1) as first:
        keys = [take_key(first), take_key(first)]
        assert keys[1].captured - keys[0].captured < 3.5
        with watch(relay, share.id) as (second, _):
            frames = take(second, 30)
    assert frames[0].is_key
    assert len(decode(frames).pixels) == 30


@pytest.mark.parametrize("missing", ["video encoders", "WebCodecs"])
def test_jpeg_where_there_is_no_video_encoder(
    relay: RelayProcess, open_share: OpenShare, missing: str
) -> None:
    """Without a video encoder a screen arrives as JPEG images, each with its time."""
    share = open_share(relay, WITHOUT[missing], STILL.format(RED))
    share.start()
    with watch(relay, share.id) as (viewer, video_format):
        assert video_format == {"codec": "jpeg", "width": 640, "height": 360}
        (frame,) = take(viewer, 1)
    assert abs(frame.captured - frame.at) < 1
    pictures = decode([frame], "mjpeg")
    assert pictures.size == (640, 360)
    pictures.check(0, RED)


def test_jpeg_keeps_to_the_bitrate(relay: RelayProcess, open_share: OpenShare) -> None:
    """JPEG images are left out where they would take more than the bitrate."""
    share = open_share(relay, WITHOUT["video encoders"], NOISE, size=(1280, 720))
    share.start()
    bitrate = 1280 * 720 * 30 * 0.5 / 2  # half of the largest, to begin with
    with watch(relay, share.id) as (viewer, _):
        frames = take(viewer, 20)
    size = sum(len(frame.data) for frame in frames[1:])
    assert 8 * size / (frames[-1].at - frames[0].at) < 1.2 * bitrate


def test_vp8_where_there_is_no_h264(relay: RelayProcess, open_share: OpenShare) -> None:
    """Without a H.264 encoder a screen arrives as VP8."""
    share = open_share(relay, WITHOUT["H.264"])
    share.start()
    with watch(relay, share.id) as (viewer, video_format):
        assert video_format == {"codec": "vp8", "width": 640, "height": 360}
        frames = take(viewer, 30)
    pictures = decode(frames, "ivf", (640, 360))
    assert pictures.size == (640, 360)
    assert len(pictures.pixels) == 30


def test_an_encoder_that_never_works(relay: RelayProcess, open_share: OpenShare) -> None:
    """Where the H.264 encoder turns out to be broken, viewers get VP8 and are told its format."""
    share = open_share(relay, BROKEN_H264)
    share.start()
    with watch(relay, share.id) as (viewer, video_format):
        assert video_format["codec"] == "avc1.42E01F"
        assert receive(viewer) == {"type": "stream_paused"}
        assert receive(viewer)["format"]["codec"] == "vp8"
        frames = take(viewer, 10)
    assert len(decode(frames, "ivf", (640, 360)).pixels) == 10


def test_an_encoder_that_is_taken_away(relay: RelayProcess, open_share: OpenShare) -> None:
    """When the browser takes an encoder away, another one of its kind goes on with a keyframe."""
    share = open_share(relay, BREAKABLE, STILL.format(RED))
    share.start()
    with watch(relay, share.id) as (viewer, _):
        take(viewer, 5)
        share.page.evaluate("breakEncoder('QuotaExceededError')")
        (frame,) = take(viewer, 1)
        assert frame.is_key
    decode([frame]).check(0, RED)


def test_a_browser_without_a_track_processor(relay: RelayProcess, open_share: OpenShare) -> None:
    """Where a track gives no frames, the preview does, and the page says that it must be seen."""
    share = open_share(relay, WITHOUT["a track processor"])
    assert "keep it in front" in share.page.inner_text("#hint")
    share.start("A camera")
    with watch(relay, share.id) as (viewer, _):
        frames = take(viewer, 30)
    assert len(decode(frames).pixels) == 30
    assert frames[-1].at - frames[0].at < 3


def test_nothing_is_encoded_for_nobody(relay: RelayProcess, open_share: OpenShare) -> None:
    """Without viewers nothing is encoded; the next one gets what is there now, and nothing old."""
    share = open_share(relay, COUNTED, STILL.format(RED))
    share.start()
    share.wait_for_words("Nobody watches")
    assert share.page.evaluate("encodes") == 0
    with watch(relay, share.id) as (viewer, _):
        take_key(viewer)
        share.wait_for_words("Whoever has the link")
    share.wait_for_words("Nobody watches")
    encodes = share.page.evaluate("encodes")
    share.show(STILL.format(GREEN))
    share.page.evaluate(
        "window.preview = new OffscreenCanvas(9, 9).getContext('2d', {willReadFrequently: true})"
    )
    draw = "preview.drawImage(document.querySelector('video'), 0, 0, 9, 9)"
    wait_until(share.page, f"({draw}, preview.getImageData(5, 5, 1, 1).data[1] > 100)")  # green
    assert share.page.evaluate("encodes") == encodes

    joined_at = time.time()
    with watch(relay, share.id) as (viewer, _):
        (frame,) = take(viewer, 1)
    assert frame.at - joined_at < PROMPT
    assert frame.captured >= joined_at - 0.05
    decode([frame]).check(0, GREEN)


@pytest.mark.parametrize("group", ["0", "2MiB"], ids=["on request", "from the group"])
def test_a_static_screen(
    start_relay: Callable[..., RelayProcess], open_share: OpenShare, group: str
) -> None:
    """On a static screen a late viewer has a picture at once, from the relay or made for it."""
    relay = start_relay("--group-buffer", group)
    share = open_share(relay, shows=STILL.format(RED))
    share.start()
    with watch(relay, share.id) as (first, _):
        take(first, 5)  # a static screen is sent again until it is sharp
        asked_at = time.time()
        with watch(relay, share.id) as (second, _):
            (frame,) = take(second, 1)
    assert frame.at - asked_at < PROMPT
    assert frame.is_key
    decode([frame]).check(0, RED)


def test_a_first_picture_that_is_lost(relay: RelayProcess, open_share: OpenShare) -> None:
    """Chromium may lose the only picture of what stands still; it is asked for another."""
    share = open_share(relay, LOSES_FIRST, STILL.format(RED))
    share.start()
    with watch(relay, share.id) as (viewer, _):
        frame = take_key(viewer)
    decode([frame]).check(0, RED)


def test_a_last_picture_is_never_left_out(relay: RelayProcess, open_share: OpenShare) -> None:
    """A change that comes while the network takes nothing is sent when it takes something again."""
    share = open_share(relay, COUNTED + BACKLOG, STILL.format(RED))
    share.start()
    with watch(relay, share.id) as (viewer, _):
        frames = take(viewer, 5)
        share.page.evaluate("window.backlog = 2e6")
        encodes = share.page.evaluate("encodes")
        share.show(STILL.format(GREEN))
        share.source.screenshot()
        assert share.page.evaluate("encodes") == encodes
        share.page.evaluate("window.backlog = 0")
        frames += take(viewer, 2)
    decode(frames).check(-1, GREEN)


@pytest.mark.parametrize(
    ("viewport", "size"), [((2560, 1440), (1920, 1080)), ((1200, 1000), (1200, 1000))]
)
def test_large_screens(
    relay: RelayProcess,
    open_share: OpenShare,
    viewport: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """A screen larger than 1080p is scaled down; the level fits the size."""
    share = open_share(relay, shows=STILL.format(RED), size=viewport)
    share.start()
    with watch(relay, share.id) as (viewer, video_format):
        frame = take_key(viewer)
    assert video_format == {"codec": "avc1.42E028", "width": size[0], "height": size[1]}
    assert decode([frame]).size == size


def test_a_window_that_is_resized(relay: RelayProcess, open_share: OpenShare) -> None:
    """When the size changes, a keyframe has the new one, in its SPS too."""
    share = open_share(relay)
    share.start()
    with watch(relay, share.id) as (viewer, _):
        assert h264.describe(take_key(viewer).data)["width"] == 640
        share.source.set_viewport_size({"width": 300, "height": 500})
        keys = (frame for frame in frames_of(viewer) if frame.is_key)
        assert next(key for key in keys if decode([key]).size == (300, 500))


def test_another_camera(relay: RelayProcess, open_share: OpenShare) -> None:
    """A camera can be changed for another one while the stream goes on."""
    share = open_share(relay)
    share.start("A camera")
    device = "document.querySelector('video').srcObject.getVideoTracks()[0].getSettings().deviceId"
    first = share.page.evaluate(device)
    with watch(relay, share.id) as (viewer, _):
        take(viewer, 5)
        share.press("Other camera")
        wait_until(share.page, f"{device} !== '{first}'")
        changed_at = time.time()
        assert next(frame for frame in frames_of(viewer) if frame.captured > changed_at)


def test_bitrate_follows_the_viewers(relay: RelayProcess, open_share: OpenShare) -> None:
    """The bitrate goes down for a viewer that falls behind, and up again when it has left."""
    share = open_share(relay, COUNTED, size=(1280, 720))
    share.start()
    with watch(relay, share.id) as (viewer, _):
        with relay.view(share.id, max_queue=1, close_timeout=0.1):  # reads nothing
            for _ in frames_of(viewer):
                if len(bitrates := share.page.evaluate("bitrates")) > 1:
                    break
            assert bitrates[1] < 0.9 * bitrates[0]
        for _ in frames_of(viewer):
            if (bitrates := share.page.evaluate("bitrates"))[-1] > bitrates[-2]:
                break
