"""What a timeline proves. It keeps the newest entries only and may be behind, so a reader must be able to tell
whether what it answered is all there is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from stream_apps.log_reader import LogEntry


def is_proof_after(entries: Sequence[LogEntry], *, after_seq: int, limit: int, head_seq: int) -> bool:
    """Whether these are the first `limit` entries after a seq, of a conversation that has reached `head_seq`."""
    if not entries:
        return after_seq >= head_seq
    is_whole = len(entries) == limit or entries[-1].seq >= head_seq
    return entries[0].seq == after_seq + 1 and is_whole and _is_dense(entries)


def is_proof_before(entries: Sequence[LogEntry], *, before_seq: int, limit: int, head_seq: int) -> bool:
    """Whether these are the last `limit` entries before a seq, of a conversation that has reached `head_seq`."""
    top = min(before_seq - 1, head_seq)
    if not entries:
        return top < 1
    is_whole = len(entries) == limit or entries[0].seq == 1
    return entries[-1].seq >= top and is_whole and _is_dense(entries)


def _is_dense(entries: Sequence[LogEntry]) -> bool:
    return entries[-1].seq - entries[0].seq == len(entries) - 1
