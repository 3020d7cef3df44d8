"""What a timeline proves, checked against a log that is known in full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_apps.delivery.evidence import is_proof_after, is_proof_before
from stream_apps.log_reader import LogEntry

numbers = st.integers(min_value=0, max_value=12)
limits = st.integers(min_value=1, max_value=12)


def entries(seqs: list[int]) -> list[LogEntry]:
    return [LogEntry(seq, "", "MessageSent", b"") for seq in seqs]


@given(head_seq=numbers, first=st.integers(1, 14), table_head=numbers, after_seq=numbers, limit=limits)
def test_only_the_whole_answer_is_a_proof_after(
    head_seq: int, first: int, table_head: int, after_seq: int, limit: int
) -> None:
    """The timeline holds first..table_head; the conversation is known to have reached head_seq. What came later may
    be shown or not."""
    held = [seq for seq in range(first, table_head + 1) if seq > after_seq][:limit]
    end = max([head_seq, *held])
    truth = list(range(after_seq + 1, end + 1))[:limit]
    is_proof = is_proof_after(entries(held), after_seq=after_seq, limit=limit, head_seq=head_seq)
    assert is_proof == (held == truth)


@given(head_seq=numbers, first=st.integers(1, 14), table_head=numbers, before_seq=st.integers(1, 14), limit=limits)
def test_only_the_whole_answer_is_a_proof_before(
    head_seq: int, first: int, table_head: int, before_seq: int, limit: int
) -> None:
    held = [seq for seq in range(first, table_head + 1) if seq < before_seq][-limit:]
    end = max([min(head_seq, before_seq - 1), *held])
    truth = list(range(1, end + 1))[-limit:]
    is_proof = is_proof_before(entries(held), before_seq=before_seq, limit=limit, head_seq=head_seq)
    assert is_proof == (held == truth)


def test_a_hole_is_no_proof() -> None:
    assert not is_proof_after(entries([3, 5, 6]), after_seq=2, limit=3, head_seq=6)
    assert not is_proof_before(entries([3, 5, 6]), before_seq=7, limit=3, head_seq=6)
