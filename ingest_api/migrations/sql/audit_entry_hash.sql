-- audit_entry_hash: what chains an entry of the audit log to the one before it.
--
-- SHA-256 over the hash before, then position, time (UTC, ISO 8601 with microseconds), action, actor ('' when nobody
-- is known) and detail, each as a netstring: its length in bytes, a colon, its UTF-8 text, a comma. No two entries have
-- the same encoding. ingest_api/audit/chain.py computes the same, without PostgreSQL.
CREATE FUNCTION audit_entry_hash(
    p_position bigint, p_occurred_at timestamptz, p_action text, p_actor_id text, p_detail text, p_previous_hash bytea
) RETURNS bytea
LANGUAGE sql STABLE
SET search_path = public, pg_temp
AS $function$
    SELECT sha256(p_previous_hash || convert_to(
        string_agg(octet_length(convert_to(part, 'UTF8')) || ':' || part || ',', '' ORDER BY place), 'UTF8'))
    FROM unnest(ARRAY[
        p_position::text,
        to_char(p_occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        p_action,
        coalesce(p_actor_id, ''),
        p_detail
    ]) WITH ORDINALITY AS parts (part, place)
$function$
