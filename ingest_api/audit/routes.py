"""The audit log over HTTP, for clients with the scope `audit:read`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, Json
from sqlalchemy import select

from ingest_api.admission.refusals import ShuttingDown
from ingest_api.database import audit_log, transaction
from ingest_api.errors import DatabaseUnavailable, MalformedRequest, problems
from ingest_api.security.oauth_model import AUDIT_READ
from ingest_api.security.principals import InsufficientScope, RequireScope, Unauthenticated
from ingest_api.state import Chat

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class AuditRecord(BaseModel):
    """One entry of the audit log."""

    position: int = Field(description="1, 2, 3, … without a hole.")
    occurred_at: datetime
    action: str = Field(examples=["login.failed"])
    actor_id: str | None = Field(description="A user's id or a client's, null when nobody is known.")
    detail: Json[Any] = Field(examples=[{"client_id": "chat4all"}])
    entry_hash: str = Field(description="SHA-256 over this entry and the hash before it, in hex.")


class AuditPage(BaseModel):
    """Entries in the order of their positions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "entries": [
                        {
                            "position": 1,
                            "occurred_at": "2026-11-24T08:00:00.000000Z",
                            "action": "login.failed",
                            "actor_id": None,
                            "detail": {"client_id": "chat4all"},
                            "entry_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                        }
                    ],
                    "next_after": None,
                }
            ]
        }
    )

    entries: list[AuditRecord]
    next_after: int | None = Field(description="`after` of the next page; null when this is the last one.")


@router.get(
    "",
    summary="Read the audit log",
    dependencies=[Depends(RequireScope(AUDIT_READ))],
    responses=problems(Unauthenticated, InsufficientScope, MalformedRequest, ShuttingDown, DatabaseUnavailable),
)
async def read_audit_log(
    chat: Chat,
    after: Annotated[int, Query(ge=0, le=2**62, description="Entries behind this position.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="The most entries of a page.")] = 100,
    action: Annotated[str | None, Query(max_length=100, description="Only entries of this action.")] = None,
) -> AuditPage:
    """A page of the audit log, the oldest entries first."""
    statement = select(audit_log).where(audit_log.c.position > after).order_by(audit_log.c.position).limit(limit + 1)
    if action is not None:
        statement = statement.where(audit_log.c.action == action)
    async with transaction(chat.engine) as connection:
        rows = (await connection.execute(statement)).all()
    page = [AuditRecord(**{**row._asdict(), "entry_hash": row.entry_hash.hex()}) for row in rows[:limit]]
    return AuditPage(entries=page, next_after=page[-1].position if len(rows) > limit else None)
