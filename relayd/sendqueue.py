"""The kernel's send queue of a viewer: how late what is in it will be, and how much it may hold.

Without a bound up to 4 MiB of stale video hides there, and more in the network's own queues,
which TCP fills for as long as nothing is lost. Measured with an 8 Mbit/s stream through a 4 Mbit/s
link with 3 seconds of queue and cubic, frames 1 second old dropped: 99 % of the frames were at most
7.1 s late without a bound, 1.1 s with it, and as many arrived.
"""

import socket
import struct
import sys
from typing import Any, NamedTuple

if sys.platform == "linux":
    import fcntl

MAX_DELAY = 0.2
"""Seconds of a slow viewer's video that the kernel and the network may hold, beyond the network's
own delay: enough to keep a link full between two acknowledgements."""

_UNSENT = 64 * 1024
"""Bytes that the kernel holds and has not sent yet before it refuses more (TCP_NOTSENT_LOWAT)."""

_LEAST = 16 * 1024
"""Bytes that the kernel may hold of even the slowest viewer: ten packets, as TCP begins with
(RFC 6928)."""

_SIOCOUTQ = 0x5411
"""Asks for the bytes sent and not acknowledged, and those not sent yet (tcp(7))."""

# struct tcp_info of linux/tcp.h, Linux 4.10 or later.
_TCP_INFO_SIZE = 168
_RTT = struct.Struct("=I"), 68
_BYTES_ACKED = struct.Struct("=Q"), 120
_MIN_RTT = struct.Struct("=I"), 148
_DELIVERY_RATE = struct.Struct("=Q"), 160


class _State(NamedTuple):
    outstanding: int  # bytes that have not been acknowledged
    acknowledged: int  # bytes so far
    rate: int  # bytes a second that the network delivered last
    round_trip: float  # seconds, at the least that was seen
    smoothed: float  # seconds, of late


class SendQueue:
    """The kernel's send queue of one connection. Where the kernel is not Linux, it is left alone.

    Args:
        sock: The connection's socket.
        max_delay: Seconds of video that it may hold of a slow viewer.
    """

    def __init__(self, sock: Any, max_delay: float) -> None:
        self._sock = sock
        self._max_delay = max_delay
        self._is_fitted = False
        self._is_known = sys.platform == "linux" and sock.family in (
            socket.AF_INET,
            socket.AF_INET6,
        )
        if self._is_known:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)

    def delay(self, size: int) -> float:
        """Return how many seconds the network will take for these bytes more, 0 if unknown."""
        state = self._look()
        if state is None or not state.rate:
            return 0.0
        return max(0.0, (state.outstanding + size) / state.rate - state.round_trip)

    def fit(self) -> None:
        """Let the kernel hold no more of a slow viewer than the network delivers in time.

        One that is not slow keeps what the kernel found best, until it is.
        """
        state = self._look()
        if state is None or not state.rate:
            return
        if not self._is_fitted:
            if state.outstanding / state.rate - state.round_trip < self._max_delay:
                return
            self._is_fitted = True
        room = max(_LEAST, int(state.rate * (state.round_trip + self._max_delay)))
        # The kernel doubles it, for what it needs itself (socket(7)).
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room // 2)

    def acknowledged(self) -> int:
        """Return how many bytes the client's kernel has acknowledged so far, 0 if unknown."""
        state = self._look()
        return state.acknowledged if state is not None else 0

    def network(self) -> tuple[int, float] | None:
        """Return the bytes that have not been acknowledged and the round trip in seconds."""
        state = self._look()
        return (state.outstanding, state.smoothed) if state is not None else None

    def _look(self) -> _State | None:
        if sys.platform != "linux" or not self._is_known:
            return None
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
            outstanding = fcntl.ioctl(self._sock.fileno(), _SIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # closed meanwhile
            return None
        if len(info) < _TCP_INFO_SIZE:
            return None

        def field(of: tuple[struct.Struct, int]) -> int:
            layout, offset = of
            value: int = layout.unpack_from(info, offset)[0]
            return value

        return _State(
            int.from_bytes(outstanding, sys.byteorder),
            field(_BYTES_ACKED),
            field(_DELIVERY_RATE),
            field(_MIN_RTT) / 1e6,
            field(_RTT) / 1e6,
        )
