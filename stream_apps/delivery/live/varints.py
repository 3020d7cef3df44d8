"""Unsigned integers in as few bytes as they need: seven bits per byte, low ones first (LEB128)."""

from __future__ import annotations

MAX_BITS = 63


class MalformedVarint(ValueError):
    """The bytes end within a number, or the number is too large."""


def encode_varint(number: int) -> bytes:
    """A number that is not negative."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode_varint(data: bytes, offset: int) -> tuple[int, int]:
    """The number at the offset, and the offset after it. Raises MalformedVarint."""
    number = 0
    for shift in range(0, MAX_BITS, 7):
        if offset >= len(data):
            raise MalformedVarint("the bytes end within a number")
        byte = data[offset]
        offset += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, offset
    raise MalformedVarint("a number is too large")
