"""The bytes of WebSocket frames from a server (RFC 6455 section 5.2): unmasked, unfragmented."""

from struct import Struct

_FIN_TEXT = 0x81
FIN_BINARY = 0x82

pack_16 = Struct(">BBH").pack
_pack_64 = Struct(">BBQ").pack


def binary_frame(payload: bytes) -> bytes:
    """Return the bytes of a binary message."""
    return frame_header(FIN_BINARY, len(payload)) + payload


def text_frame(text: str) -> bytes:
    """Return the bytes of a text message."""
    payload = text.encode()
    return frame_header(_FIN_TEXT, len(payload)) + payload


def frame_header(first: int, length: int) -> bytes:
    """Return the header of a frame: its first byte and its length in bytes."""
    if length < 126:
        return bytes((first, length))
    if length < 2**16:
        return pack_16(first, 126, length)
    return _pack_64(first, 127, length)
