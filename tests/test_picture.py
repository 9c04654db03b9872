"""What a viewer sees of a marked stream: a picture at once, and never a damaged one."""

import hashlib
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path

import film
import pytest
from film import FPS, Message, Picture
from harness import RelayProcess, receive
from harness import send as signal
from live import Watcher, keep_time
from network import Link, hurried, hurry, network

AT_ONCE = 0.100
"""Seconds within which a viewer has a picture, on loopback."""

SLOW = Link("4mbit", congestion="cubic")
"""Half of what the film needs."""

GROUP = 30
"""Messages of a group, its configuration included."""

FRAME = struct.Struct(">8sI")
"""What an opaque message is, and its number."""


@pytest.fixture
def relay() -> Iterator[RelayProcess]:
    """A relay with the default settings that goes first."""
    with ExitStack() as stack:
        with hurried():
            relay = stack.enter_context(RelayProcess())
        yield relay


def watch(stack: ExitStack, relay: RelayProcess) -> Watcher:
    """Let a viewer that knows only the base protocol join."""
    with hurried():
        client = stack.enter_context(relay.connect("/ws/view/film"))
    return Watcher(client)


def received(watcher: Watcher) -> list[bytes]:
    """Return the binary messages that a viewer has."""
    return [message for _, message in list(watcher.frames)]


def digests(frames: Iterable[bytes]) -> list[str]:
    """Return what tells frames apart, short enough to be shown."""
    return [hashlib.sha256(data).hexdigest()[:8] for data in frames]


@pytest.mark.parametrize("quiet", [0, 2], ids=["moving", "still"])
def test_instant_picture(relay: RelayProcess, quiet: float, tmp_path: Path) -> None:
    """Who joins in the middle of a long group has all of it at once, also when nothing moves."""
    messages = list(chain.from_iterable(film.make("320x180", 10, 300, "800k")))
    expected = digests(message.data for message in messages)
    sent, rest = messages[:152], messages[152:]
    assert [message.mark for message in sent] == ["config", "keyframe"] + [""] * 150
    with ExitStack() as stack:
        streamer, _ = stack.enter_context(relay.stream("film"))
        first = watch(stack, relay)
        film.send(streamer, sent)
        first.wait_for_frames(len(sent))
        time.sleep(quiet)
        second = watch(stack, relay)
        second.wait_for_frames(len(sent))
        took = second.frames[-1][0] - second.asked
        print(f"{sum(len(m.data) for m in sent)} bytes of a group in {took * 1000:.1f} ms")
        assert digests(received(second)) == expected[: len(sent)]
        assert took < AT_ONCE
        film.send(streamer, rest)
        for watcher in (first, second):
            watcher.wait_for_frames(len(messages))
            assert digests(received(watcher)) == expected
    film.check_playable(b"".join(received(second)), tmp_path / "second.h264")


@pytest.mark.parametrize("group_buffer", ["2MiB", "0"])
@pytest.mark.parametrize("configs", ["before each group", "once"])
def test_join_while_frames_come(configs: str, group_buffer: str) -> None:
    """Who joins while frames keep coming gets configuration, keyframe and all after it, once.

    The keyframe is the last one, or the next where no group is kept.
    """
    stopping = threading.Event()
    with ExitStack() as stack:
        relay = stack.enter_context(RelayProcess("--group-buffer", group_buffer))
        streamer, _ = stack.enter_context(relay.stream("film"))
        pool = stack.enter_context(ThreadPoolExecutor(1))

        def send_frames() -> None:
            number = 0
            while not stopping.wait(0.001):
                mark = {0: "config", 1: "keyframe"}.get(number % GROUP, "")
                if configs == "once" and mark == "config" and number:
                    mark = ""
                data = FRAME.pack(mark.encode(), number).ljust(4000)
                film.send(streamer, [Message(mark, data)])
                number += 1

        sending = pool.submit(send_frames)
        stack.callback(stopping.set)
        for _ in range(4):
            with ExitStack() as viewers:
                watchers = [watch(viewers, relay) for _ in range(10)]
                for watcher in watchers:
                    watcher.wait_for_frames(3 * GROUP)
            for watcher in watchers:
                check_joined(watcher, configs)
        stopping.set()
        sending.result()


def check_joined(watcher: Watcher, configs: str) -> None:
    """Check that a viewer got what it needs to show a picture, then everything."""
    (config, before), (keyframe, began), *_ = frames = [
        (mark.rstrip(b"\0"), number) for mark, number in map(FRAME.unpack_from, received(watcher))
    ]
    assert (config, keyframe) == (b"config", b"keyframe")
    assert before == (0 if configs == "once" else began - 1)
    assert [number for _, number in frames[1:]] == list(range(began, began + len(frames) - 1))


def steady_film() -> list[Picture]:
    """Film for 6 seconds with a keyframe every second, a configuration before each."""
    return film.make("1280x720", 6, FPS, "8M")


def turning_film() -> list[Picture]:
    """Film so that the size changes every second; only then does a configuration come.

    There is a keyframe every half second: some configuration is lost in a skip, and needed later.
    """
    films = [film.make(size, 6, FPS // 2, "8M") for size in ("720x1280", "1280x720")]
    pictures = []
    for number in range(6 * FPS):
        picture = films[number // FPS % 2][number]
        pictures.append(picture[-1:] if number % FPS else picture)
    return pictures


@pytest.mark.parametrize("make_film", [steady_film, turning_film], ids=lambda make: make.__name__)
def test_clean_skips(make_film: Callable[[], list[Picture]], tmp_path: Path) -> None:
    """Who can't keep up is told what it lost, and plays the rest without a flaw."""
    pictures = make_film()
    sent = list(chain.from_iterable(pictures))
    with network() as net, ExitStack() as stack:
        relay = net.relay()
        streamer = stack.enter_context(net.add().connect(relay, "/ws/stream"))
        signal(streamer, type="register", stream_id="film")
        receive(streamer)
        client = stack.enter_context(net.add(SLOW).connect(relay, "/ws/view/film"))
        watcher = Watcher(client, features=["gaps"])
        with ThreadPoolExecutor(1, initializer=hurry) as pool:
            ticks = (partial(film.send, streamer, picture) for picture in pictures)
            pool.submit(keep_time, FPS, ticks).result()
        streamer.close()
        watcher.wait_for_end()
    (_, ending), *rest = reversed(watcher.texts)
    assert ending["type"] == "stream_ended"
    gaps = [(before, text["frames"]) for before, text in reversed(rest) if text["type"] == "gap"]
    assert len(gaps) == len(rest)
    frames = received(watcher)
    lost = sum(frames for _, frames in gaps)
    print(f"{len(sent)} messages sent, {len(frames)} received, {lost} lost in {len(gaps)} gaps")
    assert lost > 0
    kinds = {message.data: message.mark for message in sent}
    for before, _ in gaps:
        assert kinds[frames[before]] in ("config", "keyframe")
    # Those at the very end may have been lost without a frame after them to say so.
    assert len(frames) + lost == 1 + find_last(sent, frames)
    film.check_playable(b"".join(frames), tmp_path / "received.h264")


def find_last(sent: list[Message], frames: list[bytes]) -> int:
    """Return the place of the last frame received among those sent; all must be in order."""
    data = [message.data for message in sent]
    place = -1
    for frame in frames:
        place = data.index(frame, place + 1)
    return place
