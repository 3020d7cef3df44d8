"""Cursors: where in each conversation a stream is, as the opaque id that every event carries. Pure.

A cursor stays small however many conversations a user has: it names a base (positions that the server keeps, see
bases.py) and adds only the positions that have changed since. Conversations that the base does not hold are added with
their ids, so a stream of a few conversations needs no base at all.

    cursor = base64url(scope, base id (16 bytes), varint n, n * (conversation id (16), seq), (index, seq)..., seal (12))

where index is the conversation's place in the base, and numbers are varints. The seal is a keyed hash of what precedes
it and of the user: a cursor that this system did not give to this user says nothing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from uuid import UUID

from stream_apps.delivery.live.varints import MalformedVarint, decode_varint, encode_varint

ID_LENGTH = 16
NO_BASE = bytes(ID_LENGTH)
SEAL_LENGTH = 12
MAX_CHANGES = 16
"""With more changed positions than this a cursor should get a new base."""
MAX_WITHOUT_BASE = 4
"""Up to this many conversations travel in the cursor itself."""


class Scope(IntEnum):
    """What a stream follows; the first byte of its cursors, and so also their version."""

    EVERY_CONVERSATION = 1
    ONE_CONVERSATION = 2


class MalformedCursor(ValueError):
    """This is not a cursor that a stream gave this user, or the positions behind it are gone."""


class Sealer:
    """Makes and checks the seals of one user's cursors. `secret` is what all processes of this system share."""

    def __init__(self, secret: str, user_id: str) -> None:
        key = blake2b(secret.encode()).digest()
        self._started = blake2b(UUID(user_id).bytes, key=key, digest_size=SEAL_LENGTH, person=b"chat4all cursor")

    def seal(self, data: bytes) -> bytes:
        """The keyed hash (BLAKE2b, RFC 7693) of user and data."""
        started = self._started.copy()
        started.update(data)
        return started.digest()

    def is_sealed(self, data: bytes, seal: bytes) -> bool:
        """Whether this seal is of this data."""
        return hmac.compare_digest(self.seal(data), seal)


@dataclass(frozen=True, slots=True)
class Base:
    """Positions that cursors refer to. `base_id` is random; `positions` is conversation id -> seq, and its order
    counts."""

    base_id: bytes
    positions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A cursor as it was decoded. `changed` is index in the base -> seq; `added` is conversation id -> seq."""

    scope: Scope
    base_id: bytes
    added: dict[str, int] = field(default_factory=dict)
    changed: dict[int, int] = field(default_factory=dict)


def decode_cursor(text: str, sealer: Sealer) -> Cursor:
    """The cursor in an event's id. Raises MalformedCursor."""
    try:
        sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        data, seal = sealed[:-SEAL_LENGTH], sealed[-SEAL_LENGTH:]
        if not sealer.is_sealed(data, seal):
            raise MalformedCursor("it was not given to this user by this system")
        scope = Scope(data[0])
        base_id = data[1 : 1 + ID_LENGTH]
        count, offset = decode_varint(data, 1 + ID_LENGTH)
        added: dict[str, int] = {}
        for _ in range(count):
            conversation_id = str(UUID(bytes=data[offset : offset + ID_LENGTH]))
            added[conversation_id], offset = decode_varint(data, offset + ID_LENGTH)
        changed: dict[int, int] = {}
        while offset < len(data):
            index, offset = decode_varint(data, offset)
            changed[index], offset = decode_varint(data, offset)
    except MalformedCursor:
        raise
    except (binascii.Error, ValueError, IndexError, MalformedVarint) as error:
        raise MalformedCursor(f"{type(error).__name__}: {error}") from error
    return Cursor(scope, base_id, added, changed)


def resolve(cursor: Cursor, base: Base | None) -> dict[str, int]:
    """The positions that a cursor stands for. `base` is None if it names none. Raises MalformedCursor."""
    positions = {} if base is None else dict(base.positions)
    order = list(positions)
    for index, seq in cursor.changed.items():
        if index >= len(order):
            raise MalformedCursor(f"the base has no position {index}")
        positions[order[index]] = seq
    return positions | cursor.added


def pack_base(user_id: str, positions: Mapping[str, int]) -> bytes:
    """A base as it is stored: the user whose it is, then each conversation and its seq."""
    parts = [UUID(user_id).bytes]
    for conversation_id, seq in positions.items():
        parts += (UUID(conversation_id).bytes, encode_varint(seq))
    return b"".join(parts)


def unpack_base(base_id: bytes, data: bytes, *, user_id: str) -> Base:
    """The inverse of pack_base. Raises MalformedCursor, also when the base is another user's."""
    if data[:ID_LENGTH] != UUID(user_id).bytes:
        raise MalformedCursor("the base is another user's")
    positions: dict[str, int] = {}
    offset = ID_LENGTH
    try:
        while offset < len(data):
            conversation_id = str(UUID(bytes=data[offset : offset + ID_LENGTH]))
            positions[conversation_id], offset = decode_varint(data, offset + ID_LENGTH)
    except ValueError as error:
        raise MalformedCursor(str(error)) from error
    return Base(base_id, positions)


class CursorWriter:
    """The cursor of one stream, moved on event by event.

    A new base is taken up in two steps, because ids may refer to it only once it is stored: `propose_base` gives
    the positions of now, and `adopt_base` is called when they are stored; what moved meanwhile is not forgotten.
    """

    def __init__(self, scope: Scope, positions: Mapping[str, int], *, sealer: Sealer, base: Base | None = None) -> None:
        self._scope = scope
        self._sealer = sealer
        self._positions = dict(positions)
        self._moved: set[str] | None = None
        self._set_base(base)
        known = {} if base is None else base.positions
        for conversation_id, seq in positions.items():
            if known.get(conversation_id) != seq:
                self._note(conversation_id, seq)

    @property
    def base(self) -> Base | None:
        """The base that cursors refer to now, if they need one."""
        return self._base

    @property
    def needs_base(self) -> bool:
        """Whether cursors have grown so much that they should refer to a newer base."""
        if self._base is None:
            return len(self._added) > MAX_WITHOUT_BASE
        return len(self._changed) + len(self._added) > MAX_CHANGES or bool(self._added)

    @property
    def positions(self) -> Mapping[str, int]:
        """Conversation id -> the seq up to which the client has been told."""
        return self._positions

    def move(self, conversation_id: str, seq: int) -> None:
        """The client is told of the conversation up to this seq."""
        self._positions[conversation_id] = seq
        if self._moved is not None:
            self._moved.add(conversation_id)
        self._note(conversation_id, seq)

    def current(self) -> bytes:
        """The cursor as it is now."""
        data = b"".join((self._prefix, encode_varint(len(self._added)), *self._added.values(), *self._changed.values()))
        return base64.urlsafe_b64encode(data + self._sealer.seal(data)).rstrip(b"=")

    def propose_base(self) -> Mapping[str, int]:
        """The positions of now, to be stored as a base. What moves from here on is remembered until it is adopted."""
        self._moved = set()
        return dict(self._positions)

    def adopt_base(self, base: Base) -> None:
        """What was proposed is stored as this base."""
        self._set_base(base)
        for conversation_id in self._moved or ():
            self._note(conversation_id, self._positions[conversation_id])
        self._moved = None

    def _set_base(self, base: Base | None) -> None:
        self._base = base
        self._index = {} if base is None else {each: encode_varint(i) for i, each in enumerate(base.positions)}
        self._prefix = bytes([self._scope]) + (NO_BASE if base is None else base.base_id)
        self._added: dict[str, bytes] = {}
        self._changed: dict[str, bytes] = {}

    def _note(self, conversation_id: str, seq: int) -> None:
        index = self._index.get(conversation_id)
        if index is not None:
            self._changed[conversation_id] = index + encode_varint(seq)
        else:
            self._added[conversation_id] = _id_bytes(conversation_id) + encode_varint(seq)


def _id_bytes(conversation_id: str) -> bytes:
    return bytes.fromhex(conversation_id.replace("-", ""))  # a tenth of what UUID(...).bytes costs
