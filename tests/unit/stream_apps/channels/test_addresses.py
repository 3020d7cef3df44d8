"""Where webhooks may go: public addresses, however an address is written."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest
from aiohttp.abc import ResolveResult

from stream_apps.channels.addresses import CheckingResolver, NotPublic, check_literal, is_allowed

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104 - an address, nothing is bound
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of clouds
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a00:1::",
]
PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::808:808", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_not_allowed(address: str) -> None:
    assert not is_allowed(ip_address(address))
    with pytest.raises(NotPublic):
        check_literal(f"[{address}]" if ":" in address else address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address))
    check_literal(address)


def test_the_operator_can_allow_a_network_and_no_more() -> None:
    allowed = (ip_network("10.1.0.0/16"),)
    assert is_allowed(ip_address("10.1.2.3"), allowed)
    assert is_allowed(ip_address("::ffff:10.1.2.3"), allowed)
    assert not is_allowed(ip_address("10.2.0.1"), allowed)


def test_a_name_is_no_literal() -> None:
    check_literal("example.org")


def result(address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname="x", host=address, port=443, family=family, proto=0, flags=0)


async def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    async def resolve(_host: str, _port: int, _family: socket.AddressFamily) -> list[ResolveResult]:
        return [result("8.8.8.8"), result("10.0.0.1")]

    resolver = CheckingResolver(resolve=resolve)
    with pytest.raises(NotPublic, match=r"rebinding\.test has the address 10\.0\.0\.1"):
        await resolver.resolve("rebinding.test", 443)
    await resolver.close()


async def test_a_host_is_asked_for_once_and_its_addresses_are_those_that_were_checked() -> None:
    asked: list[str] = []

    async def resolve(host: str, _port: int, _family: socket.AddressFamily) -> list[ResolveResult]:
        asked.append(host)
        return [result("8.8.8.8"), result("2606:2800:21f:cb07:6820:80da:af6b:8b2c")]

    resolver = CheckingResolver(resolve=resolve)
    found = await resolver.resolve("example.org", 443)
    assert [each["host"] for each in found] == ["8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]
    assert asked == ["example.org"]
    await resolver.close()
