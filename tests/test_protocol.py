"""The wire protocol's messages."""

import json
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relayd import protocol
from relayd.protocol import (
    FORMAT_DEPTH,
    FORMAT_LIMIT,
    MARKS,
    STREAMER_FEATURES,
    VIEWER_FEATURES,
    InvalidFormat,
    InvalidMessage,
    InvalidStreamId,
    Refusal,
    Register,
    StreamIdMismatch,
    Subscribe,
    parse_mark,
    parse_register,
    parse_subscribe,
)

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)

SENDABLE_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
"""What browsers read as well as Python."""

FORMATS = st.dictionaries(st.text(max_size=10), SENDABLE_JSON, max_size=5)


def subset(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    """Some of these names, in their order."""
    return st.sets(st.sampled_from(names)).map(lambda some: tuple(n for n in names if n in some))


def register_with(**fields: object) -> str:
    """Build a `register` that may hold anything."""
    return json.dumps({"type": "register", **fields})


def nested(depth: int) -> dict[str, object]:
    """Return an object with this many objects and arrays within each other, itself among them."""
    inner: object = 0
    for _ in range(depth - 1):
        inner = [inner]
    return {"a": inner}


def test_messages() -> None:
    """Messages look as PROTOCOL.md's section 1 shows them, to the byte."""
    assert protocol.register(Register()) == '{"type": "register", "stream_id": null}'
    assert protocol.registered("k3J9xQ2b") == '{"type": "registered", "stream_id": "k3J9xQ2b"}'
    subscribe = protocol.subscribe(Subscribe("k3J9xQ2b"))
    assert subscribe == '{"type": "subscribe", "stream_id": "k3J9xQ2b"}'
    assert protocol.subscribed("k3J9xQ2b") == '{"type": "subscribed", "stream_id": "k3J9xQ2b"}'
    assert protocol.stream_ended("k3J9xQ2b") == '{"type": "stream_ended", "stream_id": "k3J9xQ2b"}'
    not_found = protocol.StreamNotFound()
    assert protocol.error(not_found) == '{"type": "error", "message": "stream not found"}'


def test_streamer_extensions() -> None:
    """Messages to and from streamers look as section 2 shows them, to the byte."""
    request = Register(None, {"codec": "avc1.42E01F", "width": 720}, STREAMER_FEATURES)
    assert protocol.register(request) == (
        '{"type": "register", "stream_id": null, '
        '"format": {"codec": "avc1.42E01F", "width": 720}, '
        '"features": ["resume", "viewers", "keyframe_requests", "stats"]}'
    )
    assert protocol.register(Register("x", resume_token="t")) == (
        '{"type": "register", "stream_id": "x", "resume_token": "t"}'
    )
    assert (
        protocol.registered("x", ()) == '{"type": "registered", "stream_id": "x", "features": []}'
    )
    assert protocol.registered("x", ["resume"], "t", resumed=True) == (
        '{"type": "registered", "stream_id": "x", "features": ["resume"], '
        '"resume_token": "t", "resumed": true}'
    )
    assert protocol.viewers(2) == '{"type": "viewers", "count": 2}'
    assert protocol.keyframe_request() == '{"type": "keyframe_request"}'
    assert protocol.stats(2, 1, 14, 0.42) == (
        '{"type": "stats", "viewers": 2, "slow_viewers": 1, "frames_dropped": 14, "max_lag": 0.42}'
    )
    assert protocol.stats(1, 0, 0, 1 / 3).endswith('"max_lag": 0.333}')
    assert protocol.mark("config") == '{"type": "config"}'
    assert protocol.mark("keyframe") == '{"type": "keyframe"}'


def test_viewer_extensions() -> None:
    """Messages to and from viewers look as section 3 shows them, to the byte."""
    assert protocol.subscribe(Subscribe("k3J9xQ2b", ("gaps", "status"))) == (
        '{"type": "subscribe", "stream_id": "k3J9xQ2b", "features": ["gaps", "status"]}'
    )
    assert protocol.subscribed("x", ["gaps"], {"width": 720}) == (
        '{"type": "subscribed", "stream_id": "x", "features": ["gaps"], "format": {"width": 720}}'
    )
    assert (
        protocol.subscribed("x", []) == '{"type": "subscribed", "stream_id": "x", "features": []}'
    )
    assert protocol.gap(14) == '{"type": "gap", "frames": 14}'
    assert protocol.stream_paused() == '{"type": "stream_paused"}'
    assert protocol.stream_resumed(None) == '{"type": "stream_resumed"}'
    assert protocol.stream_resumed({}) == '{"type": "stream_resumed", "format": {}}'


def test_nothing_unasked() -> None:
    """A viewer that asked for no features is not told the format."""
    assert protocol.subscribed("x", None, {"width": 720}) == protocol.subscribed("x")


def test_refusals() -> None:
    """Every refusal has the message and the close code of the protocol's table."""
    assert {(r.message, int(r.code)) for r in Refusal.__subclasses__()} == {
        ("invalid message", 4400),
        ("invalid stream id", 4400),
        ("invalid format", 4400),
        ("stream id mismatch", 4400),
        ("stream not found", 4404),
        ("timed out", 4408),
        ("stream id already in use", 4409),
        ("too many streams", 4429),
        ("too many viewers", 4429),
    }
    assert str(protocol.TooManyStreams()) == "too many streams"


@given(
    st.builds(
        Register,
        stream_id=st.none() | IDS,
        format=st.none() | FORMATS,
        features=st.none() | subset(STREAMER_FEATURES),
        resume_token=st.none() | st.text(),
    )
)
def test_register_round_trip(request: Register) -> None:
    """What a streamer asks for, the server reads."""
    assert parse_register(protocol.register(request)) == request


@given(st.builds(Subscribe, stream_id=IDS, features=st.none() | subset(VIEWER_FEATURES)))
def test_subscribe_round_trip(request: Subscribe) -> None:
    """What a viewer asks for, the server reads; its message may leave the id to its path."""
    assert parse_subscribe(protocol.subscribe(request), request.stream_id) == request
    assert parse_subscribe('{"type": "subscribe"}', request.stream_id) == Subscribe(
        request.stream_id
    )


@given(IDS, IDS)
def test_mismatch(path_id: str, stream_id: str) -> None:
    """Two different ids are an error."""
    assume(path_id != stream_id)
    with pytest.raises(StreamIdMismatch):
        parse_subscribe(protocol.subscribe(Subscribe(stream_id)), path_id)


@given(st.text() | st.binary())
def test_garbage(message: str | bytes) -> None:
    """Whatever comes, the answer is a refusal and never another exception."""
    for parse in (parse_register, lambda message: parse_subscribe(message, "x")):
        with pytest.raises(InvalidMessage):
            parse(message)


UNKNOWN = st.dictionaries(st.text().filter(lambda key: key not in vars(Register())), JSON)
"""Fields that a message may have of which the relay knows nothing."""


@given(JSON, UNKNOWN)
def test_any_id(stream_id: object, unknown: dict[str, object]) -> None:
    """An id is a string that matches, or null; unknown keys do not matter."""
    message = json.dumps(unknown | {"type": "register", "stream_id": stream_id})
    try:
        parsed = parse_register(message).stream_id
    except InvalidStreamId:
        assert stream_id is not None
    else:
        assert parsed == stream_id


@given(JSON)
def test_any_format(video_format: object) -> None:
    """A format is an object that is valid JSON, or null; every other value is refused."""
    try:
        parsed = parse_register(register_with(format=video_format)).format
    except InvalidFormat:
        assert not isinstance(video_format, dict) or not is_valid(video_format)
    else:
        assert parsed == video_format
        assert is_valid(parsed)


def is_valid(value: object) -> bool:
    """Whether JSON as browsers read it can hold a value."""
    try:
        return json.dumps(value, allow_nan=False) != ""
    except ValueError:
        return False


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_format_that_no_browser_reads(number: str) -> None:
    """Python reads numbers that JSON does not have; a format can't hold them."""
    for video_format in ('{"a": %s}', '{"a": [{"b": %s}]}'):
        with pytest.raises(InvalidFormat):
            parse_register('{"type": "register", "format": ' + video_format % number + "}")


@pytest.mark.parametrize(
    ("character", "size"),
    [("x", 1), ("é", 2), ("€", 3), ("\N{GRINNING FACE}", 4), ("\ud800", 3), ('"', 2), ("\x01", 6)],
)
def test_format_size(character: str, size: int) -> None:
    """A format may have FORMAT_LIMIT bytes of compact JSON in UTF-8, however it was written."""
    count, rest = divmod(FORMAT_LIMIT - len('{"a":""}'), size)
    largest = {"a": character * count + "-" * rest}
    for indent in (None, 4):
        for ascii_only in (True, False):
            message = {"type": "register", "format": largest}
            text = json.dumps(message, indent=indent, ensure_ascii=ascii_only)
            assert parse_register(text).format == largest
            assert json.loads(protocol.subscribed("x", (), largest))["format"] == largest
            message["format"] = {"a": largest["a"] + "-"}
            with pytest.raises(InvalidFormat):
                parse_register(json.dumps(message, indent=indent, ensure_ascii=ascii_only))


def test_format_depth() -> None:
    """A format that is read can also be sent; one nested deeper than FORMAT_DEPTH is not read."""

    def build_from(depth: int, video_format: dict[str, object]) -> str:
        if depth:
            return build_from(depth - 1, video_format)
        return protocol.subscribed("x", (), video_format)

    deepest = nested(FORMAT_DEPTH)
    assert parse_register(register_with(format=deepest)).format == deepest
    assert json.loads(build_from(500, deepest))["format"] == deepest
    for depth in (FORMAT_DEPTH + 1, 900, 2_000):
        array = "[" * (depth - 1) + "]" * (depth - 1)
        # Some Pythons can't even read the deepest of these.
        with pytest.raises(InvalidFormat if depth < 200 else Refusal):
            parse_register('{"type": "register", "format": {"a": ' + array + "}}")


@given(st.lists(st.sampled_from(STREAMER_FEATURES + VIEWER_FEATURES) | JSON))
def test_any_features(features: list[object]) -> None:
    """Those known are granted, each once and in one order; whatever else is asked for is not."""
    register = parse_register(register_with(features=features))
    assert register.features == tuple(n for n in STREAMER_FEATURES if n in features)
    subscribe = parse_subscribe(json.dumps({"type": "subscribe", "features": features}), "x")
    assert subscribe.features == tuple(n for n in VIEWER_FEATURES if n in features)


@given(JSON)
def test_no_list_of_features(features: object) -> None:
    """Features that are no list are an invalid message; null is none."""
    assume(not isinstance(features, list))
    message = {"type": "register", "features": features}
    parsers: list[Callable[[str], Register | Subscribe]] = [
        parse_register,
        lambda text: parse_subscribe(text.replace("register", "subscribe", 1), "x"),
    ]
    for parse in parsers:
        if features is None:
            assert parse(json.dumps(message)).features is None
        else:
            with pytest.raises(InvalidMessage):
                parse(json.dumps(message))


@given(JSON)
def test_any_token(token: object) -> None:
    """A token is a string or null."""
    message = register_with(stream_id="x", resume_token=token)
    if token is None or isinstance(token, str):
        assert parse_register(message).resume_token == token
    else:
        with pytest.raises(InvalidMessage):
            parse_register(message)


def test_null_is_nothing() -> None:
    """Null means the same as a field that is left out."""
    message = register_with(stream_id=None, format=None, features=None, resume_token=None)
    assert parse_register(message) == parse_register('{"type": "register"}') == Register()


@given(st.sampled_from(MARKS), UNKNOWN)
def test_marks(kind: str, unknown: dict[str, object]) -> None:
    """A mark is known by its type; unknown keys do not matter."""
    assert parse_mark(protocol.mark(kind)) == kind
    assert parse_mark(json.dumps(unknown | {"type": kind})) == kind


@given(st.text() | st.builds(json.dumps, JSON))
def test_no_mark(text: str) -> None:
    """Any other text is no mark, and no error."""
    assume(not any(kind in text for kind in MARKS))
    assert parse_mark(text) is None


@pytest.mark.parametrize(
    "text", ['{"type": "register"}', '{"type": ["config"]}', '["config"]', "config", "[" * 16_000]
)
def test_nearly_a_mark(text: str) -> None:
    """Nor is a message of another type, or one that only looks like a mark."""
    assert parse_mark(text) is None


@pytest.mark.parametrize(
    "message",
    ["{" * 16_384, '{"a":' * 3_000, '{"type": "register", "n": ' + "9" * 10_000 + "}", "\ud800"],
    ids=len,
)
def test_hard_to_parse(message: str) -> None:
    """JSON that exhausts a parser is an invalid message like any other."""
    with pytest.raises(InvalidMessage):
        parse_register(message)


def test_missing_type() -> None:
    """A message without a type that is a string is invalid."""
    for fields in ({}, {"type": None}, {"type": ["register"]}, {"stream_id": "x"}):
        with pytest.raises(InvalidMessage):
            parse_register(json.dumps(fields))
