"""Streams and who takes part in them: ids, limits, resume, life cycle.

The registry owns the streams, a stream owns its viewers. No asyncio and no sockets.
"""

import logging
import secrets
import string
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from .config import Config
from .counters import Counters
from .feedback import Clock, Feedback, Timer
from .protocol import (
    CloseCode,
    Register,
    StreamIdInUse,
    StreamNotFound,
    Subscribe,
    TooManyStreams,
    TooManyViewers,
    registered,
    stream_ended,
    stream_paused,
    stream_resumed,
    subscribed,
)
from .relay.droplog import DropLog
from .relay.fanout import FanOut, Limits, Sink, Viewer
from .relay.frames import text_frame

logger = logging.getLogger(__name__)

_ID_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 8

_TOKEN_SIZE = 16
"""Bytes of randomness in a resume token: as many as in an AES-128 key."""


class Streamer(Protocol):
    """The connection that a stream's frames come from.

    Attributes:
        peer: Its address, for the operator.
    """

    peer: str

    def send_text(self, text: str, /) -> None:
        """Send a text message."""
        ...

    def end(self, code: int, /) -> None:
        """Start the closing handshake."""
        ...


class Attendance:
    """Every viewer of a relay by number, until its connection has ended.

    Args:
        counters: Told what those got that have left.
    """

    def __init__(self, counters: Counters) -> None:
        self.viewers: dict[int, Viewer] = {}
        self._counters = counters

    def next_number(self) -> int:
        """Return the number of the next viewer."""
        self._counters.viewers += 1
        return self._counters.viewers

    def add(self, viewer: Viewer) -> None:
        """Let a viewer in."""
        self.viewers[viewer.number] = viewer

    def remove(self, viewer: Viewer) -> None:
        """Let a viewer go that is closed."""
        if self.viewers.pop(viewer.number, None) is not None:
            counters = self._counters
            counters.frames_sent += viewer.delivered
            counters.bytes_sent += viewer.delivered_size
            counters.drops.update(viewer.drops)


class Stream:
    """One streamer's frames and the viewers that get them.

    Between two streamers it is paused, if the first one asked for that.

    Attributes:
        id: The key that viewers ask for.
        began: When it began, by the registry's clock.
        fan_out: Takes the streamer's frames.
        resumes: How often a streamer has taken it up again.
    """

    def __init__(
        self,
        stream_id: str,
        config: Config,
        clock: Clock,
        counters: Counters,
        attendance: Attendance,
    ) -> None:
        self.id = stream_id
        self.began = clock.time()
        self.resumes = 0
        limits = Limits(config.max_lag, config.viewer_buffer, config.group_buffer)
        drop_log = DropLog(stream_id, clock.time)
        self.fan_out = FanOut(
            limits, drop_log, clock.time, self._request_keyframe, counters.frame_lag
        )
        self._clock = clock
        self._attendance = attendance
        self._max_viewers = config.max_viewers_per_stream
        self._resume_window = config.resume_window
        self._viewers: set[Viewer] = set()
        self._streamer: Streamer | None = None
        self._feedback: Feedback | None = None
        self._format: Mapping[str, Any] | None = None
        self._resume_token: str | None = None
        self._expiry: Timer | None = None

    @property
    def viewer_count(self) -> int:
        """The number of viewers."""
        return len(self._viewers)

    @property
    def viewers(self) -> Iterable[Viewer]:
        """Its viewers, in the order of their numbers."""
        return sorted(self._viewers, key=lambda viewer: viewer.number)

    @property
    def streamer(self) -> Streamer | None:
        """The connection that its frames come from, None while it waits for one."""
        return self._streamer

    @property
    def needs_keyframe(self) -> bool:
        """Whether some viewer can show no picture until the next keyframe."""
        return self.fan_out.needs_keyframe

    @property
    def can_resume(self) -> bool:
        """Whether the streamer asked to be waited for when it is lost."""
        return self._resume_token is not None

    def take_toll(self) -> tuple[int, int, float]:
        """Return what slowness cost since the last call.

        Those are the number of viewers that lost frames or that frames wait for, the frames
        dropped, and the most seconds that a frame was late.
        """
        tolls = [(viewer, *viewer.take_toll()) for viewer in self._viewers]
        return (
            sum(1 for viewer, dropped, _ in tolls if dropped or viewer.waiting),
            sum(dropped for _, dropped, _ in tolls),
            max((lag for _, _, lag in tolls), default=0.0),
        )

    def is_of(self, streamer: Streamer) -> bool:
        """Whether its frames come from this connection, and no other has taken its place."""
        return self._streamer is streamer

    def accepts(self, token: str | None) -> bool:
        """Whether this is the resume token; the time that takes does not tell how much is right."""
        return (
            token is not None
            and self._resume_token is not None
            # As bytes: text would have to be ASCII.
            and secrets.compare_digest(token.encode(errors="replace"), self._resume_token.encode())
        )

    def begin(self, streamer: Streamer, request: Register, *, resumed: bool = False) -> None:
        """Take frames from this streamer from now on, and tell it so."""
        features = request.features
        if features is not None and not self._resume_window:
            features = tuple(name for name in features if name != "resume")
        granted = features or ()
        self._streamer = streamer
        self._resume_token = secrets.token_urlsafe(_TOKEN_SIZE) if "resume" in granted else None
        if request.format is not None:
            self._format = request.format
        streamer.send_text(registered(self.id, features, self._resume_token, resumed=resumed))
        self._feedback = Feedback(streamer.send_text, granted, self, self._clock)

    def resume(self, streamer: Streamer, request: Register) -> None:
        """Go on with another streamer; one that still looks alive is let go."""
        if self._streamer is not None:
            replaced = self._streamer
            self._pause()
            replaced.end(CloseCode.CONFLICT)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.resumes += 1
        self.begin(streamer, request, resumed=True)
        self._tell_status(stream_resumed(self._format))
        self.fan_out.await_keyframe()

    def wait_for_resume(self, expiry: Timer) -> None:
        """Go on without a streamer, until this timer is due."""
        self._pause()
        self._expiry = expiry

    def add_viewer(self, sink: Sink, peer: str, request: Subscribe) -> Viewer:
        """Let a viewer in, tell it so and show it a picture; from now on it gets every frame.

        Raises:
            TooManyViewers: If the stream has MAX_VIEWERS_PER_STREAM of them.
        """
        if len(self._viewers) >= self._max_viewers:
            raise TooManyViewers
        features = request.features or ()
        viewer = Viewer(
            sink,
            peer,
            self.fan_out,
            number=self._attendance.next_number(),
            tells_gaps="gaps" in features,
            tells_status="status" in features,
        )
        self._viewers.add(viewer)
        self._attendance.add(viewer)
        sink.attach(viewer)
        viewer.send(text_frame(subscribed(self.id, request.features, self._format)))
        if viewer.tells_status and self._streamer is None:
            viewer.send(text_frame(stream_paused()))
        viewer.start()
        self._count_viewers()
        return viewer

    def remove_viewer(self, viewer: Viewer) -> None:
        """Send no more to a viewer that has left; no error if the stream has ended meanwhile."""
        viewer.close()
        self._attendance.remove(viewer)
        if viewer in self._viewers:
            self._viewers.remove(viewer)
            self._count_viewers()

    def end(self) -> None:
        """Tell every viewer that the stream has ended, after the frames that still wait for it."""
        self._let_streamer_go()
        if self._expiry is not None:
            self._expiry.cancel()
        message = text_frame(stream_ended(self.id))
        for viewer in self._viewers:
            viewer.end(message, CloseCode.NORMAL)
        self._viewers.clear()
        self.fan_out.close()

    def _pause(self) -> None:
        self._let_streamer_go()
        self._tell_status(stream_paused())

    def _let_streamer_go(self) -> None:
        self._streamer = None
        if self._feedback is not None:
            self._feedback.stop()
            self._feedback = None

    def _tell_status(self, text: str) -> None:
        message = text_frame(text)
        for viewer in self._viewers:
            if viewer.tells_status:
                viewer.send(message)

    def _count_viewers(self) -> None:
        if self._feedback is not None:
            self._feedback.count_viewers()

    def _request_keyframe(self) -> None:
        if self._feedback is not None:
            self._feedback.request_keyframe()


class Registry:
    """Every stream of this relay, by id.

    Args:
        config: The limits.
        clock: Tells the time, and when a lost streamer has been waited for long enough.

    Attributes:
        counters: What has happened so far.
        attendance: The viewers of all streams, and of those that have just ended.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._streams: dict[str, Stream] = {}
        self.counters = Counters()
        self.attendance = Attendance(self.counters)

    @property
    def streams(self) -> Iterable[Stream]:
        """The streams, in the order of their ids."""
        return [self._streams[stream_id] for stream_id in sorted(self._streams)]

    @property
    def stream_count(self) -> int:
        """The number of streams."""
        return len(self._streams)

    @property
    def viewer_count(self) -> int:
        """The number of viewers of all streams."""
        return sum(stream.viewer_count for stream in self._streams.values())

    def register(self, request: Register, streamer: Streamer) -> tuple[Stream, bool]:
        """Begin a stream under the id asked for or a new random one, or resume one by its token.

        Returns the stream, and whether it is resumed.

        Raises:
            StreamIdInUse: If another streamer has the id.
            TooManyStreams: If there are MAX_STREAMS streams.
        """
        stream_id = request.stream_id
        if stream_id in self._streams:
            stream = self._streams[stream_id]
            if not stream.accepts(request.resume_token):
                raise StreamIdInUse
            stream.resume(streamer, request)
            self.counters.resumes += 1
            return stream, True
        if len(self._streams) >= self._config.max_streams:
            raise TooManyStreams
        if stream_id is None:
            stream_id = self._draw_id()
        stream = Stream(stream_id, self._config, self._clock, self.counters, self.attendance)
        self._streams[stream_id] = stream
        self.counters.streams += 1
        stream.begin(streamer, request)
        return stream, False

    def find(self, stream_id: str) -> Stream:
        """Return the stream with this id.

        Raises:
            StreamNotFound: If there is none.
        """
        try:
            return self._streams[stream_id]
        except KeyError:
            raise StreamNotFound from None

    def lose(self, stream: Stream) -> None:
        """Wait RESUME_WINDOW seconds for a streamer that is lost, if it asked for that."""
        if stream.can_resume:

            def expire() -> None:
                self.end(stream)
                who = {"role": "stream", "stream": stream.id}
                logger.info("ended: not resumed in time", extra=who)

            stream.wait_for_resume(self._clock.call_later(self._config.resume_window, expire))
        else:
            self.end(stream)

    def kick_stream(self, stream_id: str) -> None:
        """End a stream, and close its streamer's connection.

        Raises:
            StreamNotFound: If there is none with this id.
        """
        stream = self.find(stream_id)
        streamer = stream.streamer
        self.counters.kicks += 1
        self.end(stream)
        if streamer is not None:
            streamer.end(CloseCode.POLICY_VIOLATION)

    def kick_viewer(self, number: int) -> bool:
        """Close a viewer's connection; tell whether there is a viewer with this number."""
        viewer = self.attendance.viewers.get(number)
        if viewer is None:
            return False
        self.counters.kicks += 1
        viewer.kick(CloseCode.POLICY_VIOLATION)
        return True

    def end(self, stream: Stream) -> None:
        """End a stream; its id is free at once."""
        del self._streams[stream.id]
        self.counters.frames_received += stream.fan_out.frames
        self.counters.bytes_received += stream.fan_out.size
        stream.end()

    def _draw_id(self) -> str:
        while True:
            stream_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
            if stream_id not in self._streams:
                return stream_id
