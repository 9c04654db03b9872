"""The log of what slow viewers lose."""

import logging

import pytest

from relayd.relay.droplog import DropLog


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
