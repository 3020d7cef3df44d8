"""The roles, each with what it needs and no more. They get their passwords from `ingest_api.migrate`."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

ROLES = """
DO $roles$
BEGIN
    -- Roles belong to the whole cluster, so another database may have made them already.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_api') THEN
        CREATE ROLE chat_api LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_reader') THEN
        CREATE ROLE chat_reader LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_cdc') THEN
        CREATE ROLE chat_cdc LOGIN REPLICATION;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_monitor') THEN
        CREATE ROLE chat_monitor LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_audit') THEN
        CREATE ROLE chat_audit NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_recovery') THEN
        CREATE ROLE chat_recovery LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_slots') THEN
        CREATE ROLE chat_slots NOLOGIN REPLICATION;
    END IF;
END
$roles$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO chat_api, chat_reader, chat_cdc, chat_monitor;

-- The log is append-only: nobody but the owner may change or remove an entry.
GRANT SELECT, INSERT ON users, conversations, participants, conversation_log TO chat_api;
-- Clients are registered by the owner (python -m ingest_api.oauth_clients).
GRANT SELECT ON oauth_clients TO chat_api;
GRANT UPDATE (last_seq, title) ON conversations TO chat_api;
GRANT UPDATE (role, joined_seq, left_seq) ON participants TO chat_api;
GRANT UPDATE (display_name) ON users TO chat_api;
GRANT SELECT, INSERT, UPDATE (delivered_seq, read_seq) ON receipts TO chat_api;
-- A refresh token is used once, a family is revoked once; a family that has expired is removed with its tokens.
GRANT SELECT, INSERT, DELETE ON refresh_token_families TO chat_api;
GRANT UPDATE (revoked_at) ON refresh_token_families TO chat_api;
GRANT SELECT, INSERT ON refresh_tokens TO chat_api;
GRANT UPDATE (used_at) ON refresh_tokens TO chat_api;
GRANT SELECT, INSERT, DELETE ON outbox TO chat_api;

-- Entries of the audit log are added by one function, with the rights of a role that nobody can log in as.
GRANT USAGE ON SCHEMA public TO chat_audit;
GRANT INSERT ON audit_log TO chat_audit;
GRANT SELECT, UPDATE ON audit_head TO chat_audit;
REVOKE EXECUTE ON FUNCTION record_audit_events FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_audit_events TO chat_api;
GRANT SELECT ON audit_log, audit_head TO chat_api;
GRANT chat_audit TO CURRENT_USER;
GRANT CREATE ON SCHEMA public TO chat_audit; -- a function's owner needs it at the moment that it becomes the owner
ALTER FUNCTION record_audit_events OWNER TO chat_audit;
REVOKE CREATE ON SCHEMA public FROM chat_audit;

GRANT SELECT ON conversations, participants, conversation_log, receipts TO chat_reader;
GRANT SELECT (user_id, username, display_name) ON users TO chat_reader;
ALTER ROLE chat_reader SET default_transaction_read_only = on;

-- The connector reads the outbox (through the replication slot) and beats its own heart.
GRANT SELECT ON outbox TO chat_cdc;
GRANT SELECT, INSERT, UPDATE ON cdc_heartbeat TO chat_cdc;

-- `connectors supervise` looks at the heartbeat, and at replication slots, which everybody may see.
GRANT SELECT ON cdc_heartbeat TO chat_monitor;
-- Statistics of others' sessions too: how old the oldest transaction is. (No parameters of their queries are told.)
GRANT pg_read_all_stats TO chat_monitor;
ALTER ROLE chat_monitor SET default_transaction_read_only = on;

-- Whoever brings back what was never streamed reads the log and writes the outbox. A lost slot is made anew by one
-- function, with the rights of a role that nobody can log in as.
GRANT USAGE ON SCHEMA public TO chat_recovery;
GRANT SELECT ON conversations, conversation_log TO chat_recovery;
GRANT SELECT, INSERT, DELETE ON outbox TO chat_recovery;
REVOKE EXECUTE ON FUNCTION renew_outbox_slot FROM PUBLIC;
GRANT EXECUTE ON FUNCTION renew_outbox_slot TO chat_recovery;
GRANT chat_slots TO CURRENT_USER;
GRANT CREATE ON SCHEMA public TO chat_slots;
ALTER FUNCTION renew_outbox_slot OWNER TO chat_slots;
REVOKE CREATE ON SCHEMA public FROM chat_slots;

-- append_entries would be planned anew at every call, at twice its cost (docs/benchmarks.md).
ALTER ROLE chat_api SET plan_cache_mode = force_generic_plan;
ALTER ROLE chat_api SET jit = off;
-- Every query of the API looks up keys. Statistics of a table that has just grown must not turn one into a scan.
ALTER ROLE chat_api SET enable_seqscan = off;
ALTER ROLE chat_api SET enable_hashjoin = off;
ALTER ROLE chat_api SET enable_mergejoin = off;
"""


def upgrade() -> None:
    op.execute(ROLES)


def downgrade() -> None:
    op.execute("ALTER FUNCTION record_audit_events OWNER TO CURRENT_USER")
    op.execute("ALTER FUNCTION renew_outbox_slot OWNER TO CURRENT_USER")
    op.execute("DROP OWNED BY chat_api, chat_reader, chat_cdc, chat_monitor, chat_audit, chat_recovery, chat_slots")
