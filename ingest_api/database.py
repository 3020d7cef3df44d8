"""The tables as SQLAlchemy knows them, and the engines. The migrations create what is declared here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg
from psycopg.rows import TupleRow
from sqlalchemy import (
    ARRAY,
    URL,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ingest_api.errors import DatabaseUnavailable
from ingest_api.settings import DatabaseSettings

metadata = MetaData()


def _now() -> Column[datetime]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


users = Table(
    "users",
    metadata,
    Column("user_id", Uuid(as_uuid=False), primary_key=True),
    Column("username", Text, nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    _now(),
)

oauth_clients = Table(
    "oauth_clients",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("client_name", Text, nullable=False),
    Column("client_secret_hash", Text),  # absent: a public client (RFC 6749, section 2.1)
    Column("grant_types", ARRAY(Text), nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _now(),
)

refresh_token_families = Table(
    "refresh_token_families",
    metadata,
    Column("family_id", Uuid(as_uuid=False), primary_key=True),
    Column("user_id", Uuid(as_uuid=False), ForeignKey("users.user_id"), nullable=False, index=True),
    Column("client_id", Text, ForeignKey("oauth_clients.client_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
    _now(),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column(
        "family_id",
        Uuid(as_uuid=False),
        ForeignKey("refresh_token_families.family_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("used_at", DateTime(timezone=True)),
    _now(),
)

conversations = Table(
    "conversations",
    metadata,
    Column("conversation_id", Uuid(as_uuid=False), primary_key=True),
    Column("title", Text),
    Column("created_by", Uuid(as_uuid=False), ForeignKey("users.user_id"), nullable=False),
    Column("last_seq", BigInteger, nullable=False, server_default="0"),
    _now(),
)

participants = Table(
    "participants",
    metadata,
    Column("conversation_id", Uuid(as_uuid=False), ForeignKey("conversations.conversation_id"), primary_key=True),
    Column("user_id", Uuid(as_uuid=False), ForeignKey("users.user_id"), primary_key=True),
    Column("role", Text, CheckConstraint("role IN ('member', 'admin')", name="participants_role"), nullable=False),
    Column("joined_seq", BigInteger, nullable=False),
    Column("left_seq", BigInteger),
    Index("participants_user_id", "user_id"),
)

conversation_log = Table(
    "conversation_log",
    metadata,
    Column("conversation_id", Uuid(as_uuid=False), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("event_id", Uuid(as_uuid=False), nullable=False, unique=True),
    Column("type", Text, nullable=False),
    Column("actor_id", Uuid(as_uuid=False), nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("traceparent", Text),
    Index("ix_conversation_log_changes", "conversation_id", "seq", postgresql_where=text("type <> 'MessageSent'")),
    Column("message_id", Uuid(as_uuid=False)),  # of an edit or a deletion: the message that it changes
    Index("ix_conversation_log_message_id", "message_id", "seq", postgresql_where=text("message_id IS NOT NULL")),
    Index("ix_conversation_log_created_at", "created_at", postgresql_using="brin"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("conversation_id", Uuid(as_uuid=False), ForeignKey("conversations.conversation_id"), primary_key=True),
    Column("user_id", Uuid(as_uuid=False), ForeignKey("users.user_id"), primary_key=True),
    Column("delivered_seq", BigInteger, nullable=False, server_default="0"),
    Column("read_seq", BigInteger, nullable=False, server_default="0"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Uuid(as_uuid=False), nullable=False),
    Column("aggregatetype", Text, nullable=False),
    Column("aggregateid", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("seq", BigInteger),  # absent: a receipt, which is no log entry
    Column("traceparent", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("action", Text, nullable=False),
    Column("actor_id", Text, CheckConstraint("actor_id <> ''", name="audit_log_actor_id")),
    Column("detail", Text, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("entry_hash", LargeBinary, nullable=False),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column(
        "id",
        SmallInteger,
        CheckConstraint("id = 1", name="audit_head_id"),
        primary_key=True,
        autoincrement=False,
        server_default="1",
    ),
    Column("position", BigInteger, nullable=False),
    Column("entry_hash", LargeBinary, nullable=False),
)

channels = Table(
    "channels",
    metadata,
    Column("channel_id", Uuid(as_uuid=False), primary_key=True),
    Column("user_id", Uuid(as_uuid=False), ForeignKey("users.user_id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("code_hash", LargeBinary, nullable=False),
    Column("code_expires_at", DateTime(timezone=True), nullable=False),
    Column("wrong_codes", SmallInteger, nullable=False, server_default="0"),
    Column("set_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("challenged_at", DateTime(timezone=True)),
    Column("verified_at", DateTime(timezone=True)),
    Column("failing_since", DateTime(timezone=True)),
    Column("last_error", Text),
    Column("disabled_at", DateTime(timezone=True)),
    UniqueConstraint("user_id", "channel", name="channels_user_id_channel"),
)

channel_secrets = Table(
    "channel_secrets",
    metadata,
    Column("secret_id", Uuid(as_uuid=False), primary_key=True),
    Column(
        "channel_id",
        Uuid(as_uuid=False),
        ForeignKey("channels.channel_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("secret", LargeBinary, nullable=False),
    _now(),
    Column("expires_at", DateTime(timezone=True)),
)

channel_revision = Table(
    "channel_revision",
    metadata,
    Column(
        "id",
        SmallInteger,
        CheckConstraint("id = 1", name="channel_revision_id"),
        primary_key=True,
        autoincrement=False,
        server_default="1",
    ),
    Column("revision", BigInteger, nullable=False),
)

channel_lines = Table(
    "channel_lines",
    metadata,
    Column("channel_id", Uuid(as_uuid=False), ForeignKey("channels.channel_id", ondelete="CASCADE"), primary_key=True),
    Column("conversation_id", Uuid(as_uuid=False), primary_key=True, index=True),
    Column("partition", SmallInteger, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("delivered_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Index(
        "ix_channel_lines_behind",
        "channel_id",
        "conversation_id",
        postgresql_where=text("delivered_seq < last_seq"),
    ),
)

cdc_heartbeat = Table(
    "cdc_heartbeat",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("beat_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)


def engine_url(settings: DatabaseSettings) -> URL:
    """The database's SQLAlchemy URL, without the password (that goes by `connect_args`, so no repr shows it)."""
    return URL.create(
        "postgresql+psycopg",
        username=settings.database_user,
        host=settings.database_host,
        port=settings.database_port,
        database=settings.database_name,
    )


def create_engine(settings: DatabaseSettings, *, pool_size: int = 5) -> AsyncEngine:
    """The engine for commands and reads off the hot path. Connects when first used."""
    return create_async_engine(
        engine_url(settings),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={
            "password": settings.database_password.get_secret_value(),
            "application_name": "chat4all ingest_api",
            "connect_timeout": 5,
            "options": "-c statement_timeout=5000",
        },
    )


def connector(settings: DatabaseSettings) -> Callable[[], Awaitable[psycopg.AsyncConnection[TupleRow]]]:
    """What opens a connection for someone who keeps it, each statement a transaction of its own."""

    async def connect() -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(**settings.connection_arguments(), autocommit=True)

    return connect


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction: committed when the block ends, rolled back when it raises. Raises DatabaseUnavailable when
    PostgreSQL cannot be reached or goes away; the outcome is then unknown, and a retry under the same id settles it.
    """
    try:
        async with engine.begin() as connection:
            yield connection
    except (OperationalError, DBAPIError, psycopg.OperationalError, TimeoutError) as error:
        if isinstance(error, DBAPIError) and not _is_outage(error):
            raise
        raise DatabaseUnavailable("The database cannot be reached; try again.") from error


def _is_outage(error: DBAPIError) -> bool:
    return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError)
