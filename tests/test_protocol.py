"""The wire protocol's messages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd import protocol
from relayd.protocol import (
    InvalidMessage,
    InvalidStreamId,
    Refusal,
    StreamIdMismatch,
    parse_register,
    parse_subscribe,
)

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


def test_messages() -> None:
    """Messages look as PROTOCOL.md shows them, to the byte."""
    assert protocol.register(None) == '{"type": "register", "stream_id": null}'
    assert protocol.registered("k3J9xQ2b") == '{"type": "registered", "stream_id": "k3J9xQ2b"}'
    assert protocol.subscribe("k3J9xQ2b") == '{"type": "subscribe", "stream_id": "k3J9xQ2b"}'
    assert protocol.subscribed("k3J9xQ2b") == '{"type": "subscribed", "stream_id": "k3J9xQ2b"}'
    assert protocol.stream_ended("k3J9xQ2b") == '{"type": "stream_ended", "stream_id": "k3J9xQ2b"}'
    not_found = protocol.StreamNotFound()
    assert protocol.error(not_found) == '{"type": "error", "message": "stream not found"}'


def test_refusals() -> None:
    """Every refusal has the message and the close code of the protocol's table."""
    assert {(r.message, int(r.code)) for r in Refusal.__subclasses__()} == {
        ("invalid message", 4400),
        ("invalid stream id", 4400),
        ("stream id mismatch", 4400),
        ("stream not found", 4404),
        ("timed out", 4408),
        ("stream id already in use", 4409),
        ("too many streams", 4429),
        ("too many viewers", 4429),
    }
    assert str(protocol.TooManyStreams()) == "too many streams"


@given(IDS)
def test_round_trip(stream_id: str) -> None:
    """What a client builds, the server reads."""
    assert parse_register(protocol.register(stream_id)) == stream_id
    assert parse_subscribe(protocol.subscribe(stream_id), stream_id) == stream_id
    assert parse_subscribe('{"type": "subscribe"}', stream_id) == stream_id


@given(IDS, IDS)
def test_mismatch(path_id: str, stream_id: str) -> None:
    """Two different ids are an error."""
    if path_id != stream_id:
        with pytest.raises(StreamIdMismatch):
            parse_subscribe(protocol.subscribe(stream_id), path_id)


@given(st.text() | st.binary())
def test_garbage(message: str | bytes) -> None:
    """Whatever comes, the answer is a refusal and never another exception."""
    for parse in (parse_register, lambda message: parse_subscribe(message, "x")):
        with pytest.raises(InvalidMessage):
            parse(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON, st.dictionaries(st.text(), JSON))
def test_any_id(stream_id: object, unknown: dict[str, object]) -> None:
    """An id is a string that matches, or null; unknown keys do not matter."""
    message = json.dumps(unknown | {"type": "register", "stream_id": stream_id})
    try:
        parsed = parse_register(message)
    except InvalidStreamId:
        assert stream_id is not None
    else:
        assert parsed == stream_id


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
