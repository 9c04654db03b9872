"""A connection to relayd: its address, how it opens, and what its ends mean to a user."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import Close

from .. import protocol
from ..protocol import CloseCode

DEFAULT_SERVER = "ws://localhost:8080"

OPEN_TIMEOUT = 10.0
"""Seconds until the server must have answered, first HTTP, then the first message."""

INTERRUPTED_CLOSE_TIMEOUT = 2.0
"""Seconds that the server has to answer a close frame when a user waits for the prompt."""

# The library reports on its own what the user is told in one line.
_logger = logging.getLogger(__name__)
_logger.addHandler(logging.NullHandler())
_logger.propagate = False

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

_ADVICE = {
    protocol.StreamNotFound.message: "check the id, or start the stream first",
    protocol.StreamIdInUse.message: "choose another --id, or none to be given one",
    protocol.InvalidStreamId.message: "use 1 to 64 letters, digits, - and _",
    protocol.TooManyStreams.message: "try again later, or raise the server's MAX_STREAMS",
    protocol.TooManyViewers.message: "raise the server's MAX_VIEWERS_PER_STREAM",
}

_NO_RELAYD = "the server did not answer as relayd does; is it one?"

_CLOSE_REASONS = {
    CloseCode.NORMAL: "ended",
    CloseCode.MESSAGE_TOO_BIG: "a frame is larger than its MAX_FRAME_SIZE",
    CloseCode.SERVICE_RESTART: "restarting",
    CloseCode.CONFLICT: "another publisher has taken it over",
}

_FIRST_PRIVATE_CODE = 4000
_FINAL_CODES = frozenset(
    {
        CloseCode.NORMAL,
        CloseCode.INVALID_DATA,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
    }
)
"""Close codes that are meant for this client: it would get the same again, as those of relayd."""


class ClientError(Exception):
    """A command can't go on. The message is one line that says why and what to do."""


class ConnectionLost(ClientError):
    """There is no connection, but there may be one later: no network, a restart, a full server."""


class Refused(ClientError):
    """The server has refused what it was asked for.

    Attributes:
        answer: What it said.
    """

    def __init__(self, message: str, answer: str) -> None:
        super().__init__(message)
        self.answer = answer


def server_url(text: str) -> str:
    """Return the WebSocket URL of a server that a user has named, without a slash at the end.

    Takes ws, wss, http and https URLs and a bare ``host:port``. A path is kept: a reverse proxy may
    serve relayd below one.

    Raises:
        ValueError: If it can't be the address of a server.
    """
    url = urlsplit(text if "://" in text else f"ws://{text}")
    scheme = _SCHEMES.get(url.scheme)
    if scheme is None:
        raise ValueError("it must begin with ws://, wss://, http:// or https://")
    if not url.hostname or re.search(r"[\s\0]", text):
        raise ValueError("it has no host name")
    if url.query or url.fragment:
        raise ValueError("it must end with the path")
    if url.username is not None and url.password is None:
        raise ValueError("it has a user name without a password")
    url.hostname.encode("idna")  # Raises UnicodeError, a ValueError; so does a bad port.
    if url.port == 0:
        raise ValueError("nothing can listen on port 0")
    return urlunsplit((scheme, url.netloc, url.path.rstrip("/"), "", ""))


@contextlib.asynccontextmanager
async def opened(server: str, path: str) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket to a path of a server; close it with 1000 at the end.

    Raises:
        ConnectionLost: If it can't be opened, or is lost before the context ends.
        ClientError: If the server closes it for good.
    """
    connection = await _open(server, path)
    close_timeout = None  # That of websockets; but it begins only when all has been sent.
    try:
        yield connection
    except ConnectionClosed as exc:
        raise closed(server, exc) from None
    except ConnectionLost:
        close_timeout = 0.0  # Who does not answer takes no leave either.
        raise
    except asyncio.CancelledError:
        close_timeout = INTERRUPTED_CLOSE_TIMEOUT
        raise
    finally:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(close_timeout):
                    await connection.close()
        finally:
            connection.transport.abort()


async def ask(connection: ClientConnection, request: str, answer: str) -> dict[str, Any]:
    """Send the first message; return the answer, of this type and with a stream id.

    Raises:
        Refused: If the server refuses.
        ConnectionLost: If it does not answer in time, or has not got the message in time.
        ClientError: If it answers something else.
        ConnectionClosed: If the server closes instead.
    """
    await connection.send(request)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            reply = protocol.parse(await connection.recv())
        if reply["type"] != "error":
            protocol.check_stream_id(reply.get("stream_id"))
    except TimeoutError:
        raise ConnectionLost(_NO_RELAYD) from None
    except protocol.Refusal:
        raise ClientError(_NO_RELAYD) from None
    if reply["type"] == "error":
        raise _refusal(str(reply.get("message")))
    if reply["type"] != answer:
        raise ClientError(_NO_RELAYD)
    return reply


def closed(server: str, exc: ConnectionClosed) -> ClientError:
    """Return the error that the end of a connection is: a ConnectionLost, if not for good."""
    if exc.rcvd is None:
        cause = f": {exc.sent.reason}" if exc.sent and exc.sent.reason else ""
        return ConnectionLost(f"the connection to {_shown(server)} was lost{cause}")
    code, reason = exc.rcvd.code, _server_reason(exc.rcvd)
    is_final = code in _FINAL_CODES or code >= _FIRST_PRIVATE_CODE
    text = f"{reason} ({code})" if reason else f"code {code}"
    return (ClientError if is_final else ConnectionLost)(f"the server closed the stream: {text}")


def close_reason(exc: ConnectionClosed) -> str:
    """Return why a connection ended, in a word or two."""
    if exc.rcvd is None:
        return exc.sent.reason if exc.sent and exc.sent.reason else "cut off"
    return _server_reason(exc.rcvd) or f"code {exc.rcvd.code}"


async def _open(server: str, path: str) -> ClientConnection:
    try:
        return await connect(
            server + path,
            compression=None,
            max_size=None,
            open_timeout=OPEN_TIMEOUT,
            # The system's proxy, if any, can't reach what is on this machine.
            proxy=None if _is_local(server) else True,
            logger=_logger,
        )
    except InvalidStatus as exc:
        headers = exc.response.headers
        reason = _http_answer(exc.response.status_code, headers.get("Retry-After"))
    except WebSocketException as exc:
        reason = f"no WebSocket server answers there ({one_line(str(exc))})"
    except OSError as exc:
        reason = _network_error(exc)
    raise ConnectionLost(f"cannot connect to {_shown(server)}: {reason}")


def _is_local(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(server: str) -> str:
    """Return the URL without the password that it may have."""
    url = urlsplit(server)
    return urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2]))


def _http_answer(status: int, retry_after: str | None) -> str:
    if status == 404:
        return "HTTP 404; is this relayd, and does a proxy in front of it forward /ws/?"
    if status == 503:
        wait = f"in {retry_after} s" if retry_after and retry_after.isdecimal() else "later"
        return f"the server is full or restarting (HTTP 503); try again {wait}"
    return f"the server answered HTTP {status}; is this relayd?"


def _network_error(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return "the server does not speak TLS there; is it ws:// or http://? (--server)"
    if isinstance(exc, socket.gaierror):
        return "the host is unknown; check the name (--server)"
    if isinstance(exc, TimeoutError):
        return "no answer; check the address and the firewall (--server)"
    # For a host with several addresses asyncio joins the errors into a text without a number.
    numbers = [int(number) for number in re.findall(r"\[Errno (\d+)\]", str(exc))]
    if isinstance(exc, ConnectionRefusedError) or errno.ECONNREFUSED in numbers:
        return "connection refused; is relayd running there? (--server)"
    reason = os.strerror(numbers[-1]) if numbers else str(exc)
    return f"{one_line(reason).lower()}; check the address (--server)"


def _refusal(answer: str) -> ClientError:
    advice = _ADVICE.get(answer)
    text = f"{answer}; {advice}" if advice else f"the server refused: {one_line(answer)}"
    # That is no answer to the request, which took too long to get there.
    is_late = answer == protocol.TimedOut.message
    return ConnectionLost(text) if is_late else Refused(text, answer)


def _server_reason(close: Close) -> str:
    known = {int(code): reason for code, reason in _CLOSE_REASONS.items()}.get(close.code)
    return known or one_line(close.reason)


def one_line(text: str) -> str:
    """Make a text from elsewhere safe for a terminal and short."""
    return "".join(char if char.isprintable() else " " for char in text)[:200].strip()
