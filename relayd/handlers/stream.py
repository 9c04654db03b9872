"""The life of a streamer's connection."""

from ..config import Config
from ..connection import Connection
from ..protocol import parse_register, registered
from ..session import Registry
from .opening import client_log, first_message

FIRST_MESSAGE_LIMIT = 2**20
"""Bytes of a first message that are read, so that a streamer whose first message is a video frame
is told what is wrong, yet a crowd of clients that never register can't fill the memory."""


async def stream(connection: Connection, registry: Registry, config: Config) -> None:
    """Relay a streamer's frames, from `register` until it leaves.

    Raises:
        Refusal: If it can't have a stream.
        ConnectionClosed: If it leaves before it asked for one.
    """
    connection.limit_messages(FIRST_MESSAGE_LIMIT)
    stream_id = parse_register(await first_message(connection, config.register_timeout))
    stream = registry.register(stream_id)
    connection.limit_messages(config.max_frame_size)
    connection.send_text(registered(stream.id))
    log = client_log("streamer", connection, stream.id)
    log.info("registered")
    began = connection.loop.time()
    ignored = 0

    def ignore(text: str) -> None:
        nonlocal ignored
        if not ignored:
            log.info("ignoring text that is not understood")
        ignored += 1

    try:
        connection.hand_over(stream.fan_out.push, ignore)
        await connection.ended()
    finally:
        registry.end(stream)
        log.info(
            "%s after %.1f s: %d frames, %.1f MB, %d messages ignored",
            connection.ending,
            connection.loop.time() - began,
            stream.fan_out.frames,
            stream.fan_out.size / 1e6,
            ignored,
        )
