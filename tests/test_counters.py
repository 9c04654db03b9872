"""Plain counters: the histogram."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.counters import Histogram


@given(st.lists(st.floats(0, 10)))
def test_histogram(values: list[float]) -> None:
    """Every value is in the first bucket that has room for it; the sum is that of all."""
    histogram = Histogram((1.0, 2.5, 5.0))
    for value in values:
        histogram.observe(value)
    assert histogram.counts == [
        sum(value <= 1 for value in values),
        sum(1 < value <= 2.5 for value in values),
        sum(2.5 < value <= 5 for value in values),
        sum(value > 5 for value in values),
    ]
    assert histogram.sum == pytest.approx(sum(values))
