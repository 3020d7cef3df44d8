-- record_audit_events: appends entries to the audit log, each chained to the one before it.
--
-- All arrays have one element per event; actors may be NULL. Answers each one's position, in their order. The head's
-- row stays locked until the transaction ends, so that entries are chained in the order in which they are committed;
-- call this last. It runs with the rights of chat_audit, which may add entries and do nothing else with them; those
-- who call it need not be able to write the tables themselves.
CREATE FUNCTION record_audit_events(p_actions text[], p_actor_ids text[], p_details text[])
RETURNS TABLE ("position" bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $function$
DECLARE
    v_position bigint;
    v_hash bytea;
    v_previous_hash bytea;
    v_now timestamptz;
BEGIN
    IF coalesce(cardinality(p_actions), 0) = 0 THEN
        RETURN;
    END IF;
    SELECT head.position, head.entry_hash INTO STRICT v_position, v_hash FROM audit_head head FOR UPDATE;
    v_now := clock_timestamp();
    FOR i IN 1 .. cardinality(p_actions) LOOP
        v_position := v_position + 1;
        v_previous_hash := v_hash;
        v_hash := audit_entry_hash(
            v_position, v_now, p_actions[i], p_actor_ids[i], p_details[i], v_previous_hash);
        INSERT INTO audit_log (position, occurred_at, action, actor_id, detail, previous_hash, entry_hash)
        VALUES (v_position, v_now, p_actions[i], p_actor_ids[i], p_details[i], v_previous_hash, v_hash);
        position := v_position;
        RETURN NEXT;
    END LOOP;
    UPDATE audit_head SET position = v_position, entry_hash = v_hash;
END
$function$
