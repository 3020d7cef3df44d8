"""What changing a connector's offsets would do: what is streamed again, what never. Pure.

Connect stores whatever it is given. A position beyond what was read loses what lies between, without a word; one before
what the replication slot has confirmed is refused by Debezium when it starts (`offset.mismatch.strategy=trust_offset`),
since PostgreSQL may have removed that part of the write-ahead log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.model import SourceOffset
from connectors.slots import Slot, format_bytes, format_lsn

_POSITION_KEYS = ("lsn_proc", "lsn_commit", "lsn")


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change of offsets does, in a sentence. `loses`: something is never streamed. `refusal`: why it cannot be
    done at all."""

    sentence: str
    loses: bool = False
    refusal: str | None = None


def position_of(offset: SourceOffset | None) -> int | None:
    """Up to where Debezium has read, in bytes of the write-ahead log; None if the offset does not say."""
    if offset is None or offset.offset is None:
        return None
    values = (offset.offset.get(key) for key in _POSITION_KEYS)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)


def moved_to(current: SourceOffset, position: int) -> SourceOffset:
    """The same partition, read up to this position. (What else an offset says is about the old one.)"""
    return SourceOffset(partition=current.partition, offset=dict.fromkeys(_POSITION_KEYS, position))


def judge_change(
    current: Sequence[SourceOffset], target: Sequence[SourceOffset], slot: Slot | None, *, current_lsn: int | None
) -> Effect:
    """What writing `target` in place of `current` does. `slot` and `current_lsn` are None when PostgreSQL is not
    asked."""
    partitions = [each.partition for each in target]
    known = [each.partition for each in current]
    if len(target) != 1 or (known and partitions != known):
        return Effect("", refusal=f"The offsets must be for the partition {known or 'of the connector'}, and no other.")
    before, after = position_of(current[0]) if current else None, position_of(target[0])
    if after is None:
        return Effect("", refusal='The offset names no position: "lsn", as a whole number.')
    if current_lsn is not None and after > current_lsn:
        return Effect("", refusal=f"{format_lsn(after)} is not written yet: the log ends at {format_lsn(current_lsn)}.")
    if slot is not None and after < slot.confirmed_lsn:
        return Effect(
            "",
            refusal=f"PostgreSQL keeps nothing before {format_lsn(slot.confirmed_lsn)} for the slot {slot.name}: the"
            f" connector would not start at {format_lsn(after)}.",
        )
    return _judge_move(before, after, is_slot_known=slot is not None)


def judge_reset(current: Sequence[SourceOffset], slot: Slot | None) -> Effect:
    """What forgetting the offsets does: Debezium begins where the slot is."""
    before = position_of(current[0]) if current else None
    if before is None:
        return Effect("There is no offset; nothing changes.")
    if slot is None:
        return Effect(
            "The connector begins where its replication slot is. Whether that is where it has read to is unknown: set"
            " CHAT4ALL_DATABASE_HOST to have it looked up."
        )
    return _judge_move(before, slot.confirmed_lsn, is_slot_known=True)


def _judge_move(before: int | None, after: int, *, is_slot_known: bool) -> Effect:
    if before is None:
        return Effect(f"The connector begins at {format_lsn(after)}.")
    span = f"between {format_lsn(min(before, after))} and {format_lsn(max(before, after))}"
    size = format_bytes(abs(after - before))
    if after > before:
        return Effect(f"What was written {span} ({size}) is never streamed: it is lost to consumers.", loses=True)
    if after < before:
        more = "" if is_slot_known else " If PostgreSQL does not keep it any more, the connector will not start."
        return Effect(f"What was written {span} ({size}) is streamed again; consumers drop what they know.{more}")
    return Effect(f"The connector stays at {format_lsn(after)}; nothing changes.")
