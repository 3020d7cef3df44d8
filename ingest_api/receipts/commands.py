"""Advancing receipts: those of concurrent requests together (migrations/sql/advance_receipts.sql)."""

from __future__ import annotations

from typing import Any

from ingest_api.errors import ConversationNotFound
from ingest_api.group_commit import GroupCommit, Statement
from ingest_api.receipts.model import HeldReceipt, NewReceipt
from schemas.problems import ProblemError

_ADVANCE = """
    SELECT outcome, delivered_seq, read_seq
    FROM advance_receipts(%s::uuid[], %s::uuid[], %s::bigint[], %s::bigint[], %s::text[])
"""


class SeqBeyondEnd(ProblemError):
    """The conversation has not got that far; `last_seq` says where it is."""

    code, title, status = "seq-beyond-end", "Seq beyond the end", 422


def _arguments(receipts: list[NewReceipt]) -> tuple[list[Any], ...]:
    return (
        [receipt.conversation_id for receipt in receipts],
        [receipt.user_id for receipt in receipts],
        [receipt.delivered_seq for receipt in receipts],
        [receipt.read_seq for receipt in receipts],
        [receipt.traceparent for receipt in receipts],
    )


def _read_row(outcome: str, delivered_seq: int | None, read_seq: int | None) -> HeldReceipt | ProblemError:
    if outcome == "not_found":
        return ConversationNotFound()
    if outcome == "beyond_end":
        return SeqBeyondEnd(f"The conversation's last seq is {delivered_seq}.", last_seq=delivered_seq)
    if outcome != "held" or delivered_seq is None or read_seq is None:
        raise AssertionError(f"advance_receipts answered {outcome!r}")
    return HeldReceipt(delivered_seq=delivered_seq, read_seq=read_seq)


ADVANCE_RECEIPTS: Statement[NewReceipt, HeldReceipt] = Statement(_ADVANCE, _arguments, _read_row)

ReceiptWriter = GroupCommit[NewReceipt, HeldReceipt]
