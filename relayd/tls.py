"""TLS: a certificate that can be exchanged while connections go on."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""What TLS 1.2 may use: forward secrecy and authenticated encryption alone (RFC 9325 section 4.2).
TLS 1.3 has nothing else."""


class CertificateError(Exception):
    """A certificate or its key can't be used; the text is one line that says why."""


class Certificate:
    """A certificate with its key, from files.

    Args:
        cert_file: The certificate chain in PEM.
        key_file: The private key in PEM; None: it is in the other file.

    Attributes:
        context: What listening sockets need; each new connection gets the certificate read last.
        expires: When the certificate read last expires, in seconds since the epoch.

    Raises:
        CertificateError: If a file can't be read, or is not what it should be.
    """

    def __init__(self, cert_file: str, key_file: str | None) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self.expires = 0.0
        self._newest = self.context = self._load()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read the files again; connections that are open go on as they are.

        Raises:
            CertificateError: As above; the certificate that was read before stays in use.
        """
        self._newest = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        files = [self._cert_file] if self._key_file is None else [self._cert_file, self._key_file]
        try:
            for file in files:  # OpenSSL would not tell which it can't read
                Path(file).open("rb").close()
            # Without a password OpenSSL would ask for it on the terminal.
            context.load_cert_chain(self._cert_file, self._key_file, password="")
        except ssl.SSLError:
            raise CertificateError(
                f"{' and '.join(files)}: give a certificate chain and its private key, in PEM and"
                " without a password"
            ) from None
        except OSError as exc:
            raise CertificateError(f"{exc.filename}: {exc.strerror}") from None
        self.expires = expiry(Path(self._cert_file).read_text(errors="replace"))
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Give a handshake the newest certificate; OpenSSL asks also where no name is given.

        To load files into a context that has been used would not do: it keeps one certificate for
        each type of key.
        """
        connection.context = self._newest


def expiry(pem: str) -> float:
    """Return when the first certificate of a chain expires, in seconds since the epoch.

    That is notAfter (RFC 5280 section 4.1); the standard library tells it of a peer alone.
    """
    match = re.search("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
    if match is None:
        return 0.0
    ((_, certificate),) = _elements(ssl.PEM_cert_to_DER_cert(match[0]))
    _, to_be_signed = next(_elements(certificate))
    fields = list(_elements(to_be_signed))
    # The version may be left out; serial number, algorithm and issuer come before the validity.
    _, validity = fields[4 if fields[0][0] == _VERSION else 3]
    _, (tag, not_after) = _elements(validity)
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(not_after.decode(), form).replace(tzinfo=UTC).timestamp()


_UTC_TIME = 0x17
_VERSION = 0xA0
"""Tags of DER (ITU-T X.690)."""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element of DER."""
    while data:
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start])
        yield tag, data[start : start + length]
        data = data[start + length :]
