"""A WebSocket over a plain socket: it reads only when the test says so, and keeps every byte."""

import json
import socket
import struct
from types import TracebackType
from typing import Any

import hostile
from harness import PATIENCE, RelayProcess
from hostile import BINARY, CLOSE, PING, PONG, TEXT, frame, read_handshake, upgrade_request

Message = dict[str, Any] | bytes | int
"""What the relay sends: signalling, the bytes of a video frame, the code of a close frame."""

SMALL = 32 * 1024
"""A kernel's buffer that is full after a few frames."""


class RawClient:
    """A streamer or a viewer that decides itself when it reads; as a context manager.

    Args:
        relay: Where it connects to.
        path: What it connects to.
        receive_buffer: The size of the kernel's buffer for what it has not read, in bytes.
        fields: Its first message.

    Attributes:
        reply: The answer to its first message.
        received: All bytes that it has got since the opening handshake.
        address: Its address as the log shows it.
    """

    def __init__(
        self, relay: RelayProcess, path: str, receive_buffer: int | None = None, **fields: Any
    ) -> None:
        self.received = bytearray()
        self._position = 0
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", relay.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = "{}:{}".format(*self.socket.getsockname())
        self.socket.sendall(upgrade_request(path))
        read_handshake(self.socket)
        self.send(fields)
        reply = self.receive()
        assert isinstance(reply, dict), reply
        self.reply = reply

    @classmethod
    def streamer(cls, relay: RelayProcess, stream_id: str | None, **fields: Any) -> "RawClient":
        """Register a stream."""
        return cls(relay, "/ws/stream", type="register", stream_id=stream_id, **fields)

    @classmethod
    def viewer(
        cls,
        relay: RelayProcess,
        stream_id: str,
        receive_buffer: int | None = None,
        **fields: Any,
    ) -> "RawClient":
        """Subscribe to a stream."""
        path = f"/ws/view/{stream_id}"
        return cls(relay, path, receive_buffer, type="subscribe", stream_id=stream_id, **fields)

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    @property
    def token(self) -> str:
        """The resume token that it was given."""
        token: str = self.reply["resume_token"]
        return token

    def send(self, message: Message | str) -> None:
        """Send signalling, a video frame, a close frame with this code, or any text."""
        if isinstance(message, dict):
            message = json.dumps(message)
        if isinstance(message, int):
            self.socket.sendall(frame(CLOSE, struct.pack("!H", message)))
        else:
            self.socket.sendall(frame(TEXT if isinstance(message, str) else BINARY, message))

    def receive(self) -> Message:
        """Wait for the next message; answer the pings that come before it."""
        while True:
            head = self.read(2)
            opcode, length = head[0] & 0x0F, head[1]
            assert head[0] & 0xF0 == 0x80, "the relay sends whole messages without RSV bits"
            if length >= 126:
                length = int.from_bytes(self.read(2 if length == 126 else 8))
            payload = self.read(length)
            if opcode == PING:
                self.socket.sendall(frame(PONG, payload))
            elif opcode == TEXT:
                signalling: dict[str, Any] = json.loads(payload)
                return signalling
            elif opcode == CLOSE:
                return int.from_bytes(payload[:2])
            else:
                assert opcode == BINARY
                return payload

    def receive_until(self, last: Message) -> list[Message]:
        """Return the next messages up to this one."""
        messages = [self.receive()]
        while messages[-1] != last:
            assert not isinstance(messages[-1], int), f"closed before {last!r}: {messages}"
            messages.append(self.receive())
        return messages

    def leave(self) -> list[Message]:
        """Close cleanly; return the messages that had not been read."""
        self.send(1000)
        messages = self.receive_until(1000)
        self.finish()
        return messages[:-1]

    def finish(self) -> None:
        """Read until the relay has closed the TCP connection, and close it too."""
        while data := self.socket.recv(2**16):
            self.received += data
        self.socket.close()

    def reset(self) -> None:
        """Be gone without a goodbye: RST instead of FIN."""
        hostile.reset(self.socket)

    def read(self, size: int) -> bytes:
        """Wait for so many bytes."""
        while len(self.received) - self._position < size:
            data = self.socket.recv(2**16)
            assert data, "the connection ended without a close frame"
            self.received += data
        self._position += size
        return bytes(self.received[self._position - size : self._position])
