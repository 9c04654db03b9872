"""A Debian 12 with systemd as its first process, in a container of its own; needs root."""

import configparser
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest
from harness import PATIENCE, require_tool, skip_or_fail
from network import CLONE_NEWNET, libc

RELEASE = "bookworm"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,curl,procps,ca-certificates"

ROOT = Path(__file__).parents[1]

BOOT_PATIENCE = 60
"""Seconds that the container has to boot, most of all on a busy machine."""


def cache() -> Path:
    """Return the folder where the tests keep what takes long to make."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relayd-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def system() -> Path:
    """Return the root directory of a plain Debian 12; made once, then kept in the cache."""
    root = cache() / RELEASE
    if root.exists():
        return root
    debootstrap = require_tool("debootstrap")
    unfinished = Path(tempfile.mkdtemp(prefix=f"{RELEASE}-", dir=cache()))
    command = [debootstrap, "--variant=minbase", f"--include={PACKAGES}", RELEASE, unfinished]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        shutil.rmtree(unfinished)
        skip_or_fail(f"debootstrap can't make a Debian: {made.stdout[-500:]}")
    shutil.rmtree(unfinished / "var/cache/apt")
    (unfinished / "etc/hosts").write_text("127.0.0.1 localhost\n")
    unfinished.chmod(0o755)
    try:
        unfinished.rename(root)
    except OSError:  # another process was faster
        shutil.rmtree(unfinished)
    return root


def wheels(folder: Path) -> None:
    """Fill a folder with what pip needs to install relayd in the container, without a network."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = setup["options"]["install_requires"] + setup["options.extras_require"]["metrics"]
    options = ["--only-binary=:all:", "--python-version=3.11", "--dest", folder]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
    command += [*re.findall("(?m)^[^;\n]+", needed), "setuptools", "wheel"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        skip_or_fail(f"pip can't download what relayd needs: {result.stderr}")


class Container:
    """A Debian that has booted; what it writes is gone when it ends.

    Args:
        binds: Folders of this machine that are to be seen in it, read-only, with their place there.
    """

    def __init__(self, binds: dict[Path, str]) -> None:
        if sys.platform != "linux":
            pytest.skip("systemd runs on Linux alone")
        nspawn = require_tool("systemd-nspawn")
        require_tool("nsenter")
        if os.geteuid() != 0:
            skip_or_fail("a container with systemd needs root")
        root = system()
        self._folder = tempfile.TemporaryDirectory()
        address = f"{self._folder.name}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(address)
            notify.settimeout(BOOT_PATIENCE)
            self._output = (Path(self._folder.name) / "console").open("w")
            self._process = subprocess.Popen(
                [
                    *(nspawn, "--quiet", "--boot", "--directory", root, "--volatile=overlay"),
                    *("--register=no", "--keep-unit", "--private-network", "--link-journal=no"),
                    *("--machine", f"relayd-{os.getpid()}", "--notify-ready=yes"),
                    # For IPAddressDeny=, which is a BPF program.
                    *("--capability=CAP_BPF", "--system-call-filter=bpf"),
                    *(f"--bind-ro={path}:{place}" for path, place in binds.items()),
                    "--console=read-only",
                ],
                env=os.environ
                | {"NOTIFY_SOCKET": address, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
            try:
                self.leader = _wait_until_booted(notify)
            except TimeoutError:
                self._end()
                skip_or_fail("the container does not boot")

    def __enter__(self) -> "Container":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        # systemd in a container takes this, from nspawn, for "power off".
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        self._folder.cleanup()

    def run(self, script: str, *, check: bool = True, patience: float = 60) -> str:
        """Run a shell script in it; return what it prints."""
        command = ["nsenter", "--target", str(self.leader), "--all", "--", "sh", "-ec", script]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        result = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=patience, check=False
        )
        assert not check or result.returncode == 0, f"{script}\n{result.stdout}{result.stderr}"
        return result.stdout

    @contextmanager
    def network(self) -> Iterator[None]:
        """Let this thread open its sockets in the network of the container; they stay there."""
        with (
            Path("/proc/thread-self/ns/net").open() as outside,
            Path(f"/proc/{self.leader}/ns/net").open() as inside,
        ):
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(outside.fileno())


def _enter(namespace: int) -> None:
    """Put this thread into a network namespace."""
    if libc.setns(namespace, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _wait_until_booted(notify: socket.socket) -> int:
    """Wait until nspawn says that the container is up; return the id of its first process."""
    leader = 0
    while True:
        for line in notify.recv(4096).decode().splitlines():
            name, _, value = line.partition("=")
            if name == "X_NSPAWN_LEADER_PID":
                leader = int(value)
            elif line == "READY=1" and leader:
                return leader
