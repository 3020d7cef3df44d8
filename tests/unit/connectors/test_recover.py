"""What was never streamed, told from what Kafka holds and where conversations end."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from connectors.recover.adopt import OutboxState, judge
from connectors.recover.model import Arrivals, End, Heard, Pace, Stretch, batches, find_missing
from connectors.recover.topic import CLOCK_MARGIN, _since
from connectors.slots import Slot
from schemas.outboxes import Outbox, find_outbox

A, B, C = "a", "b", "c"


def heard_of(*pairs: tuple[str, int]) -> Heard:
    heard = Heard()
    for pair in pairs:
        heard.add(*pair)
    return heard


def seqs_of(stretches: list[Stretch]) -> list[tuple[str, int]]:
    return [(each[0], seq) for each in stretches for seq in range(each.first_seq, each.last_seq + 1)]


@given(
    heard=st.lists(st.integers(1, 40), max_size=60),
    last_seq=st.integers(1, 40),
)
def test_what_is_missing_and_what_was_heard_make_up_the_conversation(heard: list[int], last_seq: int) -> None:
    missing = seqs_of(list(heard_of(*((A, seq) for seq in heard)).holes(A, last_seq)))

    assert [seq for _, seq in missing] == [seq for seq in range(1, last_seq + 1) if seq not in heard]


def test_records_that_came_twice_or_late_are_heard_all_the_same() -> None:
    heard = heard_of((A, 1), (A, 2), (A, 5), (A, 6), (A, 1), (A, 2), (A, 3), (A, 4))

    assert list(heard.holes(A, 6)) == []
    assert list(heard.holes(A, 7)) == [Stretch(A, 7, 7)]


def test_a_hole_between_records_and_one_after_them_are_missing() -> None:
    heard = heard_of((A, 1), (A, 2), (A, 5))

    missing = list(find_missing(heard, [End(A, 8, is_recent=True)], find_first=None))

    assert missing == [Stretch(A, 3, 4), Stretch(A, 6, 8)]


def test_what_is_older_than_what_kafka_keeps_is_not_missing() -> None:
    asked: list[Stretch] = []

    def find_first(stretch: Stretch) -> int | None:
        asked.append(stretch)
        return None

    ends = [End(A, 120, is_recent=True), End(B, 50, is_recent=False)]

    assert list(find_missing(heard_of(*((A, seq) for seq in range(101, 121))), ends, find_first)) == []
    assert asked == [Stretch(A, 1, 100)]


def test_what_was_written_before_the_first_record_and_since_kafka_keeps_everything_is_missing() -> None:
    ends = [End(A, 120, is_recent=True), End(C, 9, is_recent=True)]
    first = {A: 91, C: 4}

    missing = list(find_missing(heard_of((A, 101)), ends, lambda stretch: first[stretch.conversation_id]))

    assert missing == [Stretch(A, 91, 100), Stretch(A, 102, 120), Stretch(C, 4, 9)]


def test_a_conversation_that_kafka_has_never_heard_of_is_missing_whole() -> None:
    assert list(find_missing(Heard(), [End(A, 3, is_recent=True)], find_first=None)) == [Stretch(A, 1, 3)]


@given(
    lengths=st.lists(st.integers(1, 30), max_size=12),
    size=st.integers(1, 17),
)
def test_batches_hold_the_same_entries_in_the_same_order(lengths: list[int], size: int) -> None:
    stretches = [Stretch(str(number), 3, 2 + length) for number, length in enumerate(lengths)]

    cut = list(batches(stretches, size))

    assert [pair for batch in cut for pair in seqs_of(batch)] == seqs_of(stretches)
    assert all(sum(stretch.entries for stretch in batch) <= size for batch in cut)
    assert all(sum(stretch.entries for stretch in batch) == size for batch in cut[:-1])


def test_no_more_is_brought_back_in_a_second_than_was_asked_for() -> None:
    pace = Pace(per_second=100, started=1000.0)

    assert pace.wait_seconds(50, now=1000.25) == 0.25
    assert pace.wait_seconds(50, now=1002.0) == 0.0


def test_arrivals_are_complete_when_all_has_come_in_order() -> None:
    arrivals = Arrivals([Stretch(A, 2, 3), Stretch(B, 1, 1), Stretch(A, 7, 7)])

    for pair in [(A, 2), (C, 1), (A, 2), (B, 1), (A, 3)]:
        arrivals.take(*pair)
    assert (arrivals.arrived, arrivals.is_complete) == (3, False)

    arrivals.take(A, 7)
    assert (arrivals.arrived, arrivals.awaited, arrivals.is_complete) == (4, 4, True)


def test_an_entry_that_arrives_before_its_turn_is_awaited_still() -> None:
    arrivals = Arrivals([Stretch(A, 2, 3)])

    arrivals.take(A, 3)
    assert arrivals.arrived == 0
    arrivals.take(A, 2)
    assert not arrivals.is_complete


def slot(*, status: str = "reserved", confirmed: int = 100, is_active: bool = True) -> Slot:
    return Slot("chat4all_outbox", is_active, status, confirmed, 0, 0)


def test_only_a_slot_that_cannot_go_on_is_adopted() -> None:
    outbox = Outbox(0)

    assert judge(OutboxState(outbox, slot(), committed_lsn=90)) is None
    assert judge(OutboxState(outbox, slot(is_active=False), committed_lsn=100)) is None
    assert judge(OutboxState(outbox, slot(is_active=False), committed_lsn=None)) is None
    assert judge(OutboxState(outbox, None, committed_lsn=90)) == "is missing"
    assert "is lost" in (judge(OutboxState(outbox, slot(status="lost"), committed_lsn=90)) or "")
    assert "is younger" in (judge(OutboxState(outbox, slot(is_active=False), committed_lsn=90)) or "")


def test_a_topic_that_has_removed_nothing_proves_everything() -> None:
    assert _since([], has_lost_all=False) is None


def test_the_partition_that_has_removed_most_says_since_when_kafka_keeps_everything() -> None:
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)

    assert _since([0, int(noon.timestamp() * 1000)], has_lost_all=False) == noon + CLOCK_MARGIN


def test_the_first_outbox_has_the_plain_names_and_the_others_count() -> None:
    assert (Outbox(0).slot, Outbox(0).connector) == ("chat4all_outbox", "chat4all-outbox")
    assert (Outbox(3).slot, Outbox(3).connector) == ("chat4all_outbox_3", "chat4all-outbox-3")
    assert [find_outbox(Outbox(number).slot) for number in (0, 1, 12)] == [Outbox(0), Outbox(1), Outbox(12)]
    assert find_outbox("chat4all_outbox_0") is find_outbox("another") is None
