"""The hot path: frames, fan-out, one viewer's queue."""

import logging
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from relayd.relay import DropLog, FanOut, Viewer, binary_frame, text_frame


class FakeSink:
    """A connection whose kernel takes a number of messages and then refuses."""

    def __init__(self) -> None:
        self.viewer: Viewer | None = None
        self.broken = False
        self.room = 10**9
        self.taken: list[bytes] = []
        self.ends: list[int] = []
        self.is_closing = False

    def write(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("the handler is closed")
        assert self.room > 0, "written to although the kernel had refused"
        assert not self.ends, "written to after the close frame"
        self.taken.append(data)
        self.room -= 1
        if not self.room:
            assert self.viewer is not None
            self.viewer.pause()

    def closing(self) -> None:
        self.is_closing = True

    def end(self, code: int) -> None:
        self.ends.append(code)


def make_fan_out(buffer: int = 100) -> FanOut:
    """Return a stream's way out, without viewers."""
    return FanOut(buffer, DropLog("stream", lambda: 0.0))


def make_viewer(fan_out: FanOut) -> tuple[FakeSink, Viewer]:
    """Return a sink and the viewer that writes to it."""
    sink = FakeSink()
    sink.viewer = Viewer(sink, "peer", fan_out)
    return sink, sink.viewer


@given(st.binary(max_size=200) | st.sampled_from([65_535, 65_536, 100_000]).map(bytes))
def test_frames_as_the_library_reads_them(payload: bytes) -> None:
    """A client reads the payload back from the bytes of a frame."""
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(binary_frame(payload) + text_frame("é"))
    binary, text = client.events_received()
    assert (binary.opcode, binary.fin, binary.data) == (Opcode.BINARY, True, payload)
    assert (text.opcode, text.fin, text.data) == (Opcode.TEXT, True, "é".encode())


def test_fan_out() -> None:
    """Every viewer gets the same bytes object."""
    fan_out = make_fan_out()
    sinks = [make_viewer(fan_out)[0] for _ in range(3)]
    frame = binary_frame(b"payload")
    fan_out.push(frame)
    assert all(sink.taken == [frame] and sink.taken[0] is frame for sink in sinks)
    assert (fan_out.frames, fan_out.size) == (1, len(frame))


def test_broken_sink() -> None:
    """A viewer whose connection has broken costs the others nothing, and raises nothing."""
    fan_out = make_fan_out()
    broken, viewer = make_viewer(fan_out)
    sink, _ = make_viewer(fan_out)
    broken.broken = True
    fan_out.push(b"frame")
    viewer.end(b"last", 1000)
    assert sink.taken == [b"frame"]
    assert broken.taken == []


def test_oldest_dropped() -> None:
    """Past the buffer the oldest frames are dropped, and what is left goes out in order."""
    fan_out = make_fan_out(buffer=10)
    sink, viewer = make_viewer(fan_out)
    viewer.pause()
    for n in range(6):
        fan_out.push(bytes([n]) * 4)
    assert viewer.waiting_size == 8
    assert viewer.dropped == 4
    viewer.resume()
    assert sink.taken == [bytes([4]) * 4, bytes([5]) * 4]
    assert viewer.waiting_size == 0


def test_frame_larger_than_the_buffer() -> None:
    """One frame larger than the buffer may wait alone."""
    fan_out = make_fan_out(buffer=10)
    sink, viewer = make_viewer(fan_out)
    viewer.pause()
    fan_out.push(b"x" * 5)
    fan_out.push(b"y" * 11)
    assert viewer.dropped == 1
    viewer.resume()
    assert sink.taken == [b"y" * 11]


def test_slow_viewer_alone_suffers() -> None:
    """A viewer whose kernel fills up with a frame gets it once, and the others get all."""
    fan_out = make_fan_out()
    slow, viewer = make_viewer(fan_out)
    fast, _ = make_viewer(fan_out)
    slow.room = 1
    for frame in (b"one", b"two", b"three"):
        fan_out.push(frame)
    assert slow.taken == [b"one"]
    assert fast.taken == [b"one", b"two", b"three"]
    slow.room = 5
    viewer.resume()
    fan_out.push(b"four")
    assert slow.taken == fast.taken == [b"one", b"two", b"three", b"four"]


def test_end() -> None:
    """The last message comes after all that waits, then the close frame, and no frame after it."""
    fan_out = make_fan_out()
    sink, viewer = make_viewer(fan_out)
    viewer.pause()
    fan_out.push(b"frame")
    viewer.end(b"last", 1000)
    fan_out.push(b"too late")
    assert sink.is_closing
    assert not sink.ends
    sink.room = 1
    viewer.resume()
    assert (sink.taken, sink.ends) == ([b"frame"], [])
    sink.room = 1
    viewer.resume()
    assert (sink.taken, sink.ends) == ([b"frame", b"last"], [])
    sink.room = 1
    viewer.resume()
    assert sink.ends == [1000]


def test_end_that_fills_the_kernel() -> None:
    """The close frame waits when the last message is what the kernel refuses."""
    sink, viewer = make_viewer(make_fan_out())
    sink.room = 1
    viewer.end(b"last", 1000)
    assert (sink.taken, sink.ends) == ([b"last"], [])
    viewer.resume()
    assert (sink.taken, sink.ends) == ([b"last"], [1000])


def test_closed() -> None:
    """A closed viewer lets go of what waits and sends nothing more."""
    fan_out = make_fan_out()
    sink, viewer = make_viewer(fan_out)
    viewer.pause()
    fan_out.push(b"frame")
    viewer.close()
    assert viewer.waiting_size == 0
    viewer.pause()
    viewer.resume()
    fan_out.push(b"frame")
    viewer.end(b"last", 1000)
    assert (sink.taken, sink.ends) == ([], [])


def test_drop_log(caplog: pytest.LogCaptureFixture) -> None:
    """Drops are logged at most once a second, and name the viewers that lost most."""
    now = 0.0
    drop_log = DropLog("k3J9xQ2b", lambda: now)
    with caplog.at_level(logging.WARNING):
        drop_log.add("a", 2)
        for tenth in range(9):
            now = tenth / 10
            for peer, frames in (("a", 1), ("b", 3), ("c", 2), ("d", 5)):
                drop_log.add(peer, frames)
        now = 1.0
        drop_log.add("a", 1)
    assert [record.getMessage() for record in caplog.records] == [
        "dropped 2 frames of slow viewers: 2 for a",
        "dropped 100 frames of slow viewers: 45 for d, 27 for b, 18 for c and 1 more",
    ]
    assert vars(caplog.records[0])["stream"] == "k3J9xQ2b"


class ViewerMachine(RuleBasedStateMachine):
    """A viewer against a model, whatever the order of frames and of the kernel's moods."""

    BUFFER = 50

    def __init__(self) -> None:
        super().__init__()
        self.fan_out = make_fan_out(self.BUFFER)
        self.sink, self.viewer = make_viewer(self.fan_out)
        self.waiting: deque[bytes] = deque()
        self.expected: list[bytes] = []
        self.sent = 0

    @rule(size=st.integers(1, 70))
    def send(self, size: int) -> None:
        """Send a frame that no other equals."""
        self.sent += 1
        frame = self.sent.to_bytes(4) + bytes(size)
        if self.sink.room:
            self.expected.append(frame)
        else:
            self.waiting.append(frame)
            while sum(map(len, self.waiting)) > self.BUFFER and len(self.waiting) > 1:
                self.waiting.popleft()
        self.fan_out.push(frame)

    @rule(room=st.integers(1, 3))
    def refuse_after(self, room: int) -> None:
        """Let the kernel take a few more messages only."""
        if self.sink.room:
            self.sink.room = room

    @precondition(lambda self: not self.sink.room)
    @rule(room=st.integers(1, 3))
    def take(self, room: int) -> None:
        """Let the kernel take messages again."""
        self.sink.room = room
        while self.waiting and room:
            self.expected.append(self.waiting.popleft())
            room -= 1
        self.viewer.resume()

    @invariant()
    def same_as_model(self) -> None:
        """Whole frames, in order, the newest kept, within the buffer, all accounted for."""
        assert self.sink.taken == self.expected
        assert self.viewer.waiting_size == sum(map(len, self.waiting))
        assert self.viewer.waiting_size <= self.BUFFER or len(self.waiting) == 1
        assert self.sent == len(self.expected) + len(self.waiting) + self.viewer.dropped


TestViewerMachine = ViewerMachine.TestCase
TestViewerMachine.settings = settings(max_examples=50, stateful_step_count=30)
