"""relayd as a service of systemd, installed as the README says, in a container of its own."""

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from container import ROOT, Container, wheels
from harness import PATIENCE, RelayProcess, receive, send
from rawclient import RawClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection

from relayd.protocol import CloseCode

README = (ROOT / "README.md").read_text()

URL = "ws://127.0.0.1:8080"

STREAMS = ("lobby", "garden")
VIEWERS = 10
"""Of each stream; MAX_VIEWERS_PER_STREAM."""


class Service(RelayProcess):
    """A relayd that systemd runs in a container, on port 8080 of that one's network."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.port = 8080
        self.url = URL

    def connect(self, path: str, **options: Any) -> AbstractContextManager[ClientConnection]:
        """Open a WebSocket, as a context manager."""
        with self.container.network():
            return super().connect(path, **options)

    def run(self, script: str) -> str:
        """Run a shell script in the container; return what it prints."""
        return self.container.run(script)

    def write(self, path: str, text: str) -> None:
        """Write a file in the container."""
        self.run(f"mkdir -p {Path(path).parent}; cat >{path} <<'END'\n{text}\nEND")

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return self.run(f"systemctl show --value --property={name} relayd").strip()

    def journal(self) -> list[dict[str, str]]:
        """Return what relayd has logged."""
        lines = self.run("journalctl --sync; journalctl --output=json _COMM=relayd").splitlines()
        return [json.loads(line) for line in lines]

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what systemd tells to nobody but who asks."""
        deadline = time.monotonic() + 2 * PATIENCE
        while not is_so():
            assert time.monotonic() < deadline, self.run("systemctl status --full relayd; true")

    def wait_for_successor(self, pid: str) -> None:
        """Wait until another process than this has told systemd that it is ready."""
        self.wait_until(
            lambda: self.show("MainPID") not in {pid, "0"} and self.show("SubState") == "running"
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """relayd, installed by the commands of the README."""
    wheelhouse = tmp_path_factory.mktemp("wheels")
    (install,) = (
        block
        for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", README)
        if "systemctl enable" in block
    )
    # What is here, rather than what was committed; pip has no network.
    install, count = re.subn("^git clone", "cp -r", install)
    assert count == 1
    environment = "export RELAYD=/mnt/source PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt/wheels"
    with Container({ROOT: "/mnt/source", wheelhouse: "/mnt/wheels"}) as container:
        wheels(wheelhouse)
        told = container.run(f"{environment}; mkdir /opt/relayd\n{install}", patience=120)
        health, streams = told.splitlines()[-2:]
        assert json.loads(health) == {"status": "ok", "streams": 0, "viewers": 0}
        assert json.loads(streams) == {"streams": []}
        yield Service(container)


@contextmanager
def drop_in(service: Service, text: str) -> Iterator[None]:
    """Add to the unit for as long as the test lasts."""
    folder = "/run/systemd/system/relayd.service.d"
    service.write(f"{folder}/test.conf", text)
    service.run("systemctl daemon-reload; systemctl restart relayd")
    try:
        yield
    finally:
        service.run(f"rm -r {folder}; systemctl daemon-reload; systemctl restart relayd")


def test_life(service: Service) -> None:
    """It streams, systemd knows what it does, the operator sees it, the journal has priorities."""
    assert service.show("ActiveState") == "active"
    with service.stream("lobby") as (streamer, _), service.view("lobby") as viewer:
        streamer.send(b"picture")
        assert viewer.recv(PATIENCE) == b"picture"
        service.wait_until(lambda: service.show("StatusText") == "1 streams, 1 viewers")
        report = service.run("curl -sS --unix-socket /run/relayd/admin.sock http://relayd/streams")
        (stream,) = json.loads(report)["streams"]
        assert (stream["id"], len(stream["viewers"])) == ("lobby", 1)
    records = service.journal()
    assert any("lobby" in record["MESSAGE"] for record in records)
    for record in records:
        assert record["PRIORITY"] == "6", record
        assert not re.search(r"^<|\d{4}-\d\d-\d\d|\binfo\b", record["MESSAGE"]), record


def test_reload(service: Service) -> None:
    """A reload leaves the process and its connections as they are."""
    pid = service.show("MainPID")
    with service.stream("lobby") as (streamer, _), service.view("lobby") as viewer:
        service.run("systemctl reload relayd")
        streamer.send(b"picture")
        assert viewer.recv(PATIENCE) == b"picture"
    assert service.show("MainPID") == pid
    assert service.show("ActiveState") == "active"


@pytest.mark.alone
def test_killed(service: Service) -> None:
    """A crash costs less than two seconds, and no one who comes meanwhile is refused."""
    pid = service.show("MainPID")
    killed = time.monotonic()
    service.run(f"kill -9 {pid}")
    with service.stream("lobby"):
        assert time.monotonic() - killed < 2
    assert service.show("MainPID") != pid


def test_stuck(service: Service) -> None:
    """A relayd that does nothing any more is replaced."""
    with drop_in(service, "[Service]\nWatchdogSec=1\n"):
        pid = service.show("MainPID")
        service.run(f"kill -STOP {pid}")
        service.wait_for_successor(pid)
        with service.stream("lobby"):
            """It serves."""


def test_bad_setting(service: Service) -> None:
    """A setting that is not allowed is told once, and not tried again."""
    count = len(service.journal())
    service.run("cp /etc/relayd/relayd.env /run/; echo MAX_LAG=soon >>/etc/relayd/relayd.env")
    assert service.run("systemctl restart relayd 2>/dev/null || echo failed") == "failed\n"
    service.wait_until(lambda: service.show("ActiveState") == "failed")
    with pytest.raises(OSError, match="refused"), service.connect("/ws/stream"):
        """Would start it again."""
    assert service.show("ExecMainStatus") == "2"
    *_, record = service.journal()[count:]
    assert re.fullmatch("relayd: MAX_LAG: 'soon' is not allowed; .*", record["MESSAGE"])
    assert record["PRIORITY"] == "3"
    assert service.show("NRestarts") == "0"
    service.run("mv /run/relayd.env /etc/relayd/; systemctl start relayd")


@pytest.mark.alone
def test_restart(service: Service) -> None:
    """Nobody notices an upgrade but those who watch, and they are back at once."""
    with service.container.network():
        tally = asyncio.run(_restart(service))
    assert tally["codes"] == [1012] * len(STREAMS) * (1 + VIEWERS)
    assert tally["refused"] == []
    assert tally["served"] > 10


async def _restart(service: Service) -> dict[str, Any]:
    """Restart relayd under a crowd and under newcomers; tell what they saw."""
    tally: dict[str, Any] = {"codes": [], "refused": [], "served": 0}
    watching = asyncio.Semaphore(0)

    async def publish(stream_id: str) -> None:
        while True:
            async with connect(f"{URL}/ws/stream", compression=None) as client:
                await client.send(json.dumps({"type": "register", "stream_id": stream_id}))
                with suppress(ConnectionClosed):
                    while True:
                        await client.send(b"picture")
                        await asyncio.sleep(0.03)
            tally["codes"].append(client.close_code)

    async def watch(stream_id: str) -> None:
        while True:
            async with connect(f"{URL}/ws/view/{stream_id}", compression=None) as client:
                await client.send('{"type": "subscribe"}')
                with suppress(ConnectionClosed):
                    while await client.recv() != b"picture":
                        """Signalling."""
                    watching.release()
                    async for _ in client:
                        """Pictures."""
            if client.close_code != CloseCode.NOT_FOUND:  # its streamer is not back yet
                tally["codes"].append(client.close_code)

    async def knock() -> None:
        while True:
            try:
                async with connect(f"{URL}/ws/view/nothing", compression=None) as client:
                    await client.send('{"type": "subscribe"}')
                    async for _ in client:
                        """What it says is not the point."""
            except ConnectionClosed:
                tally["served"] += 1
            except (OSError, EOFError, InvalidHandshake) as exc:
                tally["refused"].append(repr(exc))

    async def all_watch() -> None:
        for _ in range(len(STREAMS) * VIEWERS):
            await watching.acquire()

    async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
        tasks = [group.create_task(knock())]
        for stream_id in STREAMS:
            tasks.append(group.create_task(publish(stream_id)))
            tasks += [group.create_task(watch(stream_id)) for _ in range(VIEWERS)]
        await all_watch()
        await asyncio.to_thread(service.run, "systemctl restart relayd")
        await all_watch()
        for task in tasks:
            task.cancel()
    return tally


def test_drain(service: Service) -> None:
    """Where it is given the time, streams go on while /health says stop; it ends when all left."""
    health = "curl --silent --output /dev/null --write-out '%{http_code}' localhost:8080/health"
    with drop_in(service, "[Service]\nEnvironment=DRAIN_TIMEOUT=1h\n"):
        pid = service.show("MainPID")
        with service.stream("lobby") as (streamer, _), service.view("lobby") as viewer:
            service.run("systemctl restart --no-block relayd")
            service.wait_until(lambda: service.run(health) == "503")
            assert service.show("ActiveState") == "deactivating"
            streamer.send(b"picture")
            assert viewer.recv(PATIENCE) == b"picture"
            with pytest.raises(InvalidStatus, match="503"), service.connect("/ws/view/lobby"):
                """Would find no place."""
        service.wait_for_successor(pid)
        assert service.run(health) == "200"


def test_warning(service: Service) -> None:
    """What is worth a look, a client that does not answer, is a warning in the journal."""
    count = len(service.journal())
    with service.container.network():
        client = RawClient.streamer(service, "lobby")
    with client:
        service.run("systemctl restart relayd")
    warnings = [line["MESSAGE"] for line in service.journal()[count:] if line["PRIORITY"] == "4"]
    assert warnings == ["some clients did not answer the close frame"]


CERTIFICATE = """
cd /etc/relayd
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout tls.key -out tls.crt 2>/dev/null
"""

HTTPS = "curl --no-progress-meter --cacert /etc/relayd/tls.crt https://localhost:8080/health"
"""Fails unless relayd has the certificate that is there now."""


def test_tls(service: Service) -> None:
    """relayd gets the certificate that is there when it starts, with a key for root alone."""
    service.run(f"{CERTIFICATE} chmod 600 tls.key")
    with drop_in(service, (ROOT / "systemd" / "tls.conf").read_text()):
        service.run(HTTPS)
        service.run(f"{CERTIFICATE} chmod 600 tls.key; systemctl restart relayd")
        service.run(HTTPS)


def test_tls_reload(service: Service) -> None:
    """With a key for a group, a reload is enough, and a connection from before stays."""
    service.run("getent group ssl-cert || groupadd --system ssl-cert")
    for_group = "chgrp ssl-cert tls.key; chmod 640 tls.key"
    service.run(f"{CERTIFICATE} {for_group}")
    text = (ROOT / "systemd" / "tls.conf").read_text()
    text, count = re.subn("(?m)^#([A-Z])", r"\1", text)
    assert count == 3
    with drop_in(service, text):
        context = ssl.create_default_context(cadata=service.run("cat /etc/relayd/tls.crt"))
        service.url = "wss://localhost:8080"
        try:
            with service.connect("/ws/stream", ssl=context) as streamer:
                service.run(f"{CERTIFICATE} {for_group}; systemctl reload relayd")
                service.run(HTTPS)
                send(streamer, type="register", stream_id=None)
                assert receive(streamer)["type"] == "registered"
        finally:
            service.url = URL


@pytest.mark.parametrize("name", [None, "network.conf"])
def test_network(service: Service, name: str | None) -> None:
    """relayd has a network only where it is given one."""
    text = "" if name is None else (ROOT / "systemd" / name).read_text()
    with drop_in(service, text):
        pid = service.show("MainPID")
        own, outer = service.run(f"readlink /proc/{pid}/ns/net /proc/1/ns/net").split()
        assert (own == outer) == (name is not None)
        with service.stream("lobby"):
            """It serves, either way."""
