"""Who is behind a proxy."""

import ipaddress

import pytest

from relayd.forwarded import client_address

TRUSTED = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8", "192.0.2.7")]


@pytest.mark.parametrize(
    ("host", "fields", "client"),
    [
        ("10.0.0.1", ["198.51.100.4"], "198.51.100.4"),
        ("10.0.0.1", ["198.51.100.4:5312"], "198.51.100.4"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.4"], "198.51.100.4"),  # a client's own words
        ("10.0.0.1", ["203.0.113.9", "198.51.100.4"], "198.51.100.4"),
        ("10.0.0.1", ["198.51.100.4, 192.0.2.7"], "198.51.100.4"),  # two proxies
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),  # a client from within
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("fd00::1", ["[2001:db8::7]:5312"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["198.51.100.4"], "198.51.100.4"),
        ("10.0.0.1", [], "peer"),
        ("10.0.0.1", [""], "peer"),
        ("10.0.0.1", ["unknown"], "peer"),
        ("10.0.0.1", ["198.51.100.4, \x1b[2J"], "peer"),
        ("198.51.100.9", ["203.0.113.9"], "peer"),  # no proxy that is trusted
    ],
)
def test_client(host: str, fields: list[str], client: str) -> None:
    """The client is the last address that no trusted proxy has."""
    assert client_address("peer", host, fields, TRUSTED) == client
