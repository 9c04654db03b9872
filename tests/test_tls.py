"""TLS: the certificate that clients see, and how it is exchanged."""

import calendar
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import PATIENCE, RelayProcess, require_tool
from websockets.sync.client import connect

from relayd.tls import expiry

StartRelay = Callable[..., RelayProcess]


def make_certificate(folder: Path, name: str, *, days: int = 2, key: str = "ec") -> None:
    """Write a certificate for ``name`` and its key, over those that are there."""
    kind = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[key]
    subprocess.run(
        [
            *[require_tool("openssl"), "req", "-x509", "-newkey", *kind, "-nodes"],
            *["-days", str(days), "-subj", f"/CN={name}"],
            *["-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        ],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a certificate for `one`."""
    make_certificate(tmp_path, "one")
    return tmp_path


def options(folder: Path) -> list[str]:
    """Return the options of a relay that uses the certificate of a folder."""
    return ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")]


def anybody() -> ssl.SSLContext:
    """Return a client's settings that trust any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def name_of(relay: RelayProcess, server_name: str | None = "localhost") -> str:
    """Return whom the relay's certificate names."""
    with (
        socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client,
        anybody().wrap_socket(client, server_hostname=server_name) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return "two" if b"two" in der else "one"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_reload(start_relay: StartRelay, folder: Path, loop: str) -> None:
    """SIGHUP gives new connections a new certificate, also of another kind; the old ones go on."""
    relay = start_relay(*options(folder), loop=loop)
    url = f"wss://127.0.0.1:{relay.port}"
    assert (name_of(relay), name_of(relay, None)) == ("one", "one")
    with connect(f"{url}/ws/stream", ssl=anybody()) as streamer:
        streamer.send('{"type": "register", "stream_id": "x"}')
        streamer.recv()
        with connect(f"{url}/ws/view/x", ssl=anybody(), max_size=None) as viewer:
            viewer.send('{"type": "subscribe"}')
            viewer.recv()
            make_certificate(folder, "two", key="rsa")
            relay.signal(signal.SIGHUP)
            relay.log.wait_for("info reloaded the certificate")
            assert (name_of(relay), name_of(relay, None)) == ("two", "two")
            for size in (0, 1, 100_000, 3_000_000):
                streamer.send(bytes(size))
                assert viewer.recv(PATIENCE) == bytes(size)


def test_broken(start_relay: StartRelay, folder: Path) -> None:
    """A new certificate that can't be used is reported; the old one stays in use."""
    relay = start_relay(*options(folder))
    (folder / "tls.crt").write_text("no certificate")
    relay.signal(signal.SIGHUP)
    relay.log.wait_for("error kept the old certificate: .*tls.crt and .*tls.key: give a certif")
    assert name_of(relay) == "one"
    (folder / "tls.key").unlink()
    relay.signal(signal.SIGHUP)
    relay.log.wait_for("error kept the old certificate: .*tls.key: No such file or directory")
    assert name_of(relay) == "one"


def test_nothing_to_reload(relay: RelayProcess) -> None:
    """Without TLS a SIGHUP does no harm."""
    relay.signal(signal.SIGHUP)
    relay.log.wait_for("info nothing to reload: there is no TLS_CERT")
    assert relay.health()["status"] == "ok"


def encrypt_key(folder: Path) -> None:
    """Give the key a password."""
    key = folder / "tls.key"
    subprocess.run(
        [require_tool("openssl"), "ec", "-aes256", "-passout", "pass:x", "-in", key, "-out", key],
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize(
    ("spoil", "trouble"),
    [
        (lambda folder: (folder / "tls.crt").unlink(), "tls.crt: No such file or directory"),
        (lambda folder: (folder / "tls.key").write_text("x"), "tls.key: give a certificate chain"),
        (encrypt_key, "in PEM and without a password"),
    ],
)
def test_start(folder: Path, spoil: Callable[[Path], None], trouble: str) -> None:
    """A certificate that can't be used at the start is exit code 1 and one line."""
    spoil(folder)
    result = subprocess.run(
        [sys.executable, "-m", "relayd", "--port", "0", *options(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 1
    assert trouble in result.stderr
    assert result.stderr.count("\n") == 1


def test_old_versions(start_relay: StartRelay, folder: Path) -> None:
    """TLS 1.2 and 1.3 alone; of the old ciphers none."""
    relay = start_relay(*options(folder))

    def shake_hands(**settings: object) -> str | None:
        context = anybody()
        context.set_ciphers("ALL:@SECLEVEL=0")
        for name, value in settings.items():
            set_ciphers = name == "ciphers"
            context.set_ciphers(str(value)) if set_ciphers else setattr(context, name, value)
        with (
            socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client,
            context.wrap_socket(client) as secure,
        ):
            return secure.version()

    assert shake_hands() == "TLSv1.3"
    assert shake_hands(maximum_version=ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake_hands(maximum_version=ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA")


@pytest.mark.parametrize("days", [1, 90, 12_000])
def test_expiry(tmp_path: Path, days: int) -> None:
    """The end of a certificate's validity is read, before 2050 and after."""
    make_certificate(tmp_path, "one", days=days)
    text = subprocess.run(
        [require_tool("openssl"), "x509", "-enddate", "-noout", "-in", tmp_path / "tls.crt"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    parsed = time.strptime(text.strip(), "notAfter=%b %d %H:%M:%S %Y GMT")
    assert expiry((tmp_path / "tls.crt").read_text()) == calendar.timegm(parsed)
