"""`relayctl publish`: push frames to relayd as a streamer."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator

from . import client
from .cutting import CONFIG, Frame, VideoFormat
from .meter import LiveLine, Meter, counted
from .pace import Schedule
from .tasks import until_first
from .uplink import Uplink


async def publish(
    server: str,
    stream_id: str | None,
    video_format: VideoFormat,
    frames: AsyncIterator[Frame],
    schedule: Schedule | None,
) -> None:
    """Register a stream, with an id or a generated one, and send frames until there are no more.

    The stream exists before the first frame is asked for, so that viewers may join a source that
    has nothing to show yet. Without a schedule frames go out as they come.

    A connection that is lost is taken up again; with a schedule the frames wait meanwhile, without
    one they come and are lost, because live means now.

    Raises:
        ClientError: If the server can't be reached, refuses or stays away.
    """
    async with Uplink(server, stream_id, video_format) as uplink:
        _announce(server, uplink.stream_id)
        meter = Meter()
        async with LiveLine(_Readout(meter, uplink)) as live:
            await until_first(
                _send(uplink, frames, schedule, meter),
                uplink.keep(lambda text: live.say(f"relayctl: {text}")),
            )


def watch_command(server: str, stream_id: str) -> str:
    """Return the command line that shows the stream."""
    words = ["relayctl", "watch"]
    if server != client.DEFAULT_SERVER:
        words += ["--server", server]
    if stream_id.startswith("-"):
        words.append("--")
    return shlex.join([*words, stream_id])


class _Readout:
    """A meter of what is sent, and what is known of the other end."""

    def __init__(self, meter: Meter, uplink: Uplink) -> None:
        self._meter = meter
        self._uplink = uplink

    def line(self) -> str:
        rates, viewers = self._meter.line(), self._uplink.viewers
        if not self._uplink.is_open:
            return f"{rates}   reconnecting"
        if viewers is None:
            return rates
        return f"{rates}   {counted(viewers, 'viewer')}"

    def summary(self) -> str:
        return self._meter.summary()


def _announce(server: str, stream_id: str) -> None:
    """Print the id, alone for a script to read, on a terminal with what to do with it."""
    if sys.stdout.isatty():
        print(f"Publishing {stream_id}. To watch it:  {watch_command(server, stream_id)}")
    else:
        print(stream_id, flush=True)


async def _send(
    uplink: Uplink, frames: AsyncIterator[Frame], schedule: Schedule | None, meter: Meter
) -> None:
    async for frame in frames:
        is_picture = frame.mark != CONFIG
        if schedule is not None:
            if not uplink.is_open:
                await uplink.wait_open()
                schedule.restart()
            if is_picture and uplink.admits(frame):
                await asyncio.sleep(schedule.next_delay())
        if await uplink.send(frame) and is_picture:
            meter.count(len(frame.data))
