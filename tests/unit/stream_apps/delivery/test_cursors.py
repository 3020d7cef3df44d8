"""Cursors: what comes back from one is what the client had been told, whatever happened in between."""

from __future__ import annotations

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.delivery.live.bases import new_base
from stream_apps.delivery.live.cursors import (
    MAX_CHANGES,
    MAX_WITHOUT_BASE,
    Base,
    CursorWriter,
    MalformedCursor,
    Scope,
    Sealer,
    decode_cursor,
    pack_base,
    resolve,
    unpack_base,
)
from stream_apps.delivery.live.varints import MalformedVarint, decode_varint, encode_varint

USER_ID = str(uuid.uuid4())
SEALER = Sealer("a secret", USER_ID)
ids = st.uuids().map(str)
seqs = st.integers(min_value=0, max_value=2**62)
positions = st.dictionaries(ids, seqs, max_size=40)


def read(cursor: bytes, stored: dict[bytes, Base]) -> dict[str, int]:
    decoded = decode_cursor(cursor.decode(), SEALER)
    return resolve(decoded, stored.get(decoded.base_id))


@given(st.integers(min_value=0, max_value=2**63 - 1), st.binary(max_size=3))
def test_a_number_survives_encoding(number: int, before: bytes) -> None:
    encoded = before + encode_varint(number)
    assert decode_varint(encoded, len(before)) == (number, len(encoded))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 20])
def test_a_number_that_does_not_end_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedVarint):
        decode_varint(data, 0)


@given(positions)
def test_a_base_survives_storing(stored: dict[str, int]) -> None:
    base = new_base(stored)
    read_back = unpack_base(base.base_id, pack_base(USER_ID, stored), user_id=USER_ID)
    assert read_back == base
    assert list(read_back.positions) == list(stored)


def test_a_base_of_another_user_is_refused() -> None:
    with pytest.raises(MalformedCursor):
        unpack_base(b"x" * 16, pack_base(str(uuid.uuid4()), {}), user_id=USER_ID)


@given(positions, st.binary(min_size=1, max_size=17))
def test_a_base_that_was_cut_short_is_refused(stored: dict[str, int], rest: bytes) -> None:
    data = pack_base(USER_ID, stored) + rest[:16]
    if len(rest) <= 16:
        with pytest.raises(MalformedCursor):
            unpack_base(b"x" * 16, data, user_id=USER_ID)


@given(positions, st.booleans(), st.data())
def test_a_cursor_says_what_was_told(start: dict[str, int], has_base: bool, data: st.DataObject) -> None:
    """Events, joins and new bases in any order: after each step, the cursor stands for exactly what was told."""
    base = new_base(start) if has_base else None
    stored = {} if base is None else {base.base_id: base}
    writer = CursorWriter(Scope.EVERY_CONVERSATION, start, sealer=SEALER, base=base)
    told = dict(start)
    proposed: Base | None = None
    assert read(writer.current(), stored) == told
    for _ in range(data.draw(st.integers(max_value=30, min_value=0))):
        step = data.draw(st.sampled_from(["move", "join", "propose", "adopt"]))
        if step == "move" and told:
            conversation_id = data.draw(st.sampled_from(sorted(told)))
            told[conversation_id] += 1
            writer.move(conversation_id, told[conversation_id])
        elif step == "join":
            conversation_id = data.draw(ids)
            told[conversation_id] = data.draw(seqs)
            writer.move(conversation_id, told[conversation_id])
        elif step == "propose":
            proposed = new_base(writer.propose_base())
        elif step == "adopt" and proposed is not None:
            stored[proposed.base_id] = proposed
            writer.adopt_base(proposed)
            proposed = None
        assert read(writer.current(), stored) == told


@given(positions, st.data())
def test_a_resumed_writer_goes_on_where_the_cursor_was(start: dict[str, int], data: st.DataObject) -> None:
    base = new_base(start)
    now = {each: seq + data.draw(st.integers(0, 3)) for each, seq in start.items()}
    writer = CursorWriter(Scope.EVERY_CONVERSATION, now, sealer=SEALER, base=base)
    assert read(writer.current(), {base.base_id: base}) == now


def test_a_cursor_stays_small_and_asks_for_a_base_before_it_grows() -> None:
    start = {str(uuid.uuid4()): 10**6 for _ in range(10_000)}
    writer = CursorWriter(Scope.EVERY_CONVERSATION, start, sealer=SEALER, base=new_base(start))
    changes = 0
    for conversation_id in list(start)[:100]:
        writer.move(conversation_id, 10**6 + 1)
        assert len(writer.current()) < 200
        changes += 1
        assert writer.needs_base == (changes > MAX_CHANGES)
        if writer.needs_base:
            writer.adopt_base(new_base(writer.propose_base()))
            changes = 0


def test_a_few_conversations_need_no_base() -> None:
    writer = CursorWriter(Scope.EVERY_CONVERSATION, {}, sealer=SEALER)
    for number in range(MAX_WITHOUT_BASE + 1):
        assert not writer.needs_base
        writer.move(str(uuid.uuid4()), number)
    assert writer.needs_base


@given(st.text(max_size=60))
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(MalformedCursor):
        decode_cursor(text, SEALER)


@given(positions, st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_changed_cursor_is_refused(start: dict[str, int], place: int, change: int) -> None:
    cursor = CursorWriter(Scope.EVERY_CONVERSATION, start, sealer=SEALER).current()
    data = bytearray(base64.urlsafe_b64decode(cursor + b"=" * (-len(cursor) % 4)))
    data[place % len(data)] ^= change
    with pytest.raises(MalformedCursor):
        decode_cursor(base64.urlsafe_b64encode(bytes(data)).decode().rstrip("="), SEALER)


@pytest.mark.parametrize("sealer", [Sealer("a secret", str(uuid.uuid4())), Sealer("another secret", USER_ID)])
def test_a_cursor_of_another_user_or_system_is_refused(sealer: Sealer) -> None:
    cursor = CursorWriter(Scope.EVERY_CONVERSATION, {}, sealer=sealer).current().decode()
    with pytest.raises(MalformedCursor):
        decode_cursor(cursor, SEALER)


@pytest.mark.parametrize("text", ["", "A", "nonsense", "AQ", "_" * 40, "AQ" + "A" * 200, "é"])
def test_these_are_no_cursors(text: str) -> None:
    with pytest.raises(MalformedCursor):
        resolve(decode_cursor(text, SEALER), None)
