"""What the operator's port says of streams and viewers, as the tests need it."""

from typing import Any

from harness import RelayProcess

from relayd.ctl.report import Stream


def operator_port(relay: RelayProcess) -> str:
    """Return where a relay's operator's port is."""
    (found,) = relay.log.wait_for(r"operator's port on (127\.0\.0\.1:\d+)")
    return found[1]


def viewer_fields(number: int, **fields: Any) -> dict[str, Any]:
    """Return what a relay says of a viewer that is fine, but for these fields."""
    return {
        "id": number,
        "address": "198.51.100.4:40112",
        "age": 12.1,
        "fps": 29.9,
        "bitrate": 7_900_000,
        "lag": 0.004,
        "queue_frames": 0,
        "queue_bytes": 0,
        "unacknowledged_bytes": 12_000,
        "rtt": 0.021,
        "waits_for": None,
        "frames": 360,
        "dropped": 0,
        "drops": {"late": 0, "buffer": 0, "keyframe": 0},
        **fields,
    }


def stream_fields(stream_id: str, *viewers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return what a relay says of a stream that is fine, but for these fields."""
    return {
        "id": stream_id,
        "address": "192.0.2.7:5312",
        "age": 34.5,
        "fps": 30.0,
        "bitrate": 7_900_000,
        "frames": 1035,
        "bytes": 33_000_000,
        "resumes": 0,
        "viewers": list(viewers),
        **fields,
    }


def stream(stream_id: str, *viewers: dict[str, Any], **fields: Any) -> Stream:
    """Return a stream that is fine, but for these fields."""
    return Stream.parse(stream_fields(stream_id, *viewers, **fields))


SLOW = {
    "lag": 0.98,
    "fps": 4.0,
    "bitrate": 1_000_000,
    "waits_for": "network",
    "queue_frames": 20,
    "queue_bytes": 800_000,
    "dropped": 210,
    "drops": {"late": 200, "buffer": 0, "keyframe": 10},
}
"""What is special about a viewer whose network is slow."""

WAITING = {
    "fps": 0.0,
    "bitrate": 0,
    "waits_for": "keyframe",
    "unacknowledged_bytes": None,
    "rtt": None,
}
"""What is special about a viewer that waits for a keyframe, on a system that knows little."""

LOST = {"address": None, "fps": 0.0, "bitrate": 0}
"""What is special about a stream whose streamer is lost."""
