"""The life of a streamer's connection."""

from ..config import Config
from ..connection import Connection
from ..protocol import parse_mark, parse_register
from ..session import Registry
from .opening import client_log, first_message

FIRST_MESSAGE_LIMIT = 2**20
"""Bytes of a first message that are read, so that a streamer whose first message is a video frame
is told what is wrong, yet a crowd of clients that never register can't fill the memory."""


async def stream(connection: Connection, registry: Registry, config: Config) -> None:
    """Relay a streamer's frames, from `register` until it leaves or another takes its place.

    Raises:
        Refusal: If it can't have a stream.
        ConnectionClosed: If it leaves before it asked for one.
    """
    connection.limit_messages(FIRST_MESSAGE_LIMIT)
    if config.max_stream_bitrate is not None:
        connection.limit_bitrate(config.max_stream_bitrate)
    request = parse_register(await first_message(connection, config.register_timeout))
    stream, resumed = registry.register(request, connection)
    connection.limit_messages(config.max_frame_size)
    log = client_log("streamer", connection, stream.id)
    log.info("resumed" if resumed else "registered")
    began = connection.loop.time()
    frames, size = stream.fan_out.frames, stream.fan_out.size
    ignored = 0

    def take_text(text: str) -> None:
        nonlocal ignored
        if mark := parse_mark(text):
            stream.fan_out.mark(mark)
            return
        if not ignored:
            log.info("ignoring text that is not understood")
        ignored += 1

    try:
        connection.hand_over(stream.fan_out.push, take_text)
        await connection.ended()
    finally:
        log.info(
            "%s after %.1f s: %d frames, %.1f MB, %d messages ignored",
            connection.ending,
            connection.loop.time() - began,
            stream.fan_out.frames - frames,
            (stream.fan_out.size - size) / 1e6,
            ignored,
        )
        if stream.is_of(connection):
            registry.end(stream) if connection.is_finished else registry.lose(stream)
