"""Whose connection a proxy has passed on (X-Forwarded-For)."""

import ipaddress
from collections.abc import Iterable, Sequence

from .config import Network


def client_address(peer: str, host: str, fields: Iterable[str], trusted: Sequence[Network]) -> str:
    """Return the address of the client that a connection comes from, for the log.

    Each proxy adds the address that it was asked from at the end, and a client can put anything
    before that. So the client is the last address that is not that of a trusted proxy.

    Args:
        peer: How the connection's own address is written.
        host: The connection's own IP address.
        fields: The values of X-Forwarded-For.
        trusted: The networks of proxies that are believed.
    """
    client, address = peer, _parse(host)
    hops = [hop.strip() for field in fields for hop in field.split(",")]
    while hops and address is not None and any(address in network for network in trusted):
        hop = hops.pop()
        address = _parse(hop)
        if address is not None:
            client = str(address)
    return client


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address, with or without a port, None if it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
