"""What Prometheus is told."""

import re
from typing import Any

import pytest
from harness import PATIENCE, RelayProcess
from prometheus_client.parser import text_string_to_metric_families


@pytest.fixture(scope="module")
def relay() -> Any:
    """A relay with an operator's port, and one place for a stream."""
    with RelayProcess("--admin-port", "0", "--max-streams", "2") as relay:
        yield relay


def scrape(relay: RelayProcess) -> dict[str, float]:
    """Return every sample by its name and labels."""
    response, body = relay.operate("GET", "/metrics")
    assert response.status == 200
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sample.labels.items()): (
            sample.value
        )
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_counts(relay: RelayProcess) -> None:
    """Counters count what happens; they go on when streams and viewers have gone."""
    before = scrape(relay)

    def grown() -> dict[str, float]:
        after = scrape(relay)
        return {
            name.removeprefix("relayd_"): after[name] - before[name]
            for name in after
            if name.startswith("relayd_") and after[name] != before[name]
        }

    with relay.stream("x") as (streamer, _), relay.view("x") as one, relay.view("x") as other:
        for size in (10, 100_000):
            streamer.send(bytes(size))
            for viewer in (one, other):
                assert viewer.recv(PATIENCE) == bytes(size)
        size = (2 + 10) + (10 + 100_000)
        counted = {
            "streams_started_total": 1,
            "viewers_joined_total": 2,
            "connections_accepted_total": 3,
            "frames_received_total": 2,
            "bytes_received_total": size,
            "frames_sent_total": 4,
            "bytes_sent_total": 2 * size,
            "frame_lag_seconds_count": 4,
        }
        now = {"streams": 1, "viewers": 2, "connections": 3}
        assert grown().items() >= (counted | now).items()
    relay.log.wait_for("viewer x .* after ", 2)
    relay.log.wait_for("streamer x .* after ")
    after = grown()
    assert after.items() >= counted.items()
    assert not {"streams", "viewers"} & after.keys()


def test_refusals(relay: RelayProcess) -> None:
    """Refusals are counted by reason."""
    reason = "relayd_refusals_total reason=stream_not_found"
    before = scrape(relay)[reason]
    with relay.connect("/ws/view/nowhere") as viewer:
        viewer.send('{"type": "subscribe"}')
        assert "stream not found" in viewer.recv(PATIENCE)
    assert scrape(relay)[reason] == before + 1


def test_no_label_grows(relay: RelayProcess) -> None:
    """Streams and viewers add no time series."""
    before = scrape(relay).keys()
    with relay.stream("x"), relay.stream("y"), relay.view("x"), relay.view("y"):
        assert scrape(relay).keys() == before


def test_both_forms(relay: RelayProcess) -> None:
    """Prometheus gets OpenMetrics, which ends with its mark, everybody else plain text."""
    response, body = relay.operate("GET", "/metrics", Accept="application/openmetrics-text")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"\n# EOF\n")
    response, body = relay.operate("GET", "/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert re.search(rb'\nrelayd_build_info\{.*version="\d+\.\d+\.\d+".*\} 1.0\n', body)
    assert b"\nprocess_resident_memory_bytes " in body
