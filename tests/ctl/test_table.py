"""Tests of the tables."""

import pytest
from ctl.reports import LOST, SLOW, WAITING, stream, viewer_fields

from relayd.ctl import table

STREAMS = [
    stream("kitchen", viewer_fields(1), age=7300),
    stream(
        "lobby",
        viewer_fields(17),
        viewer_fields(18, **SLOW),
        viewer_fields(19, address="[2001:db8::1]:4242", **WAITING),
    ),
    stream("attic", frames=7, resumes=2, age=200_000, **LOST),
]


def lines(text: str) -> list[str]:
    """Return the lines of a table as a test shows it."""
    return text.strip("\n").split("\n")


def test_streams() -> None:
    """Each stream is a line, with what is up with it and how many of its viewers are in trouble."""
    expected = """
STREAM   STREAMER           AGE     FPS  KBIT/S  FRAMES  RESUMES  VIEWERS  STATE
kitchen  192.0.2.7:5312      2h    30.0    7900    1035        0        1  ok
lobby    192.0.2.7:5312     34s    30.0    7900    1035        0        3  \
1 slow network, 1 waits for a keyframe
attic    -                   2d     0.0       0       7        2        0  streamer lost
"""
    assert table.streams(STREAMS) == lines(expected)


def test_no_streams() -> None:
    """Without streams there is the header."""
    assert len(table.streams([])) == 1
    assert len(table.top([], with_all=True, width=80)) == 1


def test_one_stream() -> None:
    """One stream is shown with all its viewers, those in trouble first, and with their drops."""
    expected = """
STREAM  STREAMER           AGE     FPS  KBIT/S  FRAMES  RESUMES  VIEWERS  STATE
lobby   192.0.2.7:5312     34s    30.0    7900    1035        0        3  \
1 slow network, 1 waits for a keyframe

VIEWER  ADDRESS                AGE     FPS  KBIT/S     LAG     RTT   QUEUE  UNACKED  FRAMES  \
  LATE  BUFFER  KEYFRAME  STATE
18      198.51.100.4:40112     12s     4.0    1000   980ms    21ms  781.2K    11.7K     360  \
   200       0        10  slow network
19      [2001:db8::1]:4242     12s     0.0       0     4ms       -       0        -     360  \
     0       0         0  waits for a keyframe
17      198.51.100.4:40112     12s    29.9    7900     4ms    21ms       0    11.7K     360  \
     0       0         0  ok
"""
    assert table.one_stream(STREAMS[1]) == lines(expected)
    assert table.one_stream(STREAMS[2]) == table.streams([STREAMS[2]])


def test_top() -> None:
    """Below the streams in trouble, which come first, are their viewers in trouble."""
    expected = """
STREAM   ADDRESS                AGE     FPS  KBIT/S     LAG     RTT   QUEUE  UNACKED  DROPPED  STATE
attic    -                       2d     0.0       0                                         0  \
streamer lost
lobby    192.0.2.7:5312         34s    30.0    7900                                       210  \
2 in trouble
  18     198.51.100.4:40112     12s     4.0    1000   980ms    21ms  781.2K    11.7K      210  \
slow network
  19     [2001:db8::1]:4242     12s     0.0       0     4ms       -       0        -        0  \
waits for a keyframe
kitchen  192.0.2.7:5312          2h    30.0    7900                                         0  ok
"""
    assert table.top(STREAMS, with_all=False) == lines(expected)
    everyone = table.top(STREAMS, with_all=True)
    order = [line.split()[0] for line in everyone[1:]]
    assert order == ["attic", "lobby", "18", "19", "17", "kitchen", "1"]


@pytest.mark.parametrize("width", [150, 110, 79, 60, 40, 20, 4])
def test_width(width: int) -> None:
    """A table is never wider than what fits; what is up with whom is the last thing to go."""
    shown = table.top([*STREAMS, stream("x" * 64, **LOST)], with_all=False, width=width)
    assert max(map(len, shown)) <= width
    assert len(shown) == 7
    if width >= 60:
        assert "STATE" in shown[0]
        assert "LAG" in shown[0]
        assert sum(line.endswith("streamer lost") for line in shown) == 2
        assert any(line.startswith("xxxxx") and "x…  " in line for line in shown)
        assert any(line.endswith("waits for a keyframe") for line in shown)
    assert ("UNACKED" in shown[0]) == (width == 150)


def test_summary() -> None:
    """Streams and viewers are counted, and what is in trouble of both."""
    assert table.summary([]) == "0 streams, 0 viewers"
    assert table.summary(STREAMS[:1]) == "1 stream, 1 viewer"
    assert table.summary(STREAMS) == "3 streams, 4 viewers, 3 in trouble"


def test_units() -> None:
    """Figures have the unit in which they are short."""
    viewer = viewer_fields(1, lag=1.26, rtt=0.9994, queue_bytes=3 * 2**20, unacknowledged_bytes=9)
    row = table.one_stream(stream("lobby", viewer, age=119.4))[-1].split()
    assert row[2:9] == ["12s", "29.9", "7900", "1.3s", "999ms", "3.0M", "9"]
    ages = [0, 119, 120, 7199, 7200, 172_799, 172_800]
    shown = [table.streams([stream("lobby", age=age)])[1].split()[2] for age in ages]
    assert shown == ["0s", "119s", "2m", "120m", "2h", "48h", "2d"]
