"""The operator's port."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, LineReader, RelayProcess, close_code
from rawclient import RawClient

StartRelay = Callable[..., RelayProcess]


@pytest.fixture(scope="module")
def relay() -> Any:
    """A relay with an operator's port."""
    with RelayProcess("--admin-port", "0") as relay:
        yield relay


def stream_of(relay: RelayProcess, stream_id: str) -> dict[str, Any]:
    """Return what is said of a stream."""
    _, body = relay.operate("GET", "/streams")
    (stream,) = [s for s in json.loads(body)["streams"] if s["id"] == stream_id]
    return dict(stream)


def test_streams(relay: RelayProcess) -> None:
    """Streams and viewers are listed with what they sent and got."""
    with relay.stream("x") as (streamer, _), relay.view("x") as viewer:
        for size in (10, 1000, 100_000):
            streamer.send(bytes(size))
            assert viewer.recv(PATIENCE) == bytes(size)
        stream = stream_of(relay, "x")
        host, port = streamer.local_address[:2]
        assert stream["address"] == f"{host}:{port}"
        on_the_wire = (2 + 10) + (4 + 1000) + (10 + 100_000)  # RFC 6455 section 5.2
        assert (stream["frames"], stream["bytes"]) == (3, on_the_wire)
        (watching,) = stream["viewers"]
        host, port = viewer.local_address[:2]
        assert watching["address"] == f"{host}:{port}"
        assert (watching["frames"], watching["dropped"], watching["queue_bytes"]) == (3, 0, 0)
        assert watching["waits_for"] is None
        assert 0 < watching["fps"] <= 3 / max(0.001, watching["age"] - 0.1)
        if sys.platform == "linux":
            assert 0 <= watching["unacknowledged_bytes"] <= on_the_wire + 200
            assert 0 < watching["rtt"] < 1


def test_slow_viewer(relay: RelayProcess) -> None:
    """Of a viewer that reads nothing it is told what waits and what was dropped, and why."""
    with (
        relay.stream("slow") as (streamer, _),
        RawClient.viewer(relay, "slow"),
    ):
        for _ in range(400):
            streamer.send(bytes(100_000))
        relay.log.wait_for("stream slow: dropped .* frames of slow viewers")
        (slow,) = stream_of(relay, "slow")["viewers"]
        assert slow["waits_for"] == "network"
        assert slow["queue_frames"] > 0
        assert slow["queue_bytes"] == slow["queue_frames"] * (100_000 + 10)
        assert slow["dropped"] == sum(slow["drops"].values())
        assert slow["drops"]["buffer"] + slow["drops"]["late"] == slow["dropped"] > 0
        assert slow["lag"] > 0
        assert slow["unacknowledged_bytes"] > 0


def test_kick_viewer(relay: RelayProcess) -> None:
    """A viewer is closed with 1008; the others go on."""
    with relay.stream("k") as (streamer, _), relay.view("k") as one, relay.view("k") as other:
        first, second = (viewer["id"] for viewer in stream_of(relay, "k")["viewers"])
        response, body = relay.operate("DELETE", f"/viewers/{first}")
        assert (response.status, body) == (204, b"")
        assert close_code(one) == 1008
        streamer.send(b"x")
        assert other.recv(PATIENCE) == b"x"
        assert [v["id"] for v in stream_of(relay, "k")["viewers"]] == [second]
    response, body = relay.operate("DELETE", f"/viewers/{first}")
    assert (response.status, body) == (404, b"There is no viewer with this number.\n")


def test_kick_stream(relay: RelayProcess) -> None:
    """A stream is ended for its viewers, its streamer closed; its id is free at once."""
    with relay.register("k", features=["resume"]) as (streamer, _), relay.view("k") as viewer:
        response, _ = relay.operate("DELETE", "/streams/k")
        assert response.status == 204
        assert json.loads(viewer.recv(PATIENCE)) == {"type": "stream_ended", "stream_id": "k"}
        assert close_code(viewer) == 1000
        assert close_code(streamer) == 1008
        with relay.stream("k"):
            pass
    response, _ = relay.operate("DELETE", "/streams/nowhere")
    assert response.status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/streams", 200),
        ("GET", "/health", 200),
        ("GET", "/ws/stream", 404),
        ("POST", "/streams", 405),
        ("GET", "/streams/x", 405),
        ("GET", "/viewers/1", 405),
        ("DELETE", "/viewers/x", 404),
    ],
)
def test_paths(relay: RelayProcess, method: str, path: str, status: int) -> None:
    """Every path has its methods; all else is told what to do in a line."""
    response, body = relay.operate(method, path)
    assert response.status == status
    assert body.count(b"\n") == (method != "HEAD")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example:80"},  # DNS rebinding
        {"Host": "127.0.0.1.evil.example"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/streams"), ("DELETE", "/streams/kept")])
def test_pages_may_not(
    relay: RelayProcess, method: str, path: str, headers: dict[str, str]
) -> None:
    """A page that the operator looks at can neither see nor end a stream."""
    with relay.stream("kept"):
        response, _ = relay.operate(method, path, **headers)
        assert response.status == 403
        assert stream_of(relay, "kept")


@pytest.mark.parametrize("host", ["localhost:9090", "[::1]:9090", "127.0.0.1"])
def test_hosts(relay: RelayProcess, host: str) -> None:
    """The names of the loopback interface are fine."""
    assert relay.operate("GET", "/streams", Host=host)[0].status == 200


def test_port_taken(relay: RelayProcess) -> None:
    """A port that another process has is exit code 1 and one line."""
    (found,) = relay.log.wait_for(r"operator's port on 127\.0\.0\.1:(\d+)")
    result = subprocess.run(
        [sys.executable, "-m", "relayd", "--port", "0", "--admin-port", found[1]],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 1
    message = f"relayd: cannot listen on 127.0.0.1:{found[1]}: Address already in use\n"
    assert result.stderr.endswith(message)


WITHOUT_PROMETHEUS = (
    "import sys; sys.modules['prometheus_client'] = None; from relayd.cli import main; main()"
)


def test_without_the_extra() -> None:
    """Without prometheus-client all but /metrics works, and a line at the start says so."""
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_PROMETHEUS, "--port", "0", "--admin-port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        log = LineReader(process.stderr)
        log.wait_for(r"warning no /metrics: install relayd with its extra, relayd\[metrics\]")
        (found,) = log.wait_for(r"operator's port on 127\.0\.0\.1:(\d+)")
        for path, status in (("/metrics", 501), ("/streams", 200)):
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=PATIENCE)
            connection.request("GET", path)
            with connection.getresponse() as response:
                assert response.status == status
            connection.close()
        process.terminate()
        assert process.wait(PATIENCE) == 0


HANDED_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "relayd:admin"}
os.execv(sys.executable, [sys.executable, "-m", "relayd"])
"""


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_handed_over(tmp_path: Path) -> None:
    """A socket with the name `admin` is the operator's port, whatever ADMIN_PORT says."""
    path = str(tmp_path / "admin.sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as public,
        socket.socket(socket.AF_UNIX) as admin,
    ):
        admin.bind(path)
        admin.listen()
        # Above the numbers that they get.
        numbers = [os.dup(sock.fileno()) for sock in (public, admin) for _ in range(4)][3::4]
        with subprocess.Popen(
            [sys.executable, "-c", HANDED_OVER, *map(str, numbers)],
            pass_fds=numbers,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            log = LineReader(process.stderr)
            log.wait_for("operator's port on local socket")
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(path)
                client.sendall(b"GET /streams HTTP/1.1\r\nHost: relayd\r\n\r\n")
                answer = b""
                while data := client.recv(4096):
                    answer += data
            assert answer.endswith(b'\r\n\r\n{"streams": []}\n')
            process.terminate()
            assert process.wait(PATIENCE) == 0
