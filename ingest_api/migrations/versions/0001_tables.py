"""The tables, and the first-party OAuth client."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE users (
    user_id uuid PRIMARY KEY,
    username text NOT NULL UNIQUE,
    display_name text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE oauth_clients (
    -- Never a UUID: the subject of a token is a user's id or a client's, and must not be mistaken.
    client_id text PRIMARY KEY CONSTRAINT oauth_clients_client_id CHECK (client_id !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-'),
    client_name text NOT NULL,
    client_secret_hash text,
    grant_types text[] NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A login, and what came of it. Every refresh token belongs to one; whoever takes one out holds this row locked.
CREATE TABLE refresh_token_families (
    family_id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users,
    client_id text NOT NULL REFERENCES oauth_clients ON DELETE CASCADE,
    scopes text[] NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ix_refresh_token_families_user_id ON refresh_token_families (user_id);
CREATE INDEX ix_refresh_token_families_client_id ON refresh_token_families (client_id);

CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    family_id uuid NOT NULL REFERENCES refresh_token_families ON DELETE CASCADE,
    used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ix_refresh_tokens_family_id ON refresh_tokens (family_id);

CREATE TABLE conversations (
    conversation_id uuid PRIMARY KEY,
    title text,
    created_by uuid NOT NULL REFERENCES users,
    last_seq bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50); -- last_seq changes with every entry: room for heap-only updates

CREATE TABLE participants (
    conversation_id uuid NOT NULL REFERENCES conversations,
    user_id uuid NOT NULL REFERENCES users,
    role text NOT NULL CONSTRAINT participants_role CHECK (role IN ('member', 'admin')),
    joined_seq bigint NOT NULL,
    left_seq bigint,
    PRIMARY KEY (conversation_id, user_id)
);
CREATE INDEX participants_user_id ON participants (user_id);

-- append_entries holds the conversation's row locked when it inserts, so a foreign key would only cost time.
CREATE TABLE conversation_log (
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    event_id uuid NOT NULL UNIQUE,
    type text NOT NULL,
    actor_id uuid NOT NULL,
    payload text NOT NULL,
    created_at timestamptz NOT NULL,
    traceparent text,
    message_id uuid, -- of an edit or a deletion: the message that it changes
    PRIMARY KEY (conversation_id, seq)
);
-- What changed a conversation besides its messages: read for every page that Redis does not answer.
CREATE INDEX ix_conversation_log_changes ON conversation_log (conversation_id, seq) WHERE type <> 'MessageSent';
-- Which conversations were touched lately: the log grows in time's order, so a range of blocks is a range of time.
CREATE INDEX ix_conversation_log_created_at ON conversation_log USING brin (created_at)
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX ix_conversation_log_message_id ON conversation_log (message_id, seq) WHERE message_id IS NOT NULL;

CREATE TABLE receipts (
    conversation_id uuid NOT NULL REFERENCES conversations,
    user_id uuid NOT NULL REFERENCES users,
    delivered_seq bigint NOT NULL DEFAULT 0,
    read_seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation_id, user_id)
) WITH (fillfactor = 70); -- changed more often than made: room for heap-only updates

-- No key and no index: a row is gone before its transaction ends, found by its place (append_entries).
CREATE TABLE outbox (
    id uuid NOT NULL,
    aggregatetype text NOT NULL,
    aggregateid text NOT NULL,
    type text NOT NULL,
    payload text NOT NULL,
    seq bigint, -- absent: a receipt, which is no log entry
    traceparent text,
    created_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE audit_log (
    position bigint PRIMARY KEY,
    occurred_at timestamptz NOT NULL,
    action text NOT NULL,
    actor_id text CONSTRAINT audit_log_actor_id CHECK (actor_id <> ''), -- a user's id or a client's
    detail text NOT NULL,
    previous_hash bytea NOT NULL,
    entry_hash bytea NOT NULL
);

-- The newest entry of the audit log: one row, locked by whoever appends.
CREATE TABLE audit_head (
    id smallint PRIMARY KEY DEFAULT 1 CONSTRAINT audit_head_id CHECK (id = 1),
    position bigint NOT NULL,
    entry_hash bytea NOT NULL
);
INSERT INTO audit_head (position, entry_hash) VALUES (0, decode(repeat('00', 32), 'hex'));

CREATE TABLE cdc_heartbeat (
    id smallint PRIMARY KEY,
    beat_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

INSERT INTO oauth_clients (client_id, client_name, grant_types, scopes)
VALUES ('chat4all', 'Chat4All''s own clients', '{password,refresh_token}', '{chat}');
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute(
        "DROP TABLE cdc_heartbeat, audit_head, audit_log, outbox, receipts, conversation_log, participants,"
        " conversations, refresh_tokens, refresh_token_families, oauth_clients, users"
    )
