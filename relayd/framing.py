"""The way in: a client's bytes, cut at the boundaries of WebSocket frames (RFC 6455 section 5.2).

A video frame (one unfragmented, masked binary message without reserved bits) goes straight to the
relay, as the bytes that viewers get. Everything else goes to the library's parser, which stays the
authority on the protocol.
"""

from collections.abc import Callable

from websockets.http11 import MAX_LINE_LENGTH
from websockets.protocol import CLOSED, CLOSING, OPEN, Protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # an installation without the C extension
    from websockets.utils import apply_mask

from .relay.frames import FIN_BINARY, frame_header, pack_16

_MASKED = 0x80
_OPCODES = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))
_TEXT, _BINARY = 0x1, 0x2

_MASK_SIZE = 4
_LONGEST_HEADER = 10
"""First byte, second byte, eight bytes of length; the mask comes after it."""

_KEPT_BUFFER = 2**20
"""Bytes of gathering space that a connection keeps from one frame to the next: more than the
keyframes of a phone's screen, little enough for a hundred streamers."""

_VIEW_SIZE = 8192
"""Bytes from which on a view costs less than a copy."""


def _nowhere(data: bytes) -> None:
    """Take bytes that come after the end."""


class RequestGate:
    """Lets a GET or HEAD request through, and of any other one only its first line.

    Nothing else of it is needed to answer it, and the library hangs up on a request that has a
    body, without an answer.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._is_whole = False
        self._answered = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return what to parse of the request, and what follows the request once it is whole."""
        if self._answered:
            return b"", None
        self._held += data
        if not self._is_whole:
            line, line_end, _ = self._held.partition(b"\r\n")
            self._is_whole = (
                self._held.startswith((b"GET ", b"HEAD ")) or len(line) > MAX_LINE_LENGTH
            )
            if not self._is_whole:
                self._answered = bool(line_end)
                return (bytes(line) + b"\r\n\r\n" if line_end else b""), None
            data = bytes(self._held)
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            # The end may come in two pieces.
            del self._held[:-3]
            return data, None
        end += 4 - len(self._held)
        return data[: len(data) + end], data[len(data) + end :]


class FrameReader:
    """Takes a client's bytes as they come; hands over its video frames and all else.

    Linear in the bytes that come in, however they are cut: those of a large frame are copied once
    into place, and once more when they are unmasked.

    Args:
        protocol: The library's side of the connection: its state and its limit on messages.
        library: Takes bytes for the library's parser, never across the end of a frame while the
            connection is open.
        text_limit: The largest text message, in bytes.
    """

    def __init__(
        self, protocol: Protocol, library: Callable[[bytes], None], text_limit: int
    ) -> None:
        self.binary_limit = text_limit
        self._relay: Callable[[bytes], None] = _nowhere
        self._direct = False  # a video frame may take the fast way: nothing is in its way
        self._protocol = protocol
        self._library = library
        self._text_limit = text_limit
        self._held = b""  # the beginning of a header
        self._passing = 0  # bytes of a frame that are still to come for the library
        self._gathered = 0  # end of what has come of a video frame, in the buffer; 0: there is none
        self._frame_end = 0  # end of the whole frame, in the buffer
        self._buffer = bytearray()

    def hand_over(self, relay: Callable[[bytes], None]) -> None:
        """Hand over video frames from the next one on, as the bytes that viewers get."""
        self._relay = relay
        self.settle()

    def settle(self) -> None:
        """Look whether the connection has left its normal state, or is back in it."""
        self._direct = (
            self._relay is not _nowhere
            and self._protocol.state is OPEN
            and self._protocol.current_size is None
        )

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the client."""
        if self._gathered:
            position = self._gather(data, 0)
        elif self._passing:
            position = self._pass(data, 0)
        else:
            position = 0
            if self._held:
                data = self._held + data
                self._held = b""
        size = len(data)
        while position < size:
            if data[position] != FIN_BINARY or not self._direct or position + 8 > size:
                position = self._other(data, position)
                continue
            second = data[position + 1]
            if second == 254:
                length = (data[position + 2] << 8) | data[position + 3]
                start = position + 8
            elif second == 255 and position + 10 <= size:
                length = int.from_bytes(data[position + 2 : position + 10], "big")
                start = position + 14
            elif 128 <= second < 254:
                length = second - 128
                start = position + 6
            else:
                position = self._other(data, position)
                continue
            end = start + length
            if length > self.binary_limit:
                position = self._other(data, position)
            elif end <= size:
                masked = data[start:end] if length < _VIEW_SIZE else memoryview(data)[start:end]
                payload = apply_mask(masked, data[start - 4 : start])
                # The usual size without a call, which costs some 5 % of this function.
                if 126 <= length < 65536:
                    self._relay(pack_16(FIN_BINARY, 126, length) + payload)
                else:
                    self._relay(frame_header(FIN_BINARY, length) + payload)
                position = end
            else:
                self._begin(length)
                position = self._gather(data, start - 4)

    def close(self) -> None:
        """Let go of what the reader was given and of what it holds."""
        self._relay = _nowhere
        self._library = _nowhere
        self._buffer = bytearray()

    def _begin(self, length: int) -> None:
        """Make room for a mask and a payload of this many bytes."""
        self._frame_end = _LONGEST_HEADER + _MASK_SIZE + length
        if len(self._buffer) < self._frame_end:
            self._buffer = bytearray(self._frame_end)
        self._gathered = _LONGEST_HEADER

    def _gather(self, data: bytes, position: int) -> int:
        """Take what has come of a video frame; hand it over when it is whole."""
        gathered = self._gathered
        missing = self._frame_end - gathered
        available = len(data) - position
        if available < missing:
            if position:
                data = data[position:]
            self._buffer[gathered : gathered + available] = data
            self._gathered = gathered + available
            return position + available
        self._buffer[gathered : gathered + missing] = data[position : position + missing]
        self._gathered = 0
        self._hand_over()
        return position + missing

    def _hand_over(self) -> None:
        """Unmask the gathered frame into the bytes that viewers get, in one pass.

        The header that viewers get is put in front of the payload, masked, so that unmasking both
        gives a whole frame and no second copy is needed to join them.
        """
        buffer, end = self._buffer, self._frame_end
        start = _LONGEST_HEADER + _MASK_SIZE
        mask = bytes(buffer[_LONGEST_HEADER:start])
        header = frame_header(FIN_BINARY, end - start)
        size = len(header)
        turn = -size % 4
        mask = mask[turn:] + mask[:turn]
        buffer[start - size : start] = apply_mask(header, mask)
        with memoryview(buffer) as view:
            frame = apply_mask(view[start - size : end], mask)
        if len(buffer) > _KEPT_BUFFER:
            self._buffer = bytearray()
        self._relay(frame)

    def _other(self, data: bytes, position: int) -> int:
        """Deal with a frame that is not video, or whose header is not there yet."""
        protocol = self._protocol
        size = len(data)
        if protocol.state is CLOSING or protocol.state is CLOSED:
            self._library(data[position:])
            return size
        if size - position < 2:
            self._held = data[position:]
            return size
        first, second = data[position], data[position + 1]
        opcode = first & 0x0F
        if opcode not in _OPCODES or second < _MASKED:
            # The library fails the connection as soon as it sees this.
            self._library(data[position:])
            return size
        length = second - _MASKED
        header = 2
        if length >= 126:
            header = 4 if length == 126 else 10
            if size - position < header:
                self._held = data[position:]
                return size
            length = int.from_bytes(data[position + 2 : position + header], "big")
        if first == FIN_BINARY and self._direct and length <= self.binary_limit:
            self._begin(length)
            return self._gather(data, position + header)
        if opcode == _TEXT:
            protocol.max_message_size = self._text_limit
        elif opcode == _BINARY:
            protocol.max_message_size = self.binary_limit
        self._passing = header + _MASK_SIZE + length
        return self._pass(data, position)

    def _pass(self, data: bytes, position: int) -> int:
        """Pass on what has come of a frame to the library."""
        piece = data[position : position + self._passing]
        self._passing -= len(piece)
        self._library(piece)
        self.settle()
        return position + len(piece)
