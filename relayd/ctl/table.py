"""Streams and viewers as tables of text."""

from collections import Counter
from collections.abc import Mapping, Sequence

from .meter import counted
from .report import State, Stream, Viewer, by_urgency

STREAM_COLUMNS = (
    "STREAM",
    "STREAMER",
    "AGE",
    "FPS",
    "KBIT/S",
    "FRAMES",
    "RESUMES",
    "VIEWERS",
    "STATE",
)
VIEWER_COLUMNS = (
    "VIEWER",
    "ADDRESS",
    "AGE",
    "FPS",
    "KBIT/S",
    "LAG",
    "RTT",
    "QUEUE",
    "UNACKED",
    "FRAMES",
    "LATE",
    "BUFFER",
    "KEYFRAME",
    "STATE",
)
TOP_COLUMNS = (
    "STREAM",
    "ADDRESS",
    "AGE",
    "FPS",
    "KBIT/S",
    "LAG",
    "RTT",
    "QUEUE",
    "UNACKED",
    "DROPPED",
    "STATE",
)

_LEFT_OUT_FIRST = ("UNACKED", "RTT", "AGE", "ADDRESS", "QUEUE", "DROPPED", "KBIT/S")
"""The columns that a narrow terminal lacks, in this order."""

_TEXT_COLUMNS = {"STREAM", "VIEWER", "STREAMER", "ADDRESS", "STATE"}

_MIN_WIDTH = 6
"""Width of a column of figures: it should not move when they get another digit."""

_GAP = "  "

Row = Mapping[str, str]
"""A line of a table: what is in each column."""


def streams(listed: Sequence[Stream]) -> list[str]:
    """Return a table with a line for each stream."""
    return table(STREAM_COLUMNS, [_stream_row(stream) for stream in listed])


def one_stream(stream: Stream) -> list[str]:
    """Return a table with a stream and one with its viewers, those in trouble first."""
    lines = streams([stream])
    if stream.viewers:
        rows = [_viewer_row(state, viewer) for state, viewer in stream.viewers]
        lines += ["", *table(VIEWER_COLUMNS, rows)]
    return lines


def top(listed: Sequence[Stream], *, with_all: bool, width: int | None = None) -> list[str]:
    """Return a table of streams with viewers below theirs, those in trouble first.

    Args:
        listed: The streams.
        with_all: Show the viewers that are fine, too.
        width: Characters that fit; None: any number.
    """
    rows: list[Row] = []
    for stream in by_urgency(listed):
        rows.append({**_stream_row(stream), "STATE": _short_state(stream)})
        rows += [
            {**_viewer_row(state, viewer), "STREAM": f"  {viewer.number}"}
            for state, viewer in stream.viewers
            if with_all or state.is_trouble
        ]
    return table(TOP_COLUMNS, rows, width)


def summary(listed: Sequence[Stream]) -> str:
    """Count streams, viewers, and those in trouble."""
    viewers = sum(len(stream.viewers) for stream in listed)
    text = f"{counted(len(listed), 'stream')}, {counted(viewers, 'viewer')}"
    troubles = sum(state.is_trouble for stream in listed for state in stream.states)
    return f"{text}, {troubles} in trouble" if troubles else text


def table(columns: Sequence[str], rows: Sequence[Row], width: int | None = None) -> list[str]:
    """Return a header and a line for each row; a row may lack what is in a column.

    Args:
        columns: The names of the columns.
        rows: What is in them.
        width: Characters that fit; None: any number. The first column gets at most a quarter of
            them, and of the others those that matter least are left out.
    """
    widths = {
        name: max(
            len(name),
            *(len(row.get(name, "")) for row in rows),
            0 if name in _TEXT_COLUMNS else _MIN_WIDTH,
        )
        for name in columns
    }
    if width is not None:
        first = columns[0]
        widths[first] = min(widths[first], max(width // 4, 1))
        for name in _LEFT_OUT_FIRST:
            if sum(widths.values()) + len(_GAP) * (len(widths) - 1) > width:
                widths.pop(name, None)
    lines = []
    for row in ({name: name for name in widths}, *rows):
        cells = [_aligned(name, row.get(name, ""), size) for name, size in widths.items()]
        lines.append(_GAP.join(cells).rstrip()[:width])
    return lines


def _aligned(name: str, text: str, width: int) -> str:
    if len(text) > width:
        text = text[: width - 1] + "…"
    return text.ljust(width) if name in _TEXT_COLUMNS else text.rjust(width)


def _stream_row(stream: Stream) -> Row:
    address = stream.address or "-"
    return {
        "STREAM": stream.stream_id,
        "STREAMER": address,
        "ADDRESS": address,
        "AGE": _age(stream.age),
        "FPS": f"{stream.fps:.1f}",
        "KBIT/S": f"{stream.bitrate / 1000:.0f}",
        "FRAMES": str(stream.frames),
        "RESUMES": str(stream.resumes),
        "VIEWERS": str(len(stream.viewers)),
        "DROPPED": str(sum(viewer.dropped for _, viewer in stream.viewers)),
        "STATE": _stream_state(stream),
    }


def _viewer_row(state: State, viewer: Viewer) -> Row:
    return {
        "VIEWER": str(viewer.number),
        "ADDRESS": viewer.address,
        "AGE": _age(viewer.age),
        "FPS": f"{viewer.fps:.1f}",
        "KBIT/S": f"{viewer.bitrate / 1000:.0f}",
        "LAG": _duration(viewer.lag),
        "RTT": _duration(viewer.rtt),
        "QUEUE": _size(viewer.queue_bytes),
        "UNACKED": _size(viewer.unacknowledged),
        "FRAMES": str(viewer.frames),
        "DROPPED": str(viewer.dropped),
        **{reason.upper(): str(count) for reason, count in viewer.drops.items()},
        "STATE": state.value,
    }


def _stream_state(stream: Stream) -> str:
    own = [] if stream.state is State.OK else [stream.state.value]
    troubles = Counter(state for state, _ in stream.viewers if state.is_trouble)
    return ", ".join([*own, *(f"{n} {state.value}" for state, n in troubles.items())]) or "ok"


def _short_state(stream: Stream) -> str:
    troubles = sum(state.is_trouble for state, _ in stream.viewers)
    return (
        f"{troubles} in trouble" if troubles and not stream.state.is_trouble else stream.state.value
    )


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    for unit, factor in (("M", 2**20), ("K", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f}{unit}"
    return str(size)
