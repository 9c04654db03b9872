"""relayd and its peers: how each is built, started and stopped, on a core of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from relayd.ctl.wire import Target

HOST = "127.0.0.1"
SOURCES = Path(__file__).parent / "peers"
GOPATH = Path("/usr/share/gocode")
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
"""Where Debian's packages put their files."""

DEFAULT_STREAMS = 100
DEFAULT_VIEWERS = 10
"""What relayd takes without being asked."""

START_TIMEOUT = 10.0
STOP_TIMEOUT = 10.0
BUILD_TIMEOUT = 300.0


class Unavailable(Exception):
    """A server can't be built or started here. The text says why."""


@dataclass(frozen=True)
class Server:
    """A server that can be started.

    Attributes:
        command: The command line, given a port, and how many streams, and viewers of each, come.
        version: Name and version of what it is made of, for the table; empty if that goes without
            saying.
        target: How clients reach it, given the port.
    """

    name: str
    command: Callable[[int, int, int], list[str]]
    version: str = ""
    target: Callable[[int], Target] = lambda port: Target(HOST, port)


@contextmanager
def running(server: Server, streams: int, viewers: int) -> Iterator[tuple[int, Target]]:
    """Run a server on the first core, this process on the second; give its id and address.

    Raises:
        Unavailable: If it does not start.
    """
    port = free_port()
    with _cores() as (server_cores, own_cores), tempfile.TemporaryFile() as output:
        _pin(server_cores)  # Inherited.
        process = subprocess.Popen(
            server.command(port, streams, viewers),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LOG_LEVEL": "warning"},
        )
        _pin(own_cores)
        try:
            if not _listens(process, port):
                output.seek(0)
                said = output.read().decode(errors="replace").strip().splitlines()
                raise Unavailable(f"{server.name} does not start: {said[-1] if said else 'silent'}")
            yield process.pid, server.target(port)
        finally:
            _stop(process)


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def relayd(*options: str) -> Server:
    """Take relayd as it is in this checkout, its limits raised where the load needs it."""
    return Server("relayd", lambda *load: [*_relayd_command(*load), *options])


def floor(folder: Path) -> Server:
    """Build the C relay that does nothing but what the kernel needs."""
    compiler = _tool("cc")
    program = folder / "floor"
    _build([compiler, "-O2", "-o", str(program), str(SOURCES / "floor.c")])
    version = f"cc {_line(compiler, '-dumpfullversion')}"
    return Server("floor", lambda port, *_: [str(program), str(port)], version)


def naive(folder: Path) -> Server:
    """Take the obvious relay with the `websockets` that relayd itself uses."""
    return Server("naive", lambda port, *_: [sys.executable, str(SOURCES / "naive.py"), str(port)])


def ws(folder: Path) -> Server:
    """Install the npm package ws."""
    node, npm = _tool("node"), _tool("npm")
    prefix = folder / "ws"
    prefix.mkdir()
    _build([npm, "install", "--no-audit", "--no-fund", "--prefix", str(prefix), "ws"])
    program = shutil.copy(SOURCES / "ws.js", prefix)
    package = _line(node, "-p", f"require('{prefix}/node_modules/ws/package.json').version")
    return Server(
        "ws",
        lambda port, *_: [node, str(program), str(port)],
        f"Node.js {_line(node, '--version').lstrip('v')}, ws {package}",
    )


def gorilla(folder: Path) -> Server:
    """Build the Go relay with Debian's gorilla/websocket."""
    go = _tool("go")
    if not (GOPATH / "src/github.com/gorilla/websocket").is_dir():
        raise Unavailable("golang-github-gorilla-websocket-dev is not installed")
    program = folder / "gorilla"
    env = {"GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(folder / "gocache")}
    _build([go, "build", "-o", str(program), str(SOURCES / "gorilla.go")], env)
    return Server(
        "gorilla",
        lambda port, *_: [str(program), str(port)],
        f"Go {_line(go, 'env', 'GOVERSION').removeprefix('go')},"
        f" gorilla/websocket {_debian_version('golang-github-gorilla-websocket-dev')}",
    )


def nchan(folder: Path) -> Server:
    """Find nginx and Debian's nchan module."""
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        raise Unavailable("nginx is not installed")
    if not NCHAN_MODULE.is_file():
        raise Unavailable("libnginx-mod-nchan is not installed")
    template = (SOURCES / "nchan.conf").read_text()

    def command(port: int, streams: int, viewers: int) -> list[str]:
        path = folder / "nchan.conf"
        path.write_text(
            template.replace("@MODULE@", str(NCHAN_MODULE))
            .replace("@FOLDER@", str(folder))
            .replace("@PORT@", str(port))
        )
        return [nginx, "-c", str(path), "-p", str(folder)]

    return Server(
        "nchan",
        command,
        f"nginx {_debian_version('nginx')}, nchan {_debian_version('libnginx-mod-nchan')}",
        lambda port: Target(HOST, port, "/publish/{stream}", "/view/{stream}", signalling=False),
    )


PEERS: dict[str, Callable[[Path], Server]] = {
    "floor": floor,
    "nchan": nchan,
    "ws": ws,
    "gorilla": gorilla,
    "naive": naive,
}
"""Every peer's name, and what prepares it in a folder; raises Unavailable."""


def _relayd_command(port: int, streams: int, viewers: int) -> list[str]:
    command = [sys.executable, "-m", "relayd", "--host", HOST, "--port", str(port)]
    if streams > DEFAULT_STREAMS:
        command += ["--max-streams", str(streams)]
    if viewers > DEFAULT_VIEWERS:
        command += ["--max-viewers-per-stream", str(viewers)]
    return command


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not installed")
    return path


def _build(command: list[str], env: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            timeout=BUILD_TIMEOUT,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except subprocess.CalledProcessError as exc:
        said = exc.stdout.strip().splitlines() or ["silent"]
        raise Unavailable(f"{Path(command[0]).name} failed: {said[0]}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(command[0]).name} took too long") from None


def _line(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (result.stdout.splitlines() or [""])[0].strip()


def _debian_version(package: str) -> str:
    if shutil.which("dpkg-query") is None:
        return "(unknown version)"
    return _line("dpkg-query", "-W", "-f", "${Version}", package)


def _listens(process: "subprocess.Popen[bytes]", port: int) -> bool:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, port), START_TIMEOUT):
            return True
        time.sleep(0.02)
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _cores() -> Iterator[tuple[set[int], set[int]]]:
    """Give the server's core and this process's; the same set where there is but one, or no way."""
    if not hasattr(os, "sched_setaffinity"):
        yield set(), set()
        return
    before = os.sched_getaffinity(0)
    first, *others = sorted(before)
    try:
        yield {first}, {others[0]} if others else {first}
    finally:
        os.sched_setaffinity(0, before)


def _pin(cores: set[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)
