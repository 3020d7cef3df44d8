"""Whose address a request comes from: the peer's, or what trusted proxies say about it. Whoever else sets a forwarding
header is not believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(scope: Any, trusted: Sequence[Network]) -> str:
    """The address of an ASGI request's client, as limits count it: an IPv4 address, or an IPv6 /64 (what one
    subscriber has). Of X-Forwarded-For it is the last hop that is not itself a trusted proxy."""
    peer = scope["client"][0] if scope.get("client") else ""
    address = _parse(peer)
    if address is None:
        return "unknown"
    if _is_trusted(address, trusted):
        for hop in reversed(_hops(scope["headers"])):
            forwarded = _parse(hop)
            if forwarded is None:
                break  # what stands left of nonsense is not to be believed either
            address = forwarded
            if not _is_trusted(address, trusted):
                break
    return subject_of(address)


def subject_of(address: Address) -> str:
    """The address as the subject of a limit."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    hops: list[str] = []
    for name, value in headers:
        if name == b"x-forwarded-for":
            hops += [hop.strip() for hop in value.decode("latin-1").split(",")]
    return hops


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
