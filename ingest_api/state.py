"""What the running API holds: made once by app.py, reached by routes through `request.app.state.chat`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest_api.admission.gate import Gate
from ingest_api.audit.trail import AuditTrail
from ingest_api.group_commit import GroupCommit
from ingest_api.log_writer import Appended, LogWriter, NewEntry
from ingest_api.receipts.commands import ReceiptWriter
from ingest_api.security.authenticator import Authenticator
from ingest_api.security.authorization_server import AuthorizationServer
from ingest_api.security.passwords import Passwords
from schemas.key_files import KeyFile
from schemas.tokens import TokenVerifier


@dataclass(frozen=True, slots=True)
class State:
    """The running API's parts."""

    engine: AsyncEngine
    writer: LogWriter
    changes: GroupCommit[NewEntry, Appended]
    receipts: ReceiptWriter
    passwords: Passwords
    authorization_server: AuthorizationServer
    verifier: TokenVerifier
    authenticator: Authenticator
    keys: KeyFile
    registry: CollectorRegistry
    issuer: str
    gate: Gate
    audit: AuditTrail
    webhook_allow_http: bool


async def get_state(request: Request) -> State:
    """The running API's parts, for a route."""
    state: State = request.app.state.chat
    return state


Chat = Annotated[State, Depends(get_state)]
