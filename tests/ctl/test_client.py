"""Tests of the connection to a server: its address, its opening, its ends."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import pytest
from harness import require_tool
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close
from websockets.http11 import Request, Response

from relayd import protocol
from relayd.ctl import client
from relayd.ctl.client import ClientError, ConnectionLost, Refused, server_url
from relayd.protocol import Register

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Handler = Callable[[ServerConnection], Awaitable[None]]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ws://localhost:8080", "ws://localhost:8080"),
        ("wss://relay.example.com/", "wss://relay.example.com"),
        ("http://127.0.0.1:80/live/", "ws://127.0.0.1:80/live"),
        ("https://relay.example.com", "wss://relay.example.com"),
        ("relay.example.com:8080", "ws://relay.example.com:8080"),
        ("[::1]:8080", "ws://[::1]:8080"),
        ("relay", "ws://relay"),
        ("https://me:secret@relay", "wss://me:secret@relay"),
    ],
)
def test_server_url(text: str, url: str) -> None:
    """WebSocket and HTTP URLs are taken, and host:port; a path is kept."""
    assert server_url(text) == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ftp://relay", "it must begin with ws://"),
        ("", "it has no host name"),
        ("ws://:8080", "it has no host name"),
        ("ws://my relay", "it has no host name"),
        ("ws://relay/?a=b", "it must end with the path"),
        ("ws://relay/#top", "it must end with the path"),
        ("ws://me@relay", "it has a user name without a password"),
        ("ws://relay:0", "nothing can listen on port 0"),
        ("ws://relay:65536", "range"),
        ("ws://relay:http", "integer"),
        ("ws://[::1", "IPv6"),
        ("ws://a..b", "label"),
    ],
)
def test_server_url_refuses(text: str, reason: str) -> None:
    """What can't be a server's address is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        server_url(text)


def fail(url: str) -> ClientError:
    """Register a stream, then wait until the server closes; return the error."""

    async def main() -> None:
        async with client.opened(url, "/ws/stream") as connection:
            await client.ask(connection, protocol.register(Register()), "registered")
            await connection.recv()

    with pytest.raises(ClientError) as caught:
        asyncio.run(main())
    assert str(caught.value).isprintable()
    return caught.value


def talk(url: str) -> str:
    """Return the text of the error that a client gets."""
    return str(fail(url))


def fail_at(server: Callable[[], contextlib.AbstractAsyncContextManager[str]]) -> ClientError:
    """Run a server; return the error that a client of it gets."""

    async def main() -> ClientError:
        async with server() as url:
            return await asyncio.to_thread(fail, url)

    return asyncio.run(main())


def talk_to(server: Callable[[], contextlib.AbstractAsyncContextManager[str]]) -> str:
    """Run a server; return the text of the error that a client of it gets."""
    return str(fail_at(server))


def tcp_server(
    answer: Answer, tls: ssl.SSLContext | None = None
) -> Callable[[], contextlib.AbstractAsyncContextManager[str]]:
    """Make a server that does what it likes with its connections."""

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[str]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield f"{'wss' if tls else 'ws'}://127.0.0.1:{port}"

    return run


def websocket_server(
    handler: Handler,
    process_request: Callable[[ServerConnection, Request], Response | None] | None = None,
) -> Callable[[], contextlib.AbstractAsyncContextManager[str]]:
    """Make a WebSocket server."""

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[str]:
        async with serve(
            handler, "127.0.0.1", 0, process_request=process_request, close_timeout=0.1
        ) as server:
            yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    return run


def replying(*messages: str | bytes, code: int = 1000, reason: str = "") -> Handler:
    """Make a handler that answers the first message and closes."""

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        for message in messages:
            await connection.send(message)
        await connection.close(code, reason)

    return handler


async def never(connection: ServerConnection) -> None:
    """Take no connection at all."""
    raise AssertionError


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nothing_listens(host: str) -> None:
    """A refused connection is one line, also where a name has several addresses."""
    url = f"ws://{host}:{free_port()}"
    expected = f"cannot connect to {url}: connection refused; is relayd running there? (--server)"
    assert talk(url) == expected


def test_errors_of_several_addresses() -> None:
    """Where every address failed in its own way, a refusal is what is told, else the last."""
    both = "Multiple exceptions: [Errno 113] Connect call failed, [Errno {}] Connect call failed"
    assert "connection refused" in client._network_error(OSError(both.format(111)))
    assert "network is unreachable; check" in client._network_error(OSError(both.format(101)))
    assert client._network_error(OSError("odd\n")) == "odd; check the address (--server)"


def test_unknown_host() -> None:
    """A host that has no address is one line, without the password in the URL."""
    text = talk("ws://me:secret@relay.invalid:80")
    assert text.startswith("cannot connect to ws://relay.invalid:80: ")
    assert "check the " in text


@pytest.mark.parametrize(
    ("status", "retry_after", "reason"),
    [
        (404, None, "HTTP 404; is this relayd, and does a proxy in front of it forward /ws/?"),
        (503, "5", "the server is full or restarting (HTTP 503); try again in 5 s"),
        (503, None, "the server is full or restarting (HTTP 503); try again later"),
        (503, "Tue", "the server is full or restarting (HTTP 503); try again later"),
        (401, None, "the server answered HTTP 401; is this relayd?"),
    ],
)
def test_http_answers(status: int, retry_after: str | None, reason: str) -> None:
    """An HTTP answer that is no upgrade is one line."""

    def refuse(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(HTTPStatus(status), "no\n")
        if retry_after:
            response.headers["Retry-After"] = retry_after
        return response

    error = fail_at(websocket_server(never, refuse))
    assert isinstance(error, ConnectionLost)
    text = str(error)
    assert text.startswith("cannot connect to ws://127.0.0.1:")
    assert text.endswith(f": {reason}")


async def not_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer like a mail server."""
    writer.write(b"220 mail.example.com ESMTP\r\n")
    writer.close()
    await writer.wait_closed()


def test_no_http() -> None:
    """A server of something else is one line."""
    assert "no WebSocket server answers there (" in talk_to(tcp_server(not_http))


def test_no_tls() -> None:
    """TLS where the server speaks none is one line."""

    @contextlib.asynccontextmanager
    async def secure() -> AsyncIterator[str]:
        async with tcp_server(not_http)() as url:
            yield url.replace("ws:", "wss:")

    assert "the server does not speak TLS there; is it ws://" in talk_to(secure)


def test_untrusted_certificate(tmp_path: Path) -> None:
    """A certificate that nobody has signed is one line."""
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    command = [require_tool("openssl"), "req", "-x509", "-nodes", "-newkey", "ec"]
    curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
    subprocess.run([*command, *curve, *files], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    assert "its certificate is not trusted: self" in talk_to(tcp_server(not_http, tls))


def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is one line, after OPEN_TIMEOUT."""
    monkeypatch.setattr(client, "OPEN_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = talk(f"ws://127.0.0.1:{server.getsockname()[1]}")
    assert text.endswith(": no answer; check the address and the firewall (--server)")


def test_no_first_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer the first message is one line, after OPEN_TIMEOUT."""

    async def silent(connection: ServerConnection) -> None:
        await connection.wait_closed()

    monkeypatch.setattr(client, "OPEN_TIMEOUT", 0.5)
    error = fail_at(websocket_server(silent))
    assert str(error).startswith("the server did not answer as relayd does")
    assert isinstance(error, ConnectionLost)


@pytest.mark.parametrize(
    "reply",
    [
        "hello",
        b"\0",
        protocol.subscribed("abc"),
        '{"type": "registered"}',
        '{"type": "registered", "stream_id": "\\u001b[2J"}',
    ],
)
def test_no_relayd(reply: str | bytes) -> None:
    """A WebSocket server that answers anything else is one line."""
    error = fail_at(websocket_server(replying(reply)))
    assert str(error) == "the server did not answer as relayd does; is it one?"
    assert not isinstance(error, ConnectionLost)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            "stream id already in use",
            "stream id already in use; choose another --id, or none to be given one",
        ),
        ("stream not found", "stream not found; check the id, or start the stream first"),
        ("\x1b]0;title\x07" + "x" * 999, "the server refused: ]0;title " + "x" * 190),
    ],
)
def test_refusals(message: str, text: str) -> None:
    """A refusal is one line, with what to do where that is known, and safe for a terminal."""
    reply = json.dumps({"type": "error", "message": message})
    error = fail_at(websocket_server(replying(reply, code=4409)))
    assert str(error) == text
    assert isinstance(error, Refused)
    assert error.answer == message


def test_a_first_message_that_is_late() -> None:
    """That a message did not arrive in time is no refusal of what it asks for."""
    reply = protocol.error(protocol.TimedOut())
    error = fail_at(websocket_server(replying(reply, code=4408)))
    assert isinstance(error, ConnectionLost)
    assert str(error) == "the server refused: timed out"


def test_the_answer() -> None:
    """The answer is returned with all that is in it."""
    reply = protocol.registered("abc", ["resume"], "token")

    async def main() -> None:
        async with (
            websocket_server(replying(reply))() as url,
            client.opened(url, "/ws/stream") as connection,
        ):
            answer = await client.ask(connection, protocol.register(Register()), "registered")
            assert answer == json.loads(reply)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "reason", "text", "is_final"),
    [
        (1012, "", "restarting (1012)", False),
        (1011, "internal error", "internal error (1011)", False),
        (1001, "", "code 1001", False),
        (1009, "", "a frame is larger than its MAX_FRAME_SIZE (1009)", True),
        (1008, "", "code 1008", True),
        (1007, "", "code 1007", True),
        (1000, "", "ended (1000)", True),
        (4409, "replaced", "another publisher has taken it over (4409)", True),
        (4403, "kicked", "kicked (4403)", True),
        (4403, "", "code 4403", True),
    ],
)
def test_the_server_closes(code: int, reason: str, text: str, is_final: bool) -> None:
    """A close frame is one line with its reason and its code, and may be meant for good."""
    handler = replying(protocol.registered("abc"), code=code, reason=reason)
    error = fail_at(websocket_server(handler))
    assert str(error) == f"the server closed the stream: {text}"
    assert isinstance(error, ConnectionLost) is not is_final


@pytest.mark.parametrize(
    ("received", "sent", "reason"),
    [
        (Close(1012, ""), None, "restarting"),
        (Close(1011, "internal\nerror"), None, "internal error"),
        (Close(1001, ""), None, "code 1001"),
        (None, Close(1011, "keepalive ping timeout"), "keepalive ping timeout"),
        (None, Close(1000, ""), "cut off"),
        (None, None, "cut off"),
    ],
)
def test_the_reason_of_a_close(received: Close | None, sent: Close | None, reason: str) -> None:
    """Why a connection ended is told in a word or two."""
    assert client.close_reason(ConnectionClosedError(received, sent)) == reason


def test_the_connection_is_lost() -> None:
    """A connection that ends without a close frame is one line."""

    async def vanish(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.abort()

    error = fail_at(websocket_server(vanish))
    assert str(error).startswith("the connection to ws://127.0.0.1:")
    assert str(error).endswith(" was lost")
    assert isinstance(error, ConnectionLost)


def test_the_reason_of_a_loss_is_told() -> None:
    """Where the client gave the connection up, the reason is told."""

    async def nonsense(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.write(b"\xff\xff")
        await connection.wait_closed()

    assert " was lost: " in talk_to(websocket_server(nonsense))


def test_an_interrupted_client_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes nothing more holds an interrupted client up only for a moment."""
    monkeypatch.setattr(client, "INTERRUPTED_CLOSE_TIMEOUT", 0.05)

    async def stall(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await connection.wait_closed()

    async def flood(url: str, stalled: asyncio.Event) -> None:
        async with client.opened(url, "/ws/stream") as connection:
            while True:
                sending = asyncio.ensure_future(connection.send(bytes(1 << 20)))
                done, _ = await asyncio.wait({sending}, timeout=0.2)
                if not done:
                    stalled.set()
                await sending

    async def main() -> None:
        async with websocket_server(stall)() as url:
            stalled = asyncio.Event()
            task = asyncio.create_task(flood(url, stalled))
            await stalled.wait()
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=5)
            assert done == {task}
            assert task.cancelled()

    asyncio.run(main())


def test_who_does_not_answer_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has not answered is not waited for when the connection is closed."""
    frozen: list[ServerConnection] = []

    async def freeze(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        frozen.append(connection)
        await connection.wait_closed()

    async def main() -> None:
        monkeypatch.setattr(client, "OPEN_TIMEOUT", 0.5)
        async with websocket_server(freeze)() as url:
            # The library alone would wait for ten seconds.
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionLost):
                    await converse(url)
            assert frozen
            frozen[0].transport.abort()

    async def converse(url: str) -> None:
        async with client.opened(url, "/ws/stream") as connection:
            await client.ask(connection, protocol.register(Register()), "registered")

    asyncio.run(main())


def test_loopback_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the system is used, but not for this machine."""
    port = free_port()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    handler = websocket_server(replying(protocol.registered("abc"), code=1012))
    assert talk_to(handler) == "the server closed the stream: restarting (1012)"
    assert "cannot connect to ws://relay.invalid: connection refused" in talk("ws://relay.invalid")
