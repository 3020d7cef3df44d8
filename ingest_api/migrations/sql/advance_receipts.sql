-- advance_receipts: raises how far participants have received and read, and tells of each advance through the outbox.
--
-- All arrays have one element per receipt; p_delivered_seqs and p_read_seqs may hold NULL (then that number stays).
-- What is read is delivered. Both numbers are maxima: an older one changes nothing and tells nothing.
-- Answers one row per receipt, in the order of the arrays: outcome, and the maxima now held.
--   held        these are the maxima
--   not_found   there is no such conversation, or the user is not a participant (callers must not tell which)
--   beyond_end  a seq is beyond the conversation's last one, which delivered_seq then says; nothing was changed
--
-- Rows are locked in the order of their keys, so callers cannot deadlock.
CREATE FUNCTION advance_receipts(
    p_conversation_ids uuid[], p_user_ids uuid[], p_delivered_seqs bigint[], p_read_seqs bigint[],
    p_traceparents text[]
) RETURNS TABLE (outcome text, delivered_seq bigint, read_seq bigint)
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    v_created_at timestamptz := clock_timestamp();
    v_outcomes text[];
    v_last_seqs bigint[];
    v_outbox tid[];
BEGIN
    WITH item AS (
        SELECT i.*, greatest(delivered_seq, read_seq) AS delivered, last_seq,
            CASE
                WHEN last_seq IS NULL THEN 'not_found'
                WHEN greatest(delivered_seq, read_seq) > last_seq THEN 'beyond_end'
                ELSE 'held'
            END AS outcome
        FROM unnest(p_conversation_ids, p_user_ids, p_delivered_seqs, p_read_seqs, p_traceparents)
             WITH ORDINALITY AS i (conversation_id, user_id, delivered_seq, read_seq, traceparent, ordinal)
        LEFT JOIN (participants JOIN conversations USING (conversation_id))
            ON participants.conversation_id = i.conversation_id
            AND participants.user_id = i.user_id AND participants.left_seq IS NULL
    ), advanced AS (
        INSERT INTO receipts AS held (conversation_id, user_id, delivered_seq, read_seq)
        SELECT conversation_id, user_id, max(delivered), coalesce(max(read_seq), 0)
        FROM item
        WHERE outcome = 'held'
        GROUP BY conversation_id, user_id
        HAVING max(delivered) > 0
        ORDER BY conversation_id, user_id
        ON CONFLICT (conversation_id, user_id) DO UPDATE
        SET delivered_seq = greatest(held.delivered_seq, excluded.delivered_seq),
            read_seq = greatest(held.read_seq, excluded.read_seq)
        WHERE excluded.delivered_seq > held.delivered_seq OR excluded.read_seq > held.read_seq
        RETURNING gen_random_uuid() AS event_id, conversation_id, user_id, delivered_seq, read_seq
    ), emitted AS (
        INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, traceparent, created_at)
        SELECT event_id, 'receipt', 'conversation:' || conversation_id, 'ReceiptAdvanced',
               '{"event_id":"' || event_id || '","type":"ReceiptAdvanced","conversation_id":"' || conversation_id
               || '","user_id":"' || user_id || '","delivered_seq":' || delivered_seq || ',"read_seq":' || read_seq
               || ',"created_at":"' || payload_time(v_created_at) || '"}',
               (SELECT max(traceparent) FROM item
                WHERE item.conversation_id = advanced.conversation_id AND item.user_id = advanced.user_id),
               v_created_at
        FROM advanced
        ORDER BY conversation_id, user_id
        RETURNING ctid
    )
    SELECT (SELECT array_agg(outcome ORDER BY ordinal) FROM item),
           (SELECT array_agg(last_seq ORDER BY ordinal) FROM item),
           (SELECT array_agg(ctid) FROM emitted)
    INTO v_outcomes, v_last_seqs, v_outbox;

    IF v_outbox IS NOT NULL THEN
        DELETE FROM outbox WHERE ctid = ANY (v_outbox);
    END IF;

    RETURN QUERY
    SELECT item.outcome,
        CASE item.outcome
            WHEN 'held' THEN coalesce(receipts.delivered_seq, 0)
            WHEN 'beyond_end' THEN item.last_seq
        END,
        CASE item.outcome WHEN 'held' THEN coalesce(receipts.read_seq, 0) END
    FROM unnest(p_conversation_ids, p_user_ids, v_outcomes, v_last_seqs)
         WITH ORDINALITY AS item (conversation_id, user_id, outcome, last_seq, ordinal)
    LEFT JOIN receipts USING (conversation_id, user_id)
    ORDER BY item.ordinal;
END
$function$
