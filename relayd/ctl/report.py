"""What a relay says of its streams and viewers, and what that means."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .client import one_line

SETTLED = 2.0
"""Seconds from which on a rate is one of what is there: the relay takes it over up to as many."""

LATE = 0.25
"""Lag in seconds from which on a viewer's network is called slow: people begin to notice."""

LOSS = 0.2
"""Share of a stream's frames from which on a viewer that lacks it is called slow.

The rates of a stream and its viewers may be a few frames apart without a loss.
"""


class State(enum.Enum):
    """What is up with a stream or a viewer, in words; the most urgent first."""

    LOST = "streamer lost"
    STALLED = "stalled"
    SLOW = "slow network"
    KEYFRAME = "waits for a keyframe"
    IDLE = "no frames come"
    OK = "ok"

    @property
    def urgency(self) -> int:
        """Sorts states: the most urgent has the lowest."""
        return list(State).index(self)

    @property
    def is_trouble(self) -> bool:
        """Whether somebody does not see what they should."""
        return self not in (State.IDLE, State.OK)


@dataclass(frozen=True)
class Viewer:
    """One viewer.

    Attributes:
        number: What the relay calls it.
        address: Where it connects from.
        age: Seconds since it joined.
        fps: Frames a second handed to its network, over the last one to two seconds.
        bitrate: The same in bit/s.
        lag: How many seconds late a frame is that is sent now.
        queue_frames: Frames that wait in the relay.
        queue_bytes: The same in bytes.
        unacknowledged: Bytes on their way to it; None where the relay can't know.
        rtt: Seconds to it and back; None where the relay can't know.
        waits_for: What keeps frames from it: its network, the next keyframe, or nothing.
        frames: Frames delivered so far.
        dropped: Frames dropped so far.
        drops: The same by reason: late, buffer, keyframe.
    """

    number: int
    address: str
    age: float
    fps: float
    bitrate: float
    lag: float
    queue_frames: int
    queue_bytes: int
    unacknowledged: int | None
    rtt: float | None
    waits_for: str | None
    frames: int
    dropped: int
    drops: Mapping[str, int]

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> "Viewer":
        """Parse what a relay says of a viewer.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: If it is not as expected.
        """
        unacknowledged, rtt = fields["unacknowledged_bytes"], fields["rtt"]
        return cls(
            number=int(fields["id"]),
            address=one_line(fields["address"]),
            age=float(fields["age"]),
            fps=float(fields["fps"]),
            bitrate=float(fields["bitrate"]),
            lag=float(fields["lag"]),
            queue_frames=int(fields["queue_frames"]),
            queue_bytes=int(fields["queue_bytes"]),
            unacknowledged=None if unacknowledged is None else int(unacknowledged),
            rtt=None if rtt is None else float(rtt),
            waits_for=fields["waits_for"],
            frames=int(fields["frames"]),
            dropped=int(fields["dropped"]),
            drops={one_line(reason): int(count) for reason, count in fields["drops"].items()},
        )

    def state_at(self, stream_fps: float) -> State:
        """Return what is up with it while its stream has this rate.

        Says only what the figures prove: a viewer that has just joined is ok.
        """
        if self.age < SETTLED:
            return State.OK
        if self.waits_for == "keyframe":
            return State.KEYFRAME
        if not self.fps and self.waits_for == "network":
            return State.STALLED
        if self.lag >= LATE or (self.dropped and self.fps < stream_fps * (1 - LOSS)):
            return State.SLOW
        return State.OK if stream_fps else State.IDLE


@dataclass(frozen=True)
class Stream:
    """One stream.

    Attributes:
        stream_id: Its id.
        address: Where its streamer connects from; None while it is lost.
        age: Seconds since it began.
        fps: Frames a second received, over the last one to two seconds.
        bitrate: The same in bit/s.
        frames: Frames received so far.
        resumes: How often the streamer came back.
        state: What is up with it; its viewers aside.
        viewers: Its viewers with what is up with each, the most urgent first.
    """

    stream_id: str
    address: str | None
    age: float
    fps: float
    bitrate: float
    frames: int
    resumes: int
    state: State
    viewers: tuple[tuple[State, Viewer], ...]

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> "Stream":
        """Parse what a relay says of a stream.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: If it is not as expected.
        """
        address, age, fps = fields["address"], float(fields["age"]), float(fields["fps"])
        viewers = [Viewer.parse(viewer) for viewer in fields["viewers"]]
        judged = [(viewer.state_at(fps), viewer) for viewer in viewers]
        judged.sort(key=lambda entry: (entry[0].urgency, -entry[1].lag, entry[1].number))
        if address is None:
            state = State.LOST
        else:
            state = State.IDLE if age >= SETTLED and not fps else State.OK
        return cls(
            stream_id=one_line(fields["id"]),
            address=None if address is None else one_line(address),
            age=age,
            fps=fps,
            bitrate=float(fields["bitrate"]),
            frames=int(fields["frames"]),
            resumes=int(fields["resumes"]),
            state=state,
            viewers=tuple(judged),
        )

    @property
    def states(self) -> list[State]:
        """What is up with it and with each of its viewers."""
        return [self.state, *(state for state, _ in self.viewers)]


def by_urgency(streams: Iterable[Stream]) -> list[Stream]:
    """Return streams with those in the worst trouble first; those alike by name."""

    def urgency(stream: Stream) -> tuple[int, int, str]:
        worst = min(stream.states, key=lambda state: state.urgency)
        if not worst.is_trouble:
            return State.OK.urgency, 0, stream.stream_id
        return worst.urgency, -stream.states.count(worst), stream.stream_id

    return sorted(streams, key=urgency)
