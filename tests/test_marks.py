"""What marks make possible, against the real process: a new viewer sees a picture at once."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import RelayProcess
from rawclient import Message, RawClient

StartRelay = Callable[..., RelayProcess]

CONFIG, KEYFRAME = {"type": "config"}, {"type": "keyframe"}

END = b"the last frame"


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    """A relay on each event loop that keeps little of a group."""
    with RelayProcess("--group-buffer", "100KiB", loop=request.param) as relay:
        yield relay


@pytest.fixture
def streamer(relay: RelayProcess) -> Iterator[RawClient]:
    """The streamer of ``marked``."""
    with RawClient.streamer(relay, "marked") as streamer:
        yield streamer
        streamer.leave()


def send_all(relay: RelayProcess, streamer: RawClient, messages: list[Message | str]) -> None:
    """Send messages, and wait until they have passed the relay."""
    with RawClient.viewer(relay, "marked") as viewer:
        for message in messages:
            streamer.send(message)
        viewer.receive_until([message for message in messages if isinstance(message, bytes)][-1])


def joiner_gets(relay: RelayProcess, streamer: RawClient, more: list[Message]) -> list[Message]:
    """Let a viewer join, send more and at last a frame; return what it got before that frame."""
    with RawClient.viewer(relay, "marked") as viewer:
        for message in more:
            streamer.send(message)
        streamer.send(END)
        return viewer.receive_until(END)[:-1]


@pytest.mark.parametrize(
    ("messages", "picture"),
    [
        ([b"a", b"b"], []),
        ([KEYFRAME, b"k", b"a", b"b"], [b"k", b"a", b"b"]),
        ([CONFIG, b"c", KEYFRAME, b"k", b"a"], [b"c", b"k", b"a"]),
        ([b"a", KEYFRAME, b"k", b"b", KEYFRAME, b"l", b"c"], [b"l", b"c"]),
        ([CONFIG, b"c", KEYFRAME, b"k", CONFIG, b"d", KEYFRAME, b"l"], [b"d", b"l"]),
        ([CONFIG, b"c", KEYFRAME, b"k", KEYFRAME, b"l", b"a"], [b"c", b"l", b"a"]),
        ([CONFIG, KEYFRAME, b"ck", b"a"], [b"ck", b"a"]),
        ([KEYFRAME, KEYFRAME, b"k", b"a", b"b"], [b"k", b"a", b"b"]),
        ([KEYFRAME, "what?", b"k", b"a"], [b"k", b"a"]),
        ([KEYFRAME, b"", b"a"], [b"", b"a"]),
        ([CONFIG, b"c", b"a", b"b"], [b"c"]),
        ([CONFIG, CONFIG, b"c", KEYFRAME, b"k"], [b"c", b"k"]),
        ([CONFIG, b"c", KEYFRAME, b"k", KEYFRAME], [b"c", b"k"]),
        (['{"type": "keyframe", "pts": 7}', b"k", b"a"], [b"k", b"a"]),
        (["keyframe", '["keyframe"]', '{"type": "Keyframe"}', b"k", b"a"], []),
    ],
    ids=lambda messages: ",".join(
        m.decode() if isinstance(m, bytes) else m["type"] if isinstance(m, dict) else m
        for m in messages
    ),
)
def test_joiner(
    relay: RelayProcess, streamer: RawClient, messages: list[Message | str], picture: list[bytes]
) -> None:
    """A new viewer gets config, group and live frames; a mark is of the next frame and no other."""
    send_all(relay, streamer, messages)
    assert joiner_gets(relay, streamer, []) == picture


def test_still_picture(relay: RelayProcess, streamer: RawClient) -> None:
    """A new viewer sees a picture also when the streamer sends nothing more."""
    send_all(relay, streamer, [CONFIG, b"c", KEYFRAME, b"k", b"a"])
    for _ in range(2):
        with RawClient.viewer(relay, "marked") as viewer:
            assert [viewer.receive() for _ in range(3)] == [b"c", b"k", b"a"]


def test_all_get_all(relay: RelayProcess, streamer: RawClient) -> None:
    """To a viewer that was there before, a marked stream is like any other."""
    frames = [b"a", b"c", b"k", b"b", b"d", b"l", END]
    with RawClient.viewer(relay, "marked") as viewer:
        for frame in frames:
            if frame in (b"c", b"d"):
                streamer.send(CONFIG)
            if frame in (b"k", b"l"):
                streamer.send(KEYFRAME)
            streamer.send(frame)
        assert viewer.receive_until(END) == frames


def test_viewers_marks(relay: RelayProcess, streamer: RawClient) -> None:
    """Marks that a viewer sends mean nothing."""
    with RawClient.viewer(relay, "marked") as forger:
        forger.send(KEYFRAME)
        forger.send(b"forged")
        forger.send(KEYFRAME)
        forger.leave()
    relay.log.wait_for(rf"viewer marked {forger.address}: left .* 3 messages ignored")
    send_all(relay, streamer, [b"a", b"b"])
    assert joiner_gets(relay, streamer, []) == []


def test_ignored(relay: RelayProcess) -> None:
    """Text that is no mark is counted and ignored as ever; marks are not counted."""
    with RawClient.streamer(relay, "texts") as streamer:
        for message in (KEYFRAME, "hello", CONFIG, b"c", {"type": "register"}, KEYFRAME, b"k"):
            streamer.send(message)
        streamer.leave()
    relay.log.wait_for(rf"streamer texts {streamer.address}: left .*: 2 frames, .* 2 messages ign")
    assert len(relay.log.matching(rf"texts {streamer.address}: ignoring text")) == 1


def test_group_too_large(relay: RelayProcess, streamer: RawClient) -> None:
    """Of a group past GROUP_BUFFER nothing is kept: a joiner gets the next keyframe and its config.

    Who was there before misses nothing.
    """
    deltas = [bytes([n]) * 20_000 for n in range(6)]
    with RawClient.viewer(relay, "marked") as early:
        send_all(relay, streamer, [CONFIG, b"c", KEYFRAME, b"k", *deltas])
        got = joiner_gets(relay, streamer, [b"late", KEYFRAME, b"l", b"a"])
        assert got == [b"c", b"l", b"a"]
        everything = [b"c", b"k", *deltas, b"late", b"l", b"a", END]
        assert early.receive_until(END) == everything
    with RawClient.viewer(relay, "marked") as viewer:
        assert viewer.receive_until(END) == [b"c", b"l", b"a", END]


def test_new_config_for_joiner(relay: RelayProcess, streamer: RawClient) -> None:
    """A config that comes while a joiner waits for a keyframe is the one that it gets."""
    send_all(relay, streamer, [CONFIG, b"c", KEYFRAME, b"k", bytes(150_000)])
    got = joiner_gets(relay, streamer, [b"late", CONFIG, b"d", b"later", KEYFRAME, b"l"])
    assert got == [b"d", b"l"]


def test_no_group(start_relay: StartRelay) -> None:
    """With GROUP_BUFFER=0 every new viewer waits for a keyframe."""
    relay = start_relay(env={"GROUP_BUFFER": "0"})
    with RawClient.streamer(relay, "marked") as streamer:
        send_all(relay, streamer, [CONFIG, b"c", KEYFRAME, b"k", b"a"])
        assert joiner_gets(relay, streamer, [b"b", KEYFRAME, b"l"]) == [b"c", b"l"]


def test_join_while_frames_come(relay: RelayProcess) -> None:
    """Whenever a viewer joins, it gets the config, a keyframe, and every frame after that, once."""
    group, joiners, frames = 5, 40, 12

    def push() -> None:
        streamer.send(CONFIG)
        streamer.send(b"config")
        n = 0
        while not done.is_set():
            if n % group == 0:
                streamer.send(KEYFRAME)
            streamer.send(json.dumps(n).encode())
            n += 1
            # One frame at a time: no viewer falls behind.
            pacer.receive()

    with ExitStack() as stack:
        streamer = stack.enter_context(RawClient.streamer(relay, "running"))
        pacer = stack.enter_context(RawClient.viewer(relay, "running"))
        done = threading.Event()
        thread = threading.Thread(target=push)
        thread.start()
        stack.callback(thread.join)
        stack.callback(done.set)
        starts = set()
        for _ in range(joiners):
            with RawClient.viewer(relay, "running") as viewer:
                assert viewer.receive() == b"config"
                numbers = [json.loads(bytes(viewer.receive())) for _ in range(frames)]
            assert numbers[0] % group == 0
            assert numbers == list(range(numbers[0], numbers[0] + frames))
            starts.add(numbers[0])
        assert len(starts) > 5
