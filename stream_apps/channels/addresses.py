"""Which network addresses a webhook may be at: public ones, and what the operator allows besides."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int, socket.AddressFamily], Awaitable[list[ResolveResult]]]

NAT64 = IPv6Network("64:ff9b::/96")
IPV4_COMPATIBLE = IPv6Network("::/96")


class NotPublic(OSError):
    """The host has an address that is not public: of a private network, link-local, loopback, or reserved."""


def is_allowed(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether a request may go to this address. An IPv6 address that carries an IPv4 address (mapped, compatible, 6to4,
    Teredo, NAT64) is as allowed as that one."""
    if any(address in network for network in allowed):
        return True
    if isinstance(address, IPv6Address) and (inner := _ipv4_in(address)) is not None:
        return is_allowed(inner, allowed)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _ipv4_in(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in NAT64 or address in IPV4_COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def check_literal(host: str, allowed: Sequence[Network] = ()) -> None:
    """Raises NotPublic if the host is written as an address that is not allowed. (Names are checked when they are
    resolved.)"""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return
    if not is_allowed(address, allowed):
        raise NotPublic(f"{address} is not a public address")


class CheckingResolver(AbstractResolver):
    """Resolves a host once per connection and lets it pass only if every one of its addresses is allowed. The
    connection goes to one of exactly these: no second look-up could say something else (DNS rebinding)."""

    def __init__(self, allowed: Sequence[Network] = (), *, resolve: Resolve | None = None) -> None:
        self._allowed = allowed
        self._resolver = ThreadedResolver()
        self._resolve = resolve or self._resolver.resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The host's addresses. Raises NotPublic, OSError."""
        found = await self._resolve(host, port, family)
        for result in found:
            if not is_allowed(ipaddress.ip_address(result["host"].partition("%")[0]), self._allowed):
                raise NotPublic(f"{host} has the address {result['host']}, which is not public")
        return found

    async def close(self) -> None:
        """Closes nothing of ours."""
        await self._resolver.close()
