-- emit_channel_event: tells of a change of a user's channel through the outbox; answers the change's revision.
--
-- To be called in the transaction that makes the change, after the change. The revision's row stays locked until that
-- transaction ends, so revisions are in the order of commits: whoever has read one has seen all changes up to it.
CREATE FUNCTION emit_channel_event(
    p_type text, p_user_id uuid, p_channel text, p_channel_id uuid, p_traceparent text, p_reason text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $function$
DECLARE
    v_revision bigint;
    v_event_id uuid := gen_random_uuid();
    v_created_at timestamptz;
    v_outbox tid;
BEGIN
    UPDATE channel_revision SET revision = revision + 1 WHERE id = 1 RETURNING revision INTO STRICT v_revision;
    v_created_at := clock_timestamp();
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, traceparent, created_at)
    VALUES (
        v_event_id, 'user', 'user:' || p_user_id, p_type,
        json_strip_nulls(json_build_object(
            'event_id', v_event_id, 'type', p_type, 'user_id', p_user_id, 'channel', p_channel,
            'channel_id', p_channel_id, 'revision', v_revision, 'reason', p_reason,
            'created_at', payload_time(v_created_at)))::text,
        p_traceparent, v_created_at)
    RETURNING ctid INTO STRICT v_outbox;
    DELETE FROM outbox WHERE ctid = v_outbox;
    RETURN v_revision;
END
$function$
