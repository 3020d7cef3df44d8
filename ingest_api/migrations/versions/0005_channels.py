"""Channels: the users' settings, their secrets, how far each target is, and the role that sends over them."""

from __future__ import annotations

from importlib.resources import files

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
-- One row per user and channel. Whatever is set anew gets a new channel_id: what was verified is never another address.
CREATE TABLE channels (
    channel_id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users,
    channel text NOT NULL,
    address text NOT NULL,
    code_hash bytea NOT NULL,
    code_expires_at timestamptz NOT NULL,
    wrong_codes smallint NOT NULL DEFAULT 0,
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    challenged_at timestamptz, -- the channel took the verification code
    verified_at timestamptz,
    failing_since timestamptz, -- no delivery has succeeded since
    last_error text,
    disabled_at timestamptz,
    CONSTRAINT channels_user_id_channel UNIQUE (user_id, channel)
);

-- Signing secrets. The one without an end signs; one that ends signs too until then (rotation).
CREATE TABLE channel_secrets (
    secret_id uuid PRIMARY KEY,
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz
);
CREATE INDEX ix_channel_secrets_channel_id ON channel_secrets (channel_id);

-- Grows with every change of channels; its row is locked until the change commits, so it counts commits.
CREATE TABLE channel_revision (
    id smallint PRIMARY KEY DEFAULT 1 CONSTRAINT channel_revision_id CHECK (id = 1),
    revision bigint NOT NULL
);
INSERT INTO channel_revision (revision) VALUES (0);

-- How far a target is in a conversation: what lies after delivered_seq, up to last_seq, is to be delivered.
CREATE TABLE channel_lines (
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    conversation_id uuid NOT NULL,
    partition smallint NOT NULL, -- of the channel's topic: whose consumer delivers
    first_seq bigint NOT NULL,
    delivered_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    PRIMARY KEY (channel_id, conversation_id)
) WITH (fillfactor = 70);
CREATE INDEX ix_channel_lines_behind ON channel_lines (channel_id, conversation_id) WHERE delivered_seq < last_seq;
CREATE INDEX ix_channel_lines_conversation_id ON channel_lines (conversation_id);
"""

ROLES = """
DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_channels') THEN
        CREATE ROLE chat_channels LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_channel_events') THEN
        CREATE ROLE chat_channel_events NOLOGIN;
    END IF;
END
$roles$;
GRANT USAGE ON SCHEMA public TO chat_channels, chat_channel_events;

-- The API makes secrets and cannot read them again.
GRANT SELECT, INSERT, DELETE ON channels TO chat_api;
GRANT UPDATE (wrong_codes, verified_at) ON channels TO chat_api;
GRANT INSERT, SELECT (channel_id, expires_at), UPDATE (expires_at) ON channel_secrets TO chat_api;
GRANT SELECT, UPDATE ON channel_revision TO chat_api;

-- The channels app is the only one who reads secrets.
GRANT SELECT ON channels, channel_secrets, conversations, participants, conversation_log TO chat_channels;
GRANT SELECT (user_id, username, display_name) ON users TO chat_channels;
GRANT SELECT, INSERT, UPDATE (partition, delivered_seq, last_seq) ON channel_lines TO chat_channels;
GRANT UPDATE (challenged_at, failing_since, last_error) ON channels TO chat_channels;

-- Routing and telling how far deliveries are takes no address, no code and no secret.
GRANT SELECT (channel_id, user_id, channel, verified_at, disabled_at) ON channels TO chat_reader;
GRANT SELECT ON channel_revision, channel_lines TO chat_reader;

-- A channel is disabled by one function, with the rights of a role that nobody can log in as.
GRANT SELECT (channel_id, user_id, channel, verified_at, disabled_at), UPDATE (disabled_at, last_error) ON channels
TO chat_channel_events;
GRANT SELECT, UPDATE ON channel_revision TO chat_channel_events;
GRANT SELECT, INSERT, DELETE ON outbox TO chat_channel_events;
GRANT EXECUTE ON FUNCTION record_audit_events TO chat_channel_events;
REVOKE EXECUTE ON FUNCTION disable_channel FROM PUBLIC;
GRANT EXECUTE ON FUNCTION disable_channel TO chat_channels;
GRANT chat_channel_events TO CURRENT_USER;
GRANT CREATE ON SCHEMA public TO chat_channel_events; -- for the moment of becoming the owner
ALTER FUNCTION disable_channel OWNER TO chat_channel_events;
REVOKE CREATE ON SCHEMA public FROM chat_channel_events;
"""

FUNCTIONS = ("emit_channel_event", "disable_channel")


def upgrade() -> None:
    op.execute(TABLES)
    connection = op.get_bind()
    for name in FUNCTIONS:
        connection.exec_driver_sql((files("ingest_api.migrations") / "sql" / f"{name}.sql").read_text())
    op.execute(ROLES)


def downgrade() -> None:
    op.execute("ALTER FUNCTION disable_channel OWNER TO CURRENT_USER")
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
    op.execute("DROP TABLE channel_lines, channel_secrets, channel_revision, channels")
    op.execute("DROP OWNED BY chat_channels, chat_channel_events")
