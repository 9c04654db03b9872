"""Tests of how far apart attempts are."""

import itertools

from relayd.ctl.backoff import Backoff


def test_attempts_are_further_and_further_apart() -> None:
    """Each wait is twice the one before, up to the largest."""
    delays = Backoff(jitter=lambda: 1.0).delays()
    assert list(itertools.islice(delays, 7)) == [0.25, 0.5, 1, 2, 4, 4, 4]
    delays = Backoff(first=1, largest=3, jitter=lambda: 0.5).delays()
    assert list(itertools.islice(delays, 4)) == [0.5, 1, 1.5, 1.5]


def test_not_all_come_at_the_same_moment() -> None:
    """Of each wait a part is left out, another one each time, and at most half of it."""
    delays = list(itertools.islice(Backoff(first=4).delays(), 1000))
    assert len(set(delays)) > 900
    assert all(2 <= delay <= 4 for delay in delays)
    assert min(delays) < 2.2
    assert max(delays) > 3.8
