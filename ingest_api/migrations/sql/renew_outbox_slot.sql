-- renew_outbox_slot: makes the replication slot of an outbox where it is missing, or anew where it is lost.
--
-- A slot that can still be read is left alone. Answers what was done: kept, created or replaced. Runs with the rights of
-- a role that nobody can log in as, so that whoever recovers needs no right to replicate. What was written while there
-- was no slot is not streamed by the new one (python -m connectors recover brings it back).
CREATE FUNCTION renew_outbox_slot(p_slot name) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    v_status text;
    v_is_there boolean;
BEGIN
    IF p_slot !~ '^chat4all_outbox(_[0-9]+)?$' OR NOT EXISTS (SELECT FROM pg_publication WHERE pubname = p_slot) THEN
        RAISE EXCEPTION USING MESSAGE = 'there is no outbox named ' || p_slot, ERRCODE = 'undefined_object';
    END IF;
    SELECT wal_status INTO v_status FROM pg_replication_slots WHERE slot_name = p_slot;
    v_is_there := FOUND;
    IF v_is_there AND v_status <> 'lost' THEN
        RETURN 'kept';
    END IF;
    IF v_is_there THEN
        PERFORM pg_drop_replication_slot(p_slot);
    END IF;
    PERFORM pg_create_logical_replication_slot(
        p_slot, 'pgoutput', temporary => false, twophase => false, failover => true);
    RETURN CASE WHEN v_is_there THEN 'replaced' ELSE 'created' END;
END
$function$
