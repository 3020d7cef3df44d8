"""Creating a conversation (its row, its participants and its first log entry, in one transaction) and changing it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest_api.causes import EventCause
from ingest_api.conversations.model import (
    CreateConversation,
    CreatedConversation,
    created_entry,
    participants_of,
)
from ingest_api.database import conversations, participants, transaction, users
from ingest_api.fields import new_id
from ingest_api.log_writer import (
    APPEND,
    Appended,
    EventIdTaken,
    UnknownParticipants,
    append_arguments,
    new_entry,
    read_outcome,
)
from ingest_api.state import State


async def create_conversation(
    chat: State, command: CreateConversation, *, actor_id: str, traceparent: str
) -> tuple[CreatedConversation, bool]:
    """The conversation, and whether it was created by an earlier request with the same id and content. Raises
    EventIdTaken (the id is taken by other content), UnknownParticipants, DatabaseUnavailable."""
    conversation_id = str(command.conversation_id) if command.conversation_id else new_id()
    everyone = participants_of(command, actor_id)
    async with transaction(chat.engine) as connection:
        created = await connection.execute(
            upsert(conversations)
            .values(conversation_id=conversation_id, title=command.title, created_by=actor_id)
            .on_conflict_do_nothing()
            .returning(conversations.c.conversation_id)
        )
        if created.one_or_none() is not None:
            await _add_participants(connection, conversation_id, everyone, admin_id=actor_id)
        entry = created_entry(command, conversation_id, actor_id, traceparent)
        row = (await connection.exec_driver_sql(APPEND, append_arguments([entry]))).one()
        appended = read_outcome(*row)
        if not isinstance(appended, Appended):
            # A stranger learns that the id is taken, which an id of the client's own choice has to tell.
            raise EventIdTaken("This conversation_id is taken; choose another one.")
    return (
        CreatedConversation(
            conversation_id=conversation_id,
            seq=appended.seq,
            title=command.title,
            participants=everyone,
            created_at=appended.created_at,
        ),
        appended.is_replay,
    )


async def change_conversation(
    chat: State, cause: EventCause, conversation_id: str, *, type: str, fields: dict[str, Any]
) -> Appended:
    """Where the change stands: a participant who joins or leaves, or another title (`type` and own `fields` of the
    event). Raises what GroupCommit.write_one raises, ConversationNotFound, NotAllowed, EventIdTaken,
    UnknownParticipants, ParticipantNotFound."""
    return await chat.changes.write_one(
        new_entry(
            event_id=cause.event_id,
            type=type,
            conversation_id=conversation_id,
            actor_id=cause.actor_id,
            traceparent=cause.traceparent,
            **fields,
        )
    )


async def _add_participants(
    connection: AsyncConnection, conversation_id: str, user_ids: list[str], *, admin_id: str
) -> None:
    registered = set((await connection.execute(select(users.c.user_id).where(users.c.user_id.in_(user_ids)))).scalars())
    unknown = [user_id for user_id in user_ids if user_id not in registered]
    if unknown:
        raise UnknownParticipants(
            "These participants are not registered: " + ", ".join(unknown) + ".", user_ids=unknown
        )
    await connection.execute(
        insert(participants),
        [
            {
                "conversation_id": conversation_id,
                "user_id": user_id,
                "role": "admin" if user_id == admin_id else "member",
                "joined_seq": 1,
            }
            for user_id in user_ids
        ],
    )
