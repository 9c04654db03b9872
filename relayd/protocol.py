"""The wire protocol, version 1: its messages, its refusals, its close codes.

Everything here is a pure function of text. Signalling is JSON in text messages; video is binary
messages, which nothing here ever sees.
"""

import enum
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

SIGNALLING_LIMIT = 16 * 1024
"""The largest text message that relayd reads, in bytes."""

FORMAT_LIMIT = 4096
"""The largest `format`, in bytes of compact JSON in UTF-8."""

FORMAT_DEPTH = 100
"""The most objects and arrays of a `format` within each other: json builds by recursion, and may
have less room left for it where a message is built than where one was read."""

STREAMER_FEATURES = ("resume", "viewers", "keyframe_requests", "stats")
"""What a streamer can ask for by name."""

VIEWER_FEATURES = ("gaps", "status", "format")
"""What a viewer can ask for by name."""

MARKS = ("config", "keyframe")
"""The types of the messages that describe the next binary message of a streamer."""

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

    @classmethod
    def reason(cls) -> str:
        """Return the reason as a label of a metric: ``stream_not_found``."""
        return re.sub(r"(?<=.)(?=[A-Z])", "_", cls.__name__).lower()


class InvalidMessage(Refusal):
    """The first message is not JSON, not an object, of another type, or binary."""

    message = "invalid message"
    code = CloseCode.BAD_REQUEST


class InvalidStreamId(Refusal):
    """The stream id does not match ``[A-Za-z0-9_-]{1,64}``."""

    message = "invalid stream id"
    code = CloseCode.BAD_REQUEST


class InvalidFormat(Refusal):
    """The `format` in `register` is not an object, or over FORMAT_LIMIT or FORMAT_DEPTH."""

    message = "invalid format"
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


REFUSALS = (
    InvalidMessage,
    InvalidStreamId,
    InvalidFormat,
    StreamIdMismatch,
    StreamNotFound,
    TimedOut,
    StreamIdInUse,
    TooManyStreams,
    TooManyViewers,
)
"""Every refusal that there is."""


def check_stream_id(stream_id: object) -> str:
    """Return an id that can be one.

    Raises:
        InvalidStreamId: If it can't: it must match ``[A-Za-z0-9_-]{1,64}``.
    """
    if isinstance(stream_id, str) and _STREAM_ID.fullmatch(stream_id):
        return stream_id
    raise InvalidStreamId


@dataclass(frozen=True)
class Register:
    """What a streamer asks for.

    Attributes:
        stream_id: The id, None when it leaves the choice to the server.
        format: What it says of its video, never interpreted.
        features: What it asks for by name and relayd knows; None when it knows of no features.
        resume_token: The token of the stream that it wants back.
    """

    stream_id: str | None = None
    format: Mapping[str, Any] | None = None
    features: tuple[str, ...] | None = None
    resume_token: str | None = None


@dataclass(frozen=True)
class Subscribe:
    """What a viewer asks for.

    Attributes:
        stream_id: The stream's id.
        features: What it asks for by name and relayd knows; None when it knows of no features.
    """

    stream_id: str
    features: tuple[str, ...] | None = None


# Client to server.


def register(request: Register) -> str:
    """Build a streamer's first message."""
    return _build("register", **_extended(request))


def subscribe(request: Subscribe) -> str:
    """Build a viewer's first message."""
    return _build("subscribe", **_extended(request))


def mark(kind: str) -> str:
    """Build the message that describes the next binary message; the kind is one of MARKS."""
    return _build(kind)


def parse_register(message: str | bytes) -> Register:
    """Read a streamer's first message.

    Raises:
        InvalidMessage: If this is not a `register` message.
        InvalidStreamId: If the id can't be one.
        InvalidFormat: If the format can't be one.
    """
    fields = _parse(message, "register")
    stream_id = fields.get("stream_id")
    return Register(
        stream_id=None if stream_id is None else check_stream_id(stream_id),
        format=_check_format(fields.get("format")),
        features=_known(fields.get("features"), STREAMER_FEATURES),
        resume_token=_check_token(fields.get("resume_token")),
    )


def parse_subscribe(message: str | bytes, path_id: str) -> Subscribe:
    """Read a viewer's first message; the id in its path is the one that it may repeat.

    Raises:
        InvalidMessage: If this is not a `subscribe` message.
        InvalidStreamId: If either id can't be one.
        StreamIdMismatch: If the two differ.
    """
    fields = _parse(message, "subscribe")
    stream_id = fields.get("stream_id")
    check_stream_id(path_id)
    if stream_id is not None and check_stream_id(stream_id) != path_id:
        raise StreamIdMismatch
    return Subscribe(path_id, _known(fields.get("features"), VIEWER_FEATURES))


def parse_mark(message: str) -> str | None:
    """Return which of MARKS this text is, None if it is none."""
    try:
        kind: str = parse(message)["type"]
    except InvalidMessage:
        return None
    return kind if kind in MARKS else None


# Server to client.


def registered(
    stream_id: str,
    features: Sequence[str] | None = None,
    resume_token: str | None = None,
    *,
    resumed: bool = False,
) -> str:
    """Build the answer to `register`; features are those granted, None if none were asked for."""
    more = _given(features=features, resume_token=resume_token, resumed=resumed or None)
    return _build("registered", stream_id=stream_id, **more)


def subscribed(
    stream_id: str,
    features: Sequence[str] | None = None,
    video_format: Mapping[str, Any] | None = None,
) -> str:
    """Build the answer to `subscribe`; a viewer that asked for no features is given none."""
    more = {} if features is None else _given(features=features, format=video_format)
    return _build("subscribed", stream_id=stream_id, **more)


def viewers(count: int) -> str:
    """Build what tells a streamer how many viewers it has."""
    return _build("viewers", count=count)


def keyframe_request() -> str:
    """Build what tells a streamer that some viewer can show nothing until the next keyframe."""
    return _build("keyframe_request")


def stats(viewers: int, slow_viewers: int, frames_dropped: int, max_lag: float) -> str:
    """Build what tells a streamer how its viewers fared in the last second; the lag in seconds."""
    return _build(
        "stats",
        viewers=viewers,
        slow_viewers=slow_viewers,
        frames_dropped=frames_dropped,
        max_lag=round(max_lag, 3),
    )


def gap(frames: int) -> str:
    """Build what tells a viewer that it did not get this many frames."""
    return _build("gap", frames=frames)


def stream_paused() -> str:
    """Build what tells a viewer that the streamer is lost and may resume."""
    return _build("stream_paused")


def stream_resumed(video_format: Mapping[str, Any] | None) -> str:
    """Build what tells a viewer that the streamer is back, and what it sends now."""
    return _build("stream_resumed", **_given(format=video_format))


def stream_ended(stream_id: str) -> str:
    """Build the last message that a viewer gets."""
    return _build("stream_ended", stream_id=stream_id)


def error(refusal: Refusal) -> str:
    """Build the message that precedes the close frame of a refusal."""
    return _build("error", message=refusal.message)


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


def _build(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def _given(**fields: Any) -> dict[str, Any]:
    """Return those of the extensions' fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _extended(request: Register | Subscribe) -> dict[str, Any]:
    """Return the fields of a request: the base protocol's, which may be null, and those given."""
    return {"stream_id": request.stream_id} | _given(**vars(request))


def _known(features: object, names: Iterable[str]) -> tuple[str, ...] | None:
    if features is None:
        return None
    if not isinstance(features, list):
        raise InvalidMessage
    return tuple(name for name in names if name in features)


def _check_format(video_format: object) -> dict[str, Any] | None:
    if video_format is None:
        return None
    if not isinstance(video_format, dict):
        raise InvalidFormat
    try:
        # Python reads NaN and Infinity, which no browser does.
        text = json.dumps(video_format, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        depth = _depth(video_format)
    except (ValueError, RecursionError):
        raise InvalidFormat from None
    # JSON can hold half of a surrogate pair: three bytes.
    if len(text.encode(errors="surrogatepass")) > FORMAT_LIMIT or depth > FORMAT_DEPTH:
        raise InvalidFormat
    return video_format


def _depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _check_token(token: object) -> str | None:
    if token is None or isinstance(token, str):
        return token
    raise InvalidMessage
