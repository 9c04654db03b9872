"""The obvious relay: a dozen lines of `websockets`, with `broadcast()`, on uvloop.

Usage: python naive.py PORT [HOST] (on 127.0.0.1 by default); prints the port that it listens on.
"""

import json
import sys
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

viewers: dict[str, set[ServerConnection]] = {}


async def handle(connection: ServerConnection) -> None:
    """Relay a streamer's frames, or let a viewer watch."""
    assert connection.request is not None
    path = connection.request.path
    first = json.loads(await connection.recv())
    if path == "/ws/stream":
        stream_id = first["stream_id"]
        watching = viewers[stream_id] = set()
        await connection.send(json.dumps({"type": "registered", "stream_id": stream_id}))
        async for frame in connection:
            broadcast(watching, frame)
    else:
        stream_id = path.rpartition("/")[2]
        viewers[stream_id].add(connection)
        await connection.send(json.dumps({"type": "subscribed", "stream_id": stream_id}))
        await connection.wait_closed()
        viewers[stream_id].discard(connection)


async def main(port: int, host: str = "127.0.0.1") -> None:
    """Serve until the process is killed."""
    # A viewer that is far behind answers a ping as late as it shows a frame.
    settings: dict[str, Any] = {"compression": None, "max_size": None, "ping_timeout": None}
    async with serve(handle, host, port, **settings) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))
