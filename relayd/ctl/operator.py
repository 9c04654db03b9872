"""A client of the operator's port: it lists what a relay does and closes what it is told to."""

import http.client
import json
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from .client import ClientError, one_line
from .report import Stream

DEFAULT_ADMIN = "/run/relayd/admin.sock"
"""The Unix socket on which a relay that systemd runs has its operator's port."""

TIMEOUT = 10.0
"""Seconds until the relay must have answered."""


@dataclass(frozen=True)
class Address:
    """Where an operator's port is: a Unix socket, or a TCP port.

    Attributes:
        path: The socket's path; empty for a TCP port.
        host: The host name or IP address, without brackets.
        port: The TCP port.
    """

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Parse ``http://host:port``, ``host:port`` or the path of a Unix socket.

        Raises:
            ValueError: If it is none of these.
        """
        if "\0" in text:
            raise ValueError("it has a null character")
        if "/" in text and "://" not in text:
            return cls(path=text)
        url = urlsplit(text if "://" in text else f"http://{text}")
        if url.scheme != "http":
            raise ValueError("the operator's port is plain http://")
        if not url.hostname or not url.port or not text.isprintable() or " " in text:
            raise ValueError("it is no path, and has no host and port")
        if url.username is not None or url.path.strip("/") or url.query or url.fragment:
            raise ValueError("it must end with the port")
        return cls(host=url.hostname, port=url.port)

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Operator:
    """Talks to the operator's port of a relay, with one connection for each request.

    Args:
        address: Where it is.
    """

    def __init__(self, address: Address) -> None:
        self.address = address

    def report(self, stream_id: str | None = None) -> dict[str, Any]:
        """Return what the relay says of its streams, as it says it, or of one of them alone.

        Raises:
            ClientError: If it can't be asked, or there is no such stream.
        """
        status, body = self._request("GET", "/streams")
        report = _json(body) if status == HTTPStatus.OK else None
        if not isinstance(report, dict) or not isinstance(report.get("streams"), list):
            raise self._is_another(f"HTTP {status}")
        if stream_id is None:
            return report
        named = [s for s in report["streams"] if isinstance(s, dict) and s.get("id") == stream_id]
        if not named:
            raise _missing(f"stream {stream_id}")
        return {"streams": named}

    def streams(self, stream_id: str | None = None) -> list[Stream]:
        """Return the streams of the relay, or one of them alone.

        Raises:
            ClientError: If it can't be asked, its answer is not understood, or there is no such
                stream.
        """
        report = self.report(stream_id)
        try:
            return [Stream.parse(fields) for fields in report["streams"]]
        except (AttributeError, KeyError, TypeError, ValueError):
            what = "says what this relayctl does not understand; it is of another version"
            raise ClientError(f"the relayd at {self.address} {what}") from None

    def kick_stream(self, stream_id: str) -> None:
        """Close a stream, and with it the connections of its streamer and its viewers.

        Raises:
            ClientError: If there is no such stream, or the relay can't be asked.
        """
        self._delete(f"/streams/{stream_id}", f"stream {stream_id}")

    def kick_viewer(self, number: int) -> None:
        """Close a viewer's connection.

        Raises:
            ClientError: If there is no such viewer, or the relay can't be asked.
        """
        self._delete(f"/viewers/{number}", f"viewer {number}")

    def _delete(self, path: str, name: str) -> None:
        status, _ = self._request("DELETE", path)
        if status == HTTPStatus.NOT_FOUND:
            self.report()  # Raises where nothing is ever found, as it is no operator's port.
            raise _missing(name)
        if status != HTTPStatus.NO_CONTENT:
            raise self._is_another(f"HTTP {status}")

    def _request(self, method: str, path: str) -> tuple[int, bytes]:
        connection = _Connection(self.address)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException:
            raise self._is_another("no HTTP") from None
        except OSError as exc:
            raise ClientError(self._explain(exc)) from None
        finally:
            connection.close()

    def _is_another(self, answer: str) -> ClientError:
        what = f"{self.address} is not the operator's port of a relayd (it answers {answer})"
        return ClientError(f"{what}; name that (ADMIN_PORT, not PORT) with --admin")

    def _explain(self, exc: OSError) -> str:
        where = self.address
        if isinstance(exc, FileNotFoundError | ConnectionRefusedError):
            advice = "name the operator's port with --admin, or start relayd with ADMIN_PORT"
            return f"nothing listens at {where}; {advice}"
        if isinstance(exc, PermissionError):
            return f"may not open {where}; run it as root or as a member of its group"
        if isinstance(exc, socket.gaierror):
            return f"the host of {where} is unknown; check --admin"
        if isinstance(exc, TimeoutError):
            return f"no answer from {where}; relayd's log says more, if it runs"
        reason = one_line(exc.strerror or str(exc)).lower()
        return f"cannot ask {where}: {reason}; check --admin"


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _missing(name: str) -> ClientError:
    return ClientError(f"there is no {name}; relayctl streams shows what there is")


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over TCP or a Unix socket."""

    def __init__(self, address: Address) -> None:
        # The name that a Unix socket's client gives in the Host header has no meaning.
        super().__init__(address.host or "localhost", address.port or None, timeout=TIMEOUT)
        self._path = address.path

    def connect(self) -> None:
        """Connect to the Unix socket, if that is what it is."""
        if not self._path:
            super().connect()
            return
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no Unix sockets")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)
