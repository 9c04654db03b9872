"""What a server process on this machine costs, from Linux's /proc; nothing is known elsewhere."""

import ipaddress
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, of a process and all below it, also ended ones.

    Exact for what runs; what has ended is counted in clock ticks, 10 ms as a rule. 0 if there is no
    such process.
    """
    return sum(map(own_cpu_seconds, _family(pid)))


def own_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of those that it has waited for."""
    # proc(5): fields 14 to 17 of stat are utime, stime, cutime and cstime, in ticks; field 2, the
    # name, may have spaces and brackets.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    if not fields:
        return 0.0
    own_user, own_system, ended_user, ended_system = map(int, fields[11:15])
    tick = 1 / os.sysconf("SC_CLK_TCK")
    try:
        # The same sum in nanoseconds. The clock's number is made as clock_getcpuclockid(3) makes
        # it, which Python lacks: sysdeps/unix/sysv/linux/kernel-posix-cpu-timers.h of glibc.
        own = time.clock_gettime(~pid << 3 | 2)
    except OSError:
        own = (own_user + own_system) * tick
    return own + (ended_user + ended_system) * tick


def peak_memory(pid: int) -> int:
    """Return the most resident memory that a process and those below it have had since they began.

    In bytes: the sum of each one's peak. 0 if there is no such process.
    """
    peaks = (re.search(r"VmHWM:\s+(\d+) kB", _read(pid, "status")) for pid in _family(pid))
    return sum(int(peak[1]) * 1024 for peak in peaks if peak)


def find_server(host: str, port: int) -> int | None:
    """Return the process that listens at an address; None if it can't be seen from here."""
    if sys.platform != "linux":
        return None
    inodes = set(_listening_inodes(_local_addresses(host), port))
    if not inodes:
        return None
    owners = {pid for pid in _processes() if inodes & set(_socket_inodes(pid))}
    # Workers share the socket of their master, and its family is what counts.
    return min((pid for pid in owners if _parent(pid) not in owners), default=None)


def _family(pid: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for other in _processes():
        children.setdefault(_parent(other), []).append(other)
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family


def _processes() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def _read(pid: int, name: str) -> str:
    try:
        return (_PROC / str(pid) / name).read_text(errors="replace")
    except OSError:  # It has ended meanwhile.
        return ""


def _local_addresses(host: str) -> set[Address]:
    """Return the addresses of a host that are this machine's own."""
    local = set()
    for family, _, _, _, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address[0], 0))
        except OSError:
            continue
        local.add(ipaddress.ip_address(str(address[0]).partition("%")[0]))
    return local


def _listening_inodes(addresses: set[Address], port: int) -> Iterator[str]:
    if not addresses:
        return
    for name in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            host, _, port_hex = fields[1].partition(":")
            if fields[3] != _LISTENING or int(port_hex, 16) != port:
                continue
            address = _decode(host)
            if address.is_unspecified or address in addresses:
                yield fields[9]


def _decode(text: str) -> Address:
    """Read an address of /proc/net/tcp: hexadecimal words of 32 bits in this machine's order."""
    words = (int(text[i : i + 8], 16) for i in range(0, len(text), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 4:
        return ipaddress.IPv4Address(packed)
    address = ipaddress.IPv6Address(packed)
    return address.ipv4_mapped or address


def _socket_inodes(pid: int) -> Iterator[str]:
    try:
        descriptors = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:  # Somebody else's.
        return
    for descriptor in descriptors:
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
        except OSError:
            continue
        if match:
            yield match[1]
