"""What waits for a slow viewer, and what is dropped."""

from relayd.relay.backlog import Backlog
from relayd.relay.frames import text_frame
from relayd.relay.group import CONFIG, ENTRY_COST, KEYFRAME

MARKS = {"c": CONFIG, "K": KEYFRAME, "B": CONFIG | KEYFRAME}


class Queue:
    """A backlog, and a clock; a frame whose name begins with c, K or B is marked."""

    def __init__(self, size: int = 10**6, *, marked: bool = True, tells_gaps: bool = True) -> None:
        self.backlog = Backlog(1.0, size, tells_gaps=tells_gaps)
        self.marked = marked
        self.now = 0.0
        self.delay = 0.0

    def add(self, names: str) -> None:
        """Let frames wait that come all at once."""
        for name in names.split():
            marks = MARKS.get(name[0], 0)
            self.backlog.add(
                name.encode(), marks, self.now, has_keyframes=self.marked, delay=self.delay
            )

    def take(self) -> str:
        """Take all that waits."""
        self.backlog.drop_late(self.now, self.delay)
        return " ".join(
            message.decode() if message[0] < 128 else message[2:].decode()
            for message in iter(self.backlog.take, None)
        )


GAP = '{{"type": "gap", "frames": {}}}'.format


def test_in_order() -> None:
    """What waits is taken in the order in which it came, and then nothing is left."""
    queue = Queue()
    queue.add("c K a")
    queue.backlog.add_text(text_frame("text"))
    queue.add("b")
    assert (queue.backlog.count, queue.backlog.text_size) == (4, 6)
    assert queue.take() == "c K a text b"
    assert (queue.backlog.count, queue.backlog.size, queue.backlog.text_size) == (0, 0, 0)


def test_unmarked_late() -> None:
    """Of an unmarked stream the oldest frames are dropped when they are late."""
    queue = Queue(marked=False)
    queue.add("a")
    queue.now = 0.5
    queue.add("b")
    queue.now = 1.1
    queue.add("d")
    assert queue.backlog.dropped == 1
    assert queue.take() == f"{GAP(1)} b d"
    queue.add("e f")
    queue.now += 5
    assert queue.take() == f"{GAP(1)} f", "the newest frame is the present, however old"


def test_unmarked_slow_network() -> None:
    """A frame is late when the network will make it so."""
    queue = Queue(marked=False)
    queue.add("a")
    queue.now = 0.5
    queue.add("b")
    queue.delay = 0.4
    queue.now = 0.6
    assert queue.take() == "a b"
    queue.add("d e")
    queue.delay = 5
    assert queue.take() == f"{GAP(1)} e"


def test_unmarked_too_much() -> None:
    """Past the bound in bytes the oldest are dropped; one larger frame may wait alone."""
    queue = Queue(2 * (ENTRY_COST + 4), marked=False)
    queue.add("aaaa bbbb dddd")
    assert queue.take() == f"{GAP(1)} bbbb dddd"
    queue.add("aaaa " + "b" * 1000)
    assert queue.take() == f"{GAP(1)} {'b' * 1000}"


def test_skip_to_waiting_keyframe() -> None:
    """Of a marked stream all up to the newest keyframe that waits is dropped."""
    queue = Queue()
    queue.add("a K b")
    queue.now = 0.9
    queue.add("K2 d")
    queue.now = 1.1
    queue.add("e")
    assert not queue.backlog.skipping
    assert queue.take() == f"{GAP(3)} K2 d e"


def test_skip_until_next_keyframe() -> None:
    """Where no keyframe waits that is fresh enough, all is dropped until the next one comes."""
    queue = Queue()
    queue.add("K a")
    queue.now = 1.1
    queue.add("b")
    assert queue.backlog.skipping
    queue.add("d")
    assert queue.take() == ""
    queue.add("K2 e")
    assert not queue.backlog.skipping
    assert queue.take() == f"{GAP(4)} K2 e"


def test_skip_when_too_much() -> None:
    """The bound in bytes skips as the one in time does; a large keyframe may wait alone."""
    queue = Queue(2 * (ENTRY_COST + 4))
    queue.add("aaaa K222 bbbb")
    assert queue.take() == f"{GAP(1)} K222 bbbb"
    queue.add("aaaa K" + "2" * 1000)
    assert queue.take() == f"{GAP(1)} K{'2' * 1000}"


def test_config_survives() -> None:
    """The last configuration among the frames dropped comes before the keyframe; older don't."""
    queue = Queue()
    queue.add("K c1 a c2 b")
    queue.now = 1.1
    queue.add("d")
    queue.add("K2")
    assert queue.take() == f"{GAP(5)} c2 K2"
    queue.add("a c3")
    queue.now = 2.2
    queue.add("b c4 d B5 e")
    assert queue.take() == f"{GAP(5)} B5 e", "a keyframe with its own configuration needs no other"


def test_config_of_unmarked() -> None:
    """Where no keyframes are marked, a configuration survives too."""
    queue = Queue(marked=False)
    queue.add("c1 a c2 b")
    queue.now = 1.1
    queue.add("d")
    assert queue.take() == f"{GAP(3)} c2 d"


def test_text_survives() -> None:
    """Text is never dropped, and stays in its place."""
    queue = Queue()
    queue.add("K")
    queue.backlog.add_text(text_frame("one"))
    queue.add("a")
    queue.backlog.add_text(text_frame("two"))
    queue.now = 1.1
    queue.add("b")
    queue.backlog.add_text(text_frame("three"))
    queue.add("K2")
    queue.backlog.add_text(text_frame("four"))
    assert queue.take() == f"one two three {GAP(3)} K2 four"


def test_static_screen() -> None:
    """What waits of a marked stream is sent however old, if nothing newer has come."""
    queue = Queue()
    queue.add("K a b")
    queue.now = 100
    assert queue.take() == "K a b"


def test_slow_network_leaves_keyframes_time() -> None:
    """However slow the network, a keyframe is not dropped before half of the time is up."""
    queue = Queue()
    queue.delay = 5
    queue.add("K")
    queue.now = 0.4
    queue.add("a")
    assert queue.take() == "K a"


def test_no_gaps() -> None:
    """A viewer that did not ask is not told what it did not get."""
    queue = Queue(marked=False, tells_gaps=False)
    queue.add("a")
    queue.now = 1.1
    queue.add("b")
    assert queue.take() == "b"
    assert queue.backlog.dropped == 1


def test_new_viewer_waits() -> None:
    """What a new viewer can't show is not for it: its first frame is a keyframe, after a config."""
    queue = Queue()
    queue.backlog.await_keyframe(b"c1")
    queue.add("a b c2 d")
    assert queue.take() == ""
    queue.add("K a")
    assert queue.take() == "c2 K a"
    assert (queue.backlog.dropped, queue.backlog.passed) == (0, 4)
    queue = Queue()
    queue.backlog.await_keyframe(b"c1")
    queue.add("B a")
    assert queue.take() == "B a"
    assert (queue.backlog.dropped, queue.backlog.passed) == (0, 1)


def test_slow_new_viewer() -> None:
    """A new viewer whose network is slow gets the group from its beginning, or none of the rest."""
    queue = Queue()
    group = [(b"c", CONFIG), (b"K", KEYFRAME), (b"a", 0), (b"b", 0)]
    queue.backlog.replay(group, 0.0, has_keyframes=True)
    assert queue.backlog.take() == b"c"
    queue.now = 5
    assert queue.take() == "K a b"
    queue.backlog.replay(group, queue.now, has_keyframes=True)
    assert queue.backlog.take() == b"c"
    queue.now += 5
    queue.add("d")
    assert queue.take() == ""
    assert queue.backlog.skipping


def test_clear() -> None:
    """What waits when the viewer leaves counts as dropped."""
    queue = Queue()
    queue.add("K a")
    queue.backlog.clear()
    assert (queue.backlog.count, queue.backlog.dropped) == (0, 2)
    assert queue.take() == ""
