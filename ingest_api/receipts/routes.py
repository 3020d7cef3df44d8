"""Receipts over HTTP."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request

from ingest_api.command_route import REFUSALS, CommandRoute
from ingest_api.errors import BodyTooLarge, ConversationNotFound, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.group_commit import OutcomeUnknown, WriterSaturated
from ingest_api.receipts.commands import SeqBeyondEnd
from ingest_api.receipts.model import AdvanceReceipt, HeldReceipt, NewReceipt
from ingest_api.security.principals import Caller
from ingest_api.state import Chat
from ingest_api.telemetry import trace_context

router = APIRouter(route_class=CommandRoute, prefix="/v1/conversations/{conversation_id}/receipt", tags=["receipts"])


@router.put(
    "",
    summary="Tell how far you have received and read",
    responses=problems(
        *REFUSALS,
        ConversationNotFound,
        SeqBeyondEnd,
        MalformedRequest,
        BodyTooLarge,
        WriterSaturated,
        DatabaseUnavailable,
        OutcomeUnknown,
    ),
)
async def advance_receipt(
    conversation_id: UUID, command: AdvanceReceipt, caller: Caller, chat: Chat, request: Request
) -> HeldReceipt:
    """Raises the caller's receipt, and answers the maxima that are now held. It may be repeated."""
    return await chat.receipts.write_one(
        NewReceipt(
            conversation_id=str(conversation_id),
            user_id=caller.user_id,
            delivered_seq=command.delivered_seq,
            read_seq=command.read_seq,
            traceparent=trace_context(request.headers.get("traceparent")),
        )
    )
