"""Tests of what is known about a server process on this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import RelayProcess

from relayd.ctl import usage

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")

NO_PROCESS = 2**30

# Uses 0.2 s of CPU in a child that ends, in one that stays, and itself; says so; waits.
FAMILY = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.2: pass\\n"
ended = subprocess.run([sys.executable, "-c", burn])
child = subprocess.Popen(
    [sys.executable, "-c", burn + "print('burnt', flush=True); input()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
child.stdout.readline()
exec(burn)
print("burnt", flush=True)
sys.stdin.read()
child.communicate(b"\\n")
"""


@pytest.fixture(scope="module")
def family() -> "Iterator[subprocess.Popen[bytes]]":
    """A process with a child and one that has ended, each of which has used 0.2 s of CPU."""
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"burnt\n"
    yield process
    process.communicate()


@linux
def test_cpu_of_a_family(family: "subprocess.Popen[bytes]") -> None:
    """A process's CPU time is its own, its children's, and that of children that have ended."""
    # Each is counted in ticks, and cut off.
    assert usage.cpu_seconds(family.pid) >= 0.6 - 6 / os.sysconf("SC_CLK_TCK")


@linux
def test_cpu_by_ticks(family: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without a clock for each process counts in ticks."""
    exact = usage.cpu_seconds(family.pid)

    def fail(clock: int) -> float:
        raise OSError

    monkeypatch.setattr(usage.time, "clock_gettime", fail)
    assert usage.cpu_seconds(family.pid) == pytest.approx(exact, abs=6 / os.sysconf("SC_CLK_TCK"))


@linux
def test_memory_of_a_family(family: "subprocess.Popen[bytes]") -> None:
    """A process's memory is its own and its children's."""
    (child,) = (pid for pid in usage._family(family.pid) if pid != family.pid)
    assert usage.peak_memory(family.pid) > usage.peak_memory(child) > 2**20


@linux
def test_no_process() -> None:
    """A process that has ended costs nothing."""
    assert (usage.cpu_seconds(NO_PROCESS), usage.peak_memory(NO_PROCESS)) == (0, 0)


@linux
def test_find_relay(relay: RelayProcess) -> None:
    """The process that listens at an address is found, by any name of this machine."""
    assert usage.find_server("127.0.0.1", relay.port) == relay.process.pid
    assert usage.find_server("localhost", relay.port) == relay.process.pid


@linux
@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "::1"),
        ("::", "127.0.0.1"),
        ("::", "::1"),
    ],
)
def test_find_by_address(address: str, asked: str) -> None:
    """A server that listens at all addresses is found too, at IPv4 and IPv6."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, 0), family=family, dualstack_ipv6=address == "::")
    except OSError:
        pytest.skip("there is no IPv6")
    with listener:
        assert usage.find_server(asked, listener.getsockname()[1]) == os.getpid()


@linux
def test_find_master() -> None:
    """Of a server with workers that share its socket, the master is found."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )
        assert worker.stdout is not None
        worker.stdout.readline()
        try:
            assert usage.find_server("127.0.0.1", listener.getsockname()[1]) == os.getpid()
        finally:
            worker.communicate(b"\n")


@linux
def test_not_found() -> None:
    """Nobody is found where nobody listens, or on another machine."""
    assert usage.find_server("127.0.0.1", 1) is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert usage.find_server("192.0.2.1", port) is None
        assert usage.find_server("127.0.0.2", port) is None


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, nothing is known."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert usage.find_server("127.0.0.1", 1) is None


@linux
def test_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor where /proc does not show the network."""
    monkeypatch.setattr(usage, "_PROC", tmp_path)
    assert usage.find_server("127.0.0.1", 1) is None


@linux
def test_processes_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What may not be looked at is passed over."""
    (tmp_path / "net").mkdir()
    line = "   0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 4711\n"
    (tmp_path / "net" / "tcp").write_text("  sl  local_address ...\n" + line)
    (tmp_path / "1").mkdir()
    (tmp_path / "2" / "fd").mkdir(parents=True)
    (tmp_path / "2" / "fd" / "0").write_text("not a link")
    (tmp_path / "3" / "fd").mkdir(parents=True)
    (tmp_path / "3" / "fd" / "0").symlink_to("/dev/null")
    (tmp_path / "3" / "fd" / "1").symlink_to("socket:[4711]")
    monkeypatch.setattr(usage, "_PROC", tmp_path)
    assert usage.find_server("127.0.0.1", 8080) == 3
