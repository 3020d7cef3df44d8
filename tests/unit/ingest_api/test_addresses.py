"""Client addresses: whose word about them is believed."""

from __future__ import annotations

import pytest

from ingest_api.limits.addresses import Network, client_address
from ingest_api.settings import Settings


def trusted(text: str) -> tuple[Network, ...]:
    return Settings.model_validate({"signing_key_file": "x", "trusted_proxies": text}).trusted_proxies


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "found"),
    [
        ("203.0.113.9", [], "", "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "", "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1, 10.2.3.4"], "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, nonsense"], "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.0/8,fd00::/8", "10.0.0.1"),
        ("fd00::1", ["2001:db8:1:2:3::4"], "10.0.0.0/8, fd00::/8", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", [], "", "203.0.113.9"),
        ("a socket", ["1.1.1.1"], "0.0.0.0/0", "unknown"),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str, forwarded: list[str], proxies: str, found: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    headers.append((b"forwarded", b"for=6.6.6.6"))
    assert client_address({"client": (peer, 1), "headers": headers}, trusted(proxies)) == found
