"""Tests of what a load is and what a result says."""

import dataclasses

import pytest

from relayd.ctl.load import KEYFRAME_SIZE, Load, Result, percentile

RESULT = Result(
    duration=2.0,
    frames=100,
    expected=1000,
    deliveries=800,
    size=8_000_000,
    worst_share=0.5,
    late=3,
    lost_connections=1,
    p50=1.0,
    p99=2.0,
    max=3.0,
    cpu=0.016,
    peak_memory=50_000_000,
)


def test_sizes() -> None:
    """Frames have the size that was asked for."""
    assert Load(streams=3, viewers=2, size=1000).sizes(2) == [1000]


def test_mixed_sizes() -> None:
    """In the mixed load a keyframe comes every two seconds, not for all streams at once."""
    load = Load(streams=4, viewers=1, size=None, fps=30)
    cycles = [load.sizes(stream) for stream in range(4)]
    assert {len(cycle) for cycle in cycles} == {60}
    for cycle in cycles:
        assert all(4096 <= size <= 12288 for size in cycle if size != KEYFRAME_SIZE)
    keyframes = [[i for i, n in enumerate(cycle) if n == KEYFRAME_SIZE] for cycle in cycles]
    assert keyframes == [[0], [45], [30], [15]]


def test_mixed_sizes_are_the_same_every_time() -> None:
    """The seed decides the sizes, which differ from stream to stream."""
    load = Load(streams=2, viewers=1, size=None)
    assert load.sizes(0) == Load(streams=2, viewers=1, size=None).sizes(0)
    assert load.sizes(0) != Load(streams=2, viewers=1, size=None, seed=2).sizes(0)
    assert set(load.sizes(0)) != set(load.sizes(1))


def test_result() -> None:
    """Rates and shares follow from the counts."""
    assert RESULT.share == 0.8
    assert RESULT.rate == 400.0
    assert RESULT.megabytes == 4.0
    assert RESULT.cpu_per_delivery == pytest.approx(20.0)


def test_empty_result() -> None:
    """A load that ended before it began has a result."""
    empty = dataclasses.replace(RESULT, duration=0.0, expected=0, deliveries=0, size=0)
    assert (empty.share, empty.rate, empty.megabytes) == (1.0, 0.0, 0.0)
    assert empty.cpu_per_delivery is None


def test_cpu_unknown() -> None:
    """Of a server elsewhere the CPU time is not known."""
    assert dataclasses.replace(RESULT, cpu=None).cpu_per_delivery is None


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(100, 50, 50), (100, 99, 99), (100, 100, 100), (10, 99, 10), (1, 50, 1), (3, 50, 2)],
)
def test_percentile(count: int, percent: float, expected: int) -> None:
    """A percentile is one of the values; it comes in milliseconds."""
    values = [n * 1_000_000 for n in range(1, count + 1)]
    assert percentile(values, percent) == expected


def test_percentile_of_nothing() -> None:
    """Where nothing was measured there is none."""
    assert percentile([], 99) is None
