"""What systemd is told, and what it hands over.

See sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). Without systemd nothing happens.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping

_FIRST_FD = 3
"""SD_LISTEN_FDS_START: the first file descriptor that is handed over."""


_STOP_TIME = 30
"""Seconds that it takes at most to close 10,000 connections, and more."""


class Notifier:
    """Tells the service manager what the service does.

    Args:
        environ: Where the manager says how it wants to be told.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address: str | None = None
        self._status = ""
        self.watchdog_interval = _watchdog_interval(environ)
        address = environ.get("NOTIFY_SOCKET", "")
        if address.startswith(("/", "@")) and hasattr(socket, "AF_UNIX"):
            # @ stands for the zero byte of the abstract namespace (unix(7)).
            self._address = address.replace("@", "\0", 1) if address[0] == "@" else address

    @property
    def is_listening(self) -> bool:
        """Whether there is a manager to tell."""
        return self._address is not None

    def ready(self) -> None:
        """Say that the service has started, or has been reloaded."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the service reads its files again; `ready` ends that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> None:
        """Say that the service is about to end, and that its clients go on for so many seconds.

        That is added to the time that the manager gives a service to end.
        """
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round((seconds + _STOP_TIME) * 1e6)}")

    def status(self, text: str) -> None:
        """Say in a line what the service does; the same line is not sent twice."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Say that the service is not stuck."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        # A manager that does not listen at the moment must not hold the service up.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(), self._address)


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Return half the seconds that the manager waits for a sign of life; None: it does not."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdecimal() else None


def listening_sockets(environ: Mapping[str, str] = os.environ) -> list[tuple[str, socket.socket]]:
    """Return the listening sockets that the manager has opened, each with its name."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    sockets = []
    for number in range(int(environ.get("LISTEN_FDS", "0"))):
        handed_over = socket.socket(fileno=_FIRST_FD + number)
        handed_over.setblocking(False)
        os.set_inheritable(handed_over.fileno(), False)
        sockets.append((names[number] if number < len(names) else "", handed_over))
    return sockets


def stderr_is_journal(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to stderr goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(2)
    except OSError:  # closed
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
