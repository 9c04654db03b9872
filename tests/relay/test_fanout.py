"""The way out: fan-out, one viewer's state, and what both promise whatever happens."""

import json
from collections.abc import Iterable

from fakes import FakeClock, FakeSink
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from relayd.relay.droplog import DropLog
from relayd.relay.fanout import FanOut, Limits, Viewer
from relayd.relay.frames import text_frame
from relayd.relay.group import CONFIG_LIMIT, ENTRY_COST


class Requests:
    """Counts the requests for a keyframe."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def make_fan_out(
    clock: FakeClock | None = None, buffer: int = 10**6, requests: Requests | None = None
) -> FanOut:
    """Return a stream's way out, without viewers."""
    clock = clock or FakeClock()
    limits = Limits(max_lag=1.0, viewer_buffer=buffer, group_buffer=buffer)
    return FanOut(limits, DropLog("stream", clock.time), clock.time, requests or Requests())


def make_viewer(fan_out: FanOut, *, tells_gaps: bool = False) -> tuple[FakeSink, Viewer]:
    """Return a sink and the viewer that writes to it."""
    sink = FakeSink()
    viewer = Viewer(sink, "peer", fan_out, tells_gaps=tells_gaps)
    sink.attach(viewer)
    viewer.start()
    return sink, viewer


def push(fan_out: FanOut, names: str) -> None:
    """Push frames; one whose name begins with c, K or B is marked."""
    for name in names.split():
        for mark in {"c": ["config"], "K": ["keyframe"], "B": ["config", "keyframe"]}.get(
            name[0], []
        ):
            fan_out.mark(mark)
        fan_out.push(name.encode())


def taken(sink: FakeSink) -> str:
    """Return the names of the frames that a sink took."""
    return b" ".join(sink.taken).decode()


def test_fan_out() -> None:
    """Every viewer gets the same bytes object."""
    fan_out = make_fan_out()
    sinks = [make_viewer(fan_out)[0] for _ in range(3)]
    frame = b"frame"
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


def test_slow_viewer_alone_suffers() -> None:
    """A viewer whose kernel fills up with a frame gets it once, and the others get all."""
    fan_out = make_fan_out()
    slow, viewer = make_viewer(fan_out)
    fast, _ = make_viewer(fan_out)
    slow.room = 1
    push(fan_out, "one two three")
    assert taken(slow) == "one"
    assert taken(fast) == "one two three"
    slow.take(5)
    push(fan_out, "four")
    assert taken(slow) == taken(fast) == "one two three four"
    assert (viewer.received, viewer.delivered, viewer.dropped, viewer.waiting) == (4, 4, 0, 0)


def test_join_marked_stream() -> None:
    """A new viewer gets configuration and group at once, then live frames, nothing twice."""
    fan_out = make_fan_out()
    push(fan_out, "c K a b")
    sink, viewer = make_viewer(fan_out)
    push(fan_out, "d")
    assert taken(sink) == "c K a b d"
    assert (viewer.received, viewer.delivered) == (5, 5)


def test_join_while_the_kernel_fills() -> None:
    """What of the group the kernel does not take comes before the live frames."""
    fan_out = make_fan_out()
    push(fan_out, "c K a b")
    sink = FakeSink()
    viewer = Viewer(sink, "peer", fan_out)
    sink.attach(viewer)
    sink.room = 2
    viewer.start()
    push(fan_out, "d")
    assert taken(sink) == "c K"
    sink.take(10)
    push(fan_out, "e")
    assert taken(sink) == "c K a b d e"


def test_join_blocked() -> None:
    """A viewer whose kernel is full from the start gets all when it is not."""
    fan_out = make_fan_out()
    push(fan_out, "K a")
    sink = FakeSink()
    viewer = Viewer(sink, "peer", fan_out)
    sink.attach(viewer)
    viewer.pause()
    viewer.start()
    assert taken(sink) == ""
    sink.take(10)
    assert taken(sink) == "K a"


def test_join_without_group() -> None:
    """Where no group is kept, a new viewer waits for the next keyframe, which is asked for."""
    requests = Requests()
    fan_out = make_fan_out(buffer=0, requests=requests)
    push(fan_out, "c K a")
    sink, viewer = make_viewer(fan_out)
    assert requests.count == 1
    assert fan_out.needs_keyframe
    push(fan_out, "b")
    assert taken(sink) == ""
    push(fan_out, "K2 d")
    assert taken(sink) == "c K2 d"
    assert not fan_out.needs_keyframe
    assert (viewer.received, viewer.delivered, viewer.dropped) == (3, 3, 0)


def test_marks_describe_one_frame() -> None:
    """A mark is for the next frame only, however often it is repeated."""
    fan_out = make_fan_out()
    fan_out.mark("keyframe")
    fan_out.mark("keyframe")
    push(fan_out, "x a")
    assert taken(make_viewer(fan_out)[0]) == "x a"


def test_huge_config() -> None:
    """A configuration that can't be one is a frame like any other."""
    fan_out = make_fan_out()
    fan_out.mark("config")
    fan_out.push(bytes(CONFIG_LIMIT + 1))
    assert taken(make_viewer(fan_out)[0]) == ""


def test_skip_asks_for_a_keyframe() -> None:
    """A viewer that skips to the next keyframe has one asked for, and again once it is back."""
    clock, requests = FakeClock(), Requests()
    fan_out = make_fan_out(clock, requests=requests)
    sink, viewer = make_viewer(fan_out, tells_gaps=True)
    viewer.pause()
    push(fan_out, "K a")
    assert requests.count == 0
    clock.now = 2
    push(fan_out, "b")
    assert requests.count == 1
    assert viewer.needs_keyframe
    push(fan_out, "d")
    assert requests.count == 1
    sink.take(10)
    assert requests.count == 2
    push(fan_out, "d2")
    assert taken(sink) == ""
    push(fan_out, "K2 e")
    assert requests.count == 2
    assert sink.taken == [text_frame('{"type": "gap", "frames": 5}'), b"K2", b"e"]
    assert (viewer.received, viewer.delivered, viewer.dropped) == (7, 2, 5)


def test_await_keyframe() -> None:
    """After a resume nothing but configurations comes before the next keyframe."""
    requests = Requests()
    fan_out = make_fan_out(requests=requests)
    push(fan_out, "c K a")
    sink, viewer = make_viewer(fan_out)
    fan_out.mark("keyframe")  # the frame that it was for is lost
    fan_out.await_keyframe()
    assert requests.count == 1
    push(fan_out, "b c2 d")
    late, _ = make_viewer(fan_out)
    assert requests.count == 2, "the one that has come since needs a keyframe too"
    assert taken(late) == "c K a c2"
    push(fan_out, "K2 e")
    assert taken(sink) == "c K a c2 K2 e"
    assert taken(late) == "c K a c2 K2 e"
    assert (viewer.received, viewer.delivered) == (6, 6)


def test_unmarked_stream() -> None:
    """Where no keyframes are marked, nothing waits for one, but where one may help it is asked for.

    That is when a viewer joins, after a resume, and when frames were lost.
    """
    clock, requests = FakeClock(), Requests()
    fan_out = make_fan_out(clock, requests=requests)
    sink, viewer = make_viewer(fan_out)
    assert not fan_out.needs_keyframe, "the first frame is yet to come"
    push(fan_out, "a")
    assert (fan_out.needs_keyframe, requests.count) == (True, 0)
    make_viewer(fan_out)
    assert requests.count == 1
    fan_out.await_keyframe()
    assert requests.count == 2
    push(fan_out, "b")
    assert taken(sink) == "a b"
    viewer.pause()
    push(fan_out, "d")
    clock.now = 2
    push(fan_out, "e")
    assert requests.count == 3


def test_toll() -> None:
    """What slowness cost a viewer is told once."""
    clock = FakeClock()
    fan_out = make_fan_out(clock)
    sink, viewer = make_viewer(fan_out)
    sink.network_delay = 0.25
    viewer.pause()
    push(fan_out, "a b")
    clock.now = 0.5
    assert viewer.take_toll() == (0, 0.5)
    sink.take(1)
    assert viewer.take_toll() == (0, 0.75)
    clock.now = 2
    push(fan_out, "d")
    assert viewer.take_toll() == (1, 0.25)
    sink.take(10)
    viewer.take_toll()
    assert viewer.take_toll() == (0, 0.0)


def test_text() -> None:
    """Text goes out at once while the kernel takes it, after the frames that wait otherwise."""
    fan_out = make_fan_out()
    sink, viewer = make_viewer(fan_out)
    viewer.send(b"one")
    viewer.pause()
    push(fan_out, "a")
    viewer.send(b"two")
    assert viewer.waiting_text == 3
    sink.take(10)
    assert taken(sink) == "one a two"


def test_end() -> None:
    """The last message comes after all that waits, then the close frame, and no frame after it."""
    fan_out = make_fan_out()
    sink, viewer = make_viewer(fan_out)
    viewer.pause()
    push(fan_out, "frame")
    viewer.end(b"last", 1000)
    push(fan_out, "late")
    assert sink.is_closing
    assert not sink.ends
    sink.take(1)
    assert (taken(sink), sink.ends) == ("frame", [])
    sink.take(1)
    assert (taken(sink), sink.ends) == ("frame last", [])
    sink.take(1)
    assert sink.ends == [1000]


def test_end_that_fills_the_kernel() -> None:
    """The close frame waits when the last message is what the kernel refuses."""
    sink, viewer = make_viewer(make_fan_out())
    sink.room = 1
    viewer.end(b"last", 1000)
    assert (sink.taken, sink.ends) == ([b"last"], [])
    viewer.resume()
    assert (sink.taken, sink.ends) == ([b"last"], [1000])


def test_end_while_waiting_for_a_keyframe() -> None:
    """A viewer that has seen nothing yet is told of the end all the same."""
    fan_out = make_fan_out(buffer=0)
    push(fan_out, "K a")
    sink, viewer = make_viewer(fan_out)
    viewer.end(b"last", 1000)
    assert (sink.taken, sink.ends) == ([b"last"], [1000])


def test_closed() -> None:
    """A closed viewer lets go of what waits, which counts as dropped, and sends nothing more."""
    fan_out = make_fan_out()
    sink, viewer = make_viewer(fan_out)
    push(fan_out, "a")
    viewer.pause()
    push(fan_out, "b")
    viewer.close()
    viewer.close()
    viewer.pause()
    viewer.resume()
    push(fan_out, "d")
    viewer.send(b"text")
    viewer.end(b"last", 1000)
    assert (taken(sink), sink.ends) == ("a", [])
    assert (viewer.received, viewer.delivered, viewer.dropped) == (2, 1, 1)


def test_close_of_the_stream() -> None:
    """An ended stream keeps no frames and asks for none."""
    requests = Requests()
    fan_out = make_fan_out(requests=requests)
    push(fan_out, "K a")
    fan_out.close()
    assert fan_out.group.replay() == []
    fan_out.request_keyframe()
    assert requests.count == 0


class ViewerMachine(RuleBasedStateMachine):
    """What PROTOCOL.md section 4 promises, whatever the order of frames and the kernel's moods."""

    MAX_LAG = 1.0
    BUFFER = 4 * (ENTRY_COST + 100)

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.fan_out = make_fan_out(self.clock, self.BUFFER)
        self.frames: list[tuple[str, float]] = []  # marks and arrival of each frame, by number
        self.texts = 0
        self.checked = 0  # of what the sink took
        self.expected_text = 0
        self.last = -1  # the frame that was delivered last
        self.told = 0  # frames that the viewer was told it did not get
        self.delivered = 0
        self.is_torn = False  # until a keyframe comes, nothing can be decoded

    @initialize(names=st.lists(st.sampled_from(["", "c", "K"]), max_size=6), room=st.integers(1, 9))
    def join(self, names: Iterable[str], room: int) -> None:
        """Let the viewer join a stream that has had some frames."""
        for marks in names:
            self.send(marks, 10)
        self.sink = FakeSink()
        self.viewer = Viewer(self.sink, "peer", self.fan_out, tells_gaps=True)
        self.sink.attach(self.viewer)
        self.joined = len(self.frames)
        replay = self.fan_out.group.replay()
        self.replayed = [number(frame) for frame, _ in replay or []]
        if replay is None and self.fan_out.group.config is not None:
            self.replayed = [number(self.fan_out.group.config)]
        self.sink.room = room
        self.viewer.start()

    @rule(marks=st.sampled_from(["", "", "c", "K", "cK"]), size=st.integers(8, 600))
    def send(self, marks: str, size: int) -> None:
        """Send a frame that no other equals."""
        self.frames.append((marks, self.clock.now))
        for mark in marks:
            self.fan_out.mark({"c": "config", "K": "keyframe"}[mark])
        self.fan_out.push(b"F" + (len(self.frames) - 1).to_bytes(4) + bytes(size))

    @rule()
    def say(self) -> None:
        """Send a text message."""
        self.viewer.send(b"T" + self.texts.to_bytes(4))
        self.texts += 1

    @rule(seconds=st.sampled_from([0.1, 0.3, 0.7, 1.5]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule(room=st.integers(1, 3))
    def refuse_after(self, room: int) -> None:
        """Let the kernel take a few more messages only."""
        if self.sink.room:
            self.sink.room = room

    @precondition(lambda self: not self.sink.room)
    @rule(room=st.integers(1, 12), delay=st.sampled_from([0.0, 0.0, 0.2, 2.0]))
    def take(self, room: int, delay: float) -> None:
        """Let the kernel take messages again."""
        self.sink.network_delay = delay
        self.sink.take(room)

    @property
    def is_marked(self) -> bool:
        return any("K" in marks for marks, _ in self.frames)

    @invariant()
    def promises(self) -> None:
        """Check what the sink has taken since the last step, and what waits."""
        if not hasattr(self, "sink"):
            return
        for message in self.sink.taken[self.checked :]:
            if message[:1] == b"T":
                assert int.from_bytes(message[1:]) == self.expected_text, "text lost or reordered"
                self.expected_text += 1
            elif message[:1] == b"F":
                self.check_frame(number(message))
            else:
                self.told += json.loads(message[2:])["frames"]
        self.checked = len(self.sink.taken)
        viewer = self.viewer
        backlog = viewer._backlog
        assert backlog.size <= self.BUFFER or backlog._count == 1
        assert backlog.size == sum(
            len(m) + ENTRY_COST for m, marks, _ in backlog._waiting if marks != 4
        )
        meant = len(self.frames) - self.joined + len(self.replayed)
        assert viewer.received == meant - backlog.passed
        assert viewer.delivered == self.delivered
        assert viewer.received == viewer.delivered + viewer.dropped + viewer.waiting
        if not viewer.waiting and not viewer.needs_keyframe:
            assert self.told == viewer.dropped
        if self.sink.room:
            assert not viewer.waiting or viewer.needs_keyframe
            assert self.expected_text == self.texts

    def check_frame(self, n: int) -> None:
        marks, arrival = self.frames[n]
        assert n > self.last, "out of order, or twice"
        self.delivered += 1
        is_replayed = n in self.replayed and n < self.joined
        if "c" not in marks and not is_replayed:
            newest = self.frames[-1][1]
            # Late only if it was the newest when it became so, or leads to what was.
            late = self.clock.now - arrival > self.MAX_LAG
            assert not late or newest - arrival <= self.MAX_LAG
            if late and not self.is_marked:
                assert n == len(self.frames) - 1
        previous, self.last = self.last, n
        if not self.is_marked:
            return
        lost = [k for k in range(previous + 1, n) if self.frames[k][0] != "c"]
        # What came before a new viewer's first frame is not lost.
        if lost and (previous >= 0 or self.joined == 0) and self.was_marked_at(lost[0]):
            self.is_torn = True
        if "K" in marks:
            self.is_torn = False
            configs = [k for k in range(n + 1) if "c" in self.frames[k][0]]
            assert not configs or self.got(configs[-1]), "a keyframe without its configuration"
        elif marks != "c":
            assert not self.is_torn, "into the middle of a group"

    def was_marked_at(self, n: int) -> bool:
        return any("K" in marks for marks, _ in self.frames[: n + 1])

    def got(self, n: int) -> bool:
        return any(m[:1] == b"F" and number(m) == n for m in self.sink.taken)


def number(frame: bytes) -> int:
    """Return the number that a frame bears."""
    return int.from_bytes(frame[1:5])


TestViewerMachine = ViewerMachine.TestCase
TestViewerMachine.settings = settings(max_examples=400, stateful_step_count=50)
