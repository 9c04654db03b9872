"""Tests of the client of the operator's port, and of streams and kick, against a real relay."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ctl.reports import operator_port, stream_fields, viewer_fields
from harness import PATIENCE, RelayProcess, address, close_code

from relayd.ctl import operator
from relayd.ctl.client import ClientError
from relayd.ctl.operator import Address, Operator

Start = Callable[..., "subprocess.Popen[bytes]"]

NOBODY = 65534


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    """A relay with an operator's port."""
    with RelayProcess("--admin-port", "0") as relay:
        yield relay


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("/run/relayd/admin.sock", Address("/run/relayd/admin.sock"), "/run/relayd/admin.sock"),
        ("./admin.sock", Address("./admin.sock"), "./admin.sock"),
        ("http://127.0.0.1:9090", Address(host="127.0.0.1", port=9090), "127.0.0.1:9090"),
        ("http://localhost:9090/", Address(host="localhost", port=9090), "localhost:9090"),
        ("relay.example.org:9090", Address(host="relay.example.org", port=9090), None),
        ("[::1]:9090", Address(host="::1", port=9090), "[::1]:9090"),
    ],
)
def test_addresses(text: str, expected: Address, shown: str | None) -> None:
    """A path, a URL or host:port says where an operator's port is."""
    assert Address.parse(text) == expected
    assert str(expected) == shown or text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://localhost:9090", "plain http"),
        ("ws://localhost:9090", "plain http"),
        ("localhost", "no host and port"),
        ("9090", "no host and port"),
        (":9090", "no host and port"),
        ("", "no host and port"),
        ("local host:9090", "no host and port"),
        ("localhost:0", "no host and port"),
        ("localhost:99999", "out of range"),
        ("localhost:port", "port"),
        ("http://localhost:9090/streams", "end with the port"),
        ("http://me:secret@localhost:9090", "end with the port"),
        ("http://localhost:9090?x", "end with the port"),
        ("/run/\0", "null"),
    ],
)
def test_what_is_no_address(text: str, reason: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=reason):
        Address.parse(text)


def complaint(where: str) -> str:
    """Return why an operator's port can't be asked."""
    with pytest.raises(ClientError) as caught:
        Operator(Address.parse(where)).streams()
    return str(caught.value)


def test_nothing_listens(tmp_path: Path) -> None:
    """Where nothing listens, the message says what to do."""
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.create_server(("127.0.0.1", 0)) as free:
        listener.bind(str(left))
        port = free.getsockname()[1]
    for where in (f"127.0.0.1:{port}", str(left), str(tmp_path / "no.sock")):
        assert complaint(where) == (
            f"nothing listens at {where}; name the operator's port with --admin, or start relayd"
            " with ADMIN_PORT"
        )


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody, if this is root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_no_permission(tmp_path: Path) -> None:
    """Who may not open the socket is told who may."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    where = f"{folder}/admin.sock"
    with unprivileged():
        message = complaint(where)
    folder.chmod(0o700)
    assert message == f"may not open {where}; run it as root or as a member of its group"


def test_the_port_of_viewers(relay: RelayProcess) -> None:
    """The port of streamers and viewers is told from the operator's."""
    where = f"127.0.0.1:{relay.port}"
    expected = (
        f"{where} is not the operator's port of a relayd (it answers HTTP 404); name that"
        " (ADMIN_PORT, not PORT) with --admin"
    )
    assert complaint(where) == expected
    with pytest.raises(ClientError, match=r"is not the operator's port of a relayd \(it answers"):
        Operator(Address.parse(where)).kick_viewer(1)


def test_other_troubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No HTTP, no answer, no such host, no such path: each is a line of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"127.0.0.1:{listener.getsockname()[1]}"

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "(it answers no HTTP)" in complaint(where)
        thread.join()
        monkeypatch.setattr(operator, "TIMEOUT", 0.01)
        assert complaint(where) == f"no answer from {where}; relayd's log says more, if it runs"
    assert (
        complaint("nowhere.invalid:1") == "the host of nowhere.invalid:1 is unknown; check --admin"
    )
    assert complaint(f"{tmp_path}/{'x' * 200}").endswith("path too long; check --admin")
    file = tmp_path / "file"
    file.touch()
    assert complaint(f"{file}/admin.sock").endswith(": not a directory; check --admin")
    monkeypatch.delattr(socket, "AF_UNIX")
    assert complaint(str(file)).endswith(": this system has no unix sockets; check --admin")


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """Run a server that answers every request alike; give where it is."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"streams": {}}'])
def test_another_server(body: str) -> None:
    """What another server answers is not taken for a report."""
    with answering(200, body) as where:
        assert "(it answers HTTP 200)" in complaint(where)


@pytest.mark.parametrize("streams", [["x"], [{}], [stream_fields("x", {"id": 1})]])
def test_another_version(streams: list[Any]) -> None:
    """A report that is not understood is of another version."""
    with answering(200, json.dumps({"streams": streams})) as where:
        assert complaint(where).startswith(f"the relayd at {where} says what this relayctl does")


def run(relayctl: Start, relay: RelayProcess, *args: str) -> tuple[int, str, str]:
    """Run relayctl; return exit code, output and error output."""
    process = relayctl(*args, env=os.environ | {"RELAYD_ADMIN": operator_port(relay)})
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output.decode(), errors.decode()


def test_streams(relay: RelayProcess, relayctl: Start) -> None:
    """The streams are listed, one with its viewers; --json prints what the relay says."""
    with (
        relay.stream("listed") as (streamer, _),
        relay.stream("other"),
        relay.view("listed") as viewer,
    ):
        code, output, errors = run(relayctl, relay, "streams")
        assert (code, errors) == (0, "")
        header, *rows = [line.split() for line in output.splitlines()]
        assert header[:2] == ["STREAM", "STREAMER"]
        listed = {row[0]: dict(zip(header, row, strict=False)) for row in rows}
        assert listed["listed"]["STREAMER"] == address(streamer)
        assert (listed["listed"]["VIEWERS"], listed["other"]["VIEWERS"]) == ("1", "0")

        code, output, errors = run(relayctl, relay, "streams", "listed")
        assert (code, errors) == (0, "")
        assert address(viewer) in output
        assert "other" not in output

        code, output, errors = run(relayctl, relay, "streams", "--json")
        assert (code, errors) == (0, "")
        assert {s["id"] for s in json.loads(output)["streams"]} >= {"listed", "other"}
        (named,) = json.loads(run(relayctl, relay, "streams", "listed", "--json")[1])["streams"]
        assert named.keys() == stream_fields("x").keys()
        assert named["viewers"][0].keys() == viewer_fields(1).keys()
        assert named["viewers"][0]["address"] == address(viewer)


def test_no_such_stream(relay: RelayProcess, relayctl: Start) -> None:
    """What is not there is one line and exit code 1."""
    for args, what in (
        (["streams", "nowhere"], "stream nowhere"),
        (["kick", "nowhere"], "stream nowhere"),
        (["kick", "--viewer", "0"], "viewer 0"),
    ):
        expected = f"relayctl: there is no {what}; relayctl streams shows what there is\n"
        assert run(relayctl, relay, *args) == (1, "", expected)


def test_kick(relay: RelayProcess, relayctl: Start) -> None:
    """A viewer is kicked alone; a stream with all its connections."""
    with (
        relay.stream("kicked") as (streamer, _),
        relay.view("kicked") as first,
        relay.view("kicked") as second,
    ):
        (found,) = Operator(Address.parse(operator_port(relay))).streams("kicked")
        numbers = {viewer.address: viewer.number for _, viewer in found.viewers}
        number = numbers[address(first)]
        expected = f"Closed the connection of viewer {number}.\n"
        assert run(relayctl, relay, "kick", "--viewer", str(number)) == (0, expected, "")
        assert close_code(first) is not None
        streamer.send(b"frame")
        assert second.recv(PATIENCE) == b"frame"
        expected = "Closed the stream kicked.\n"
        assert run(relayctl, relay, "kick", "kicked") == (0, expected, "")
        assert close_code(streamer) is not None
