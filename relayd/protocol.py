"""The wire protocol, version 1: its messages, its refusals, its close codes.

Everything here is a pure function of text. Signalling is JSON in text messages; video is binary
messages, which nothing here ever sees.
"""

import enum
import json
import re
from typing import Any, ClassVar

SIGNALLING_LIMIT = 16 * 1024
"""The largest text message that relayd reads, in bytes."""

_STREAM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class CloseCode(enum.IntEnum):
    """The close codes that relayd sends (RFC 6455 section 7.4; from 4000 on, private use)."""

    NORMAL = 1000
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    BAD_REQUEST = 4400
    NOT_FOUND = 4404
    TIMED_OUT = 4408
    CONFLICT = 4409
    TOO_MANY = 4429


class Refusal(Exception):
    """A client can't have what it asked for: one `error` message, then a close frame."""

    message: ClassVar[str]
    code: ClassVar[CloseCode]

    def __str__(self) -> str:
        return self.message


class InvalidMessage(Refusal):
    """The first message is not JSON, not an object, of another type, or binary."""

    message = "invalid message"
    code = CloseCode.BAD_REQUEST


class InvalidStreamId(Refusal):
    """The stream id does not match ``[A-Za-z0-9_-]{1,64}``."""

    message = "invalid stream id"
    code = CloseCode.BAD_REQUEST


class StreamIdMismatch(Refusal):
    """The stream id in `subscribe` is not the one in the path."""

    message = "stream id mismatch"
    code = CloseCode.BAD_REQUEST


class StreamNotFound(Refusal):
    """No stream has this id."""

    message = "stream not found"
    code = CloseCode.NOT_FOUND


class TimedOut(Refusal):
    """The first message did not come in time."""

    message = "timed out"
    code = CloseCode.TIMED_OUT


class StreamIdInUse(Refusal):
    """Another streamer has this id."""

    message = "stream id already in use"
    code = CloseCode.CONFLICT


class TooManyStreams(Refusal):
    """There are MAX_STREAMS streams."""

    message = "too many streams"
    code = CloseCode.TOO_MANY


class TooManyViewers(Refusal):
    """The stream has MAX_VIEWERS_PER_STREAM viewers."""

    message = "too many viewers"
    code = CloseCode.TOO_MANY


def check_stream_id(stream_id: object) -> str:
    """Return an id that can be one.

    Raises:
        InvalidStreamId: If it can't: it must match ``[A-Za-z0-9_-]{1,64}``.
    """
    if isinstance(stream_id, str) and _STREAM_ID.fullmatch(stream_id):
        return stream_id
    raise InvalidStreamId


# Client to server.


def register(stream_id: str | None) -> str:
    """Build a streamer's first message; None asks for a generated id."""
    return json.dumps({"type": "register", "stream_id": stream_id})


def subscribe(stream_id: str) -> str:
    """Build a viewer's first message."""
    return json.dumps({"type": "subscribe", "stream_id": stream_id})


def parse_register(message: str | bytes) -> str | None:
    """Return the id that a streamer asks for, None when it leaves the choice to the server.

    Raises:
        InvalidMessage: If this is not a `register` message.
        InvalidStreamId: If the id can't be one.
    """
    stream_id = _parse(message, "register").get("stream_id")
    return None if stream_id is None else check_stream_id(stream_id)


def parse_subscribe(message: str | bytes, path_id: str) -> str:
    """Return the id that a viewer asks for: the one in its path, which the message may repeat.

    Raises:
        InvalidMessage: If this is not a `subscribe` message.
        InvalidStreamId: If either id can't be one.
        StreamIdMismatch: If the two differ.
    """
    stream_id = _parse(message, "subscribe").get("stream_id")
    check_stream_id(path_id)
    if stream_id is not None and check_stream_id(stream_id) != path_id:
        raise StreamIdMismatch
    return path_id


# Server to client.


def registered(stream_id: str) -> str:
    """Build the answer to `register`."""
    return json.dumps({"type": "registered", "stream_id": stream_id})


def subscribed(stream_id: str) -> str:
    """Build the answer to `subscribe`."""
    return json.dumps({"type": "subscribed", "stream_id": stream_id})


def stream_ended(stream_id: str) -> str:
    """Build the last message that a viewer gets."""
    return json.dumps({"type": "stream_ended", "stream_id": stream_id})


def error(refusal: Refusal) -> str:
    """Build the message that precedes the close frame of a refusal."""
    return json.dumps({"type": "error", "message": refusal.message})


def parse(message: str | bytes) -> dict[str, Any]:
    """Read one signalling message: a JSON object with a `type` that is a string.

    Raises:
        InvalidMessage: If it is anything else, or binary.
    """
    if not isinstance(message, str):
        raise InvalidMessage
    try:
        fields = json.loads(message)
    # 16 KiB of brackets nest deeper than Python's stack.
    except (ValueError, RecursionError):
        raise InvalidMessage from None
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise InvalidMessage
    return fields


def _parse(message: str | bytes, expected: str) -> dict[str, Any]:
    fields = parse(message)
    if fields["type"] != expected:
        raise InvalidMessage
    return fields
