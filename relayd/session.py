"""Streams and who takes part in them: ids, limits, life cycle.

The registry owns the streams, a stream owns its viewers. No asyncio and no sockets.
"""

import secrets
import string
import time
from collections.abc import Callable

from .config import Config
from .protocol import (
    CloseCode,
    StreamIdInUse,
    StreamNotFound,
    TooManyStreams,
    TooManyViewers,
    stream_ended,
)
from .relay import DropLog, FanOut, Sink, Viewer, text_frame

_ID_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 8


class Stream:
    """One streamer's frames and the viewers that get them.

    Attributes:
        id: The key that viewers ask for.
        fan_out: Takes the streamer's frames.
    """

    def __init__(self, stream_id: str, config: Config, clock: Callable[[], float]) -> None:
        self.id = stream_id
        self.fan_out = FanOut(config.viewer_buffer, DropLog(stream_id, clock))
        self._max_viewers = config.max_viewers_per_stream
        self._viewers: set[Viewer] = set()

    @property
    def viewer_count(self) -> int:
        """The number of viewers."""
        return len(self._viewers)

    def add_viewer(self, sink: Sink, peer: str) -> Viewer:
        """Let a viewer in; from now on it gets every frame.

        Raises:
            TooManyViewers: If the stream has MAX_VIEWERS_PER_STREAM of them.
        """
        if len(self._viewers) >= self._max_viewers:
            raise TooManyViewers
        viewer = Viewer(sink, peer, self.fan_out)
        self._viewers.add(viewer)
        return viewer

    def remove_viewer(self, viewer: Viewer) -> None:
        """Send no more to a viewer that has left; no error if the stream has ended meanwhile."""
        viewer.close()
        self._viewers.discard(viewer)

    def end(self) -> None:
        """Tell every viewer that the stream has ended, after the frames that still wait for it."""
        message = text_frame(stream_ended(self.id))
        for viewer in self._viewers:
            viewer.end(message, CloseCode.NORMAL)
        self._viewers.clear()


class Registry:
    """Every stream of this relay, by id."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._streams: dict[str, Stream] = {}

    @property
    def stream_count(self) -> int:
        """The number of streams."""
        return len(self._streams)

    @property
    def viewer_count(self) -> int:
        """The number of viewers of all streams."""
        return sum(stream.viewer_count for stream in self._streams.values())

    def register(self, stream_id: str | None) -> Stream:
        """Begin a stream under this id, or under a new random one.

        Raises:
            StreamIdInUse: If another streamer has the id.
            TooManyStreams: If there are MAX_STREAMS streams.
        """
        if stream_id in self._streams:
            raise StreamIdInUse
        if len(self._streams) >= self._config.max_streams:
            raise TooManyStreams
        if stream_id is None:
            stream_id = self._draw_id()
        stream = self._streams[stream_id] = Stream(stream_id, self._config, self._clock)
        return stream

    def find(self, stream_id: str) -> Stream:
        """Return the stream with this id.

        Raises:
            StreamNotFound: If there is none.
        """
        try:
            return self._streams[stream_id]
        except KeyError:
            raise StreamNotFound from None

    def end(self, stream: Stream) -> None:
        """End a stream; its id is free at once."""
        del self._streams[stream.id]
        stream.end()

    def _draw_id(self) -> str:
        while True:
            stream_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
            if stream_id not in self._streams:
                return stream_id
