"""The life of a viewer's connection."""

from ..config import Config
from ..connection import Connection
from ..protocol import parse_subscribe
from ..session import Registry
from .opening import client_log, first_message


async def view(connection: Connection, path_id: str, registry: Registry, config: Config) -> None:
    """Send a stream's frames to a viewer, from `subscribe` until it leaves or the stream ends.

    Raises:
        Refusal: If it can't watch this stream.
        ConnectionClosed: If it leaves before it asked to.
    """
    message = await first_message(connection, config.register_timeout)
    request = parse_subscribe(message, path_id)
    stream = registry.find(request.stream_id)
    viewer = stream.add_viewer(connection, connection.peer, request)
    log = client_log("viewer", connection, stream.id)
    log.info("subscribed")
    began = connection.loop.time()
    ignored = 0

    def ignore(message: str | bytes) -> None:
        nonlocal ignored
        ignored += 1

    try:
        connection.hand_over(ignore, ignore)
        await connection.ended()
    finally:
        stream.remove_viewer(viewer)
        log.info(
            "%s after %.1f s: %d frames, %d dropped, %d messages ignored",
            connection.ending,
            connection.loop.time() - began,
            viewer.delivered,
            viewer.dropped,
            ignored,
        )
