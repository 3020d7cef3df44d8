-- append_entries: writes a batch of log entries, each with the next seq of its conversation, and their outbox rows.
--
-- One call is one round trip, whether it carries one entry or hundreds. All arrays have one element per entry.
--   p_event_ids         the entry's event id; a message's own id. The key of idempotency.
--   p_conversation_ids, p_actor_ids, p_types, p_traceparents (may hold NULL)
--   p_subject_ids       the message that is answered, edited or deleted, the user who joins or leaves, or NULL
--   p_tails             the payload as JSON text, without the opening brace and without seq and created_at, which
--                       are known only here:   "event_id":"…", … }
-- Answers one row per entry, in the order of the arrays: outcome, seq, created_at.
--   appended       stored now
--   replayed       the same actor stored the same content under this id before, or the message that was to be deleted
--                  is deleted: that entry's seq and created_at
--   conflict       the id is taken by other content
--   not_found      there is no such conversation, or the actor is not a participant (callers must not tell which)
--   unknown_reply, unknown_message  the subject is no message of this conversation
--   forbidden      the message to be changed is another one's, and the actor is no admin
--   deleted        the message to be edited is deleted
-- Within one call no entry sees another one: an entry about a message that the same call sends, edits or deletes
-- belongs into the next call. Who may join, leave and change the title is decided by change_conversations.
--
-- Why it is made of several statements: each sees what was committed while the one before it waited for locks.
-- Locks are taken in the order of conversation ids and the audit log's head after them, so callers cannot deadlock;
-- they are held to the end of the
-- transaction, so seq order is commit order is WAL order. The outbox rows are deleted in the same transaction:
-- logical decoding still sees the insert, and the table stays empty.
CREATE FUNCTION append_entries(
    p_event_ids uuid[], p_conversation_ids uuid[], p_actor_ids uuid[], p_types text[],
    p_subject_ids uuid[], p_tails text[], p_traceparents text[]
) RETURNS TABLE (outcome text, seq bigint, created_at timestamptz)
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    v_created_at timestamptz;
    v_prefix text;
    v_appended uuid[];
    v_seqs bigint[];
    v_outbox tid[];
BEGIN
    PERFORM FROM conversations
    WHERE conversation_id = ANY (p_conversation_ids)
    ORDER BY conversation_id
    FOR NO KEY UPDATE;

    v_created_at := clock_timestamp();
    v_prefix := ',"created_at":"' || payload_time(v_created_at) || '",';

    WITH item AS (
        SELECT * FROM unnest(
            p_event_ids, p_conversation_ids, p_actor_ids, p_types, p_subject_ids, p_tails, p_traceparents
        ) WITH ORDINALITY
        AS i (event_id, conversation_id, actor_id, type, subject_id, tail, traceparent, ordinal)
    ), fresh AS (
        SELECT DISTINCT ON (event_id) item.*, conversations.last_seq -- its row is locked, so this is the last one
        FROM item
        JOIN conversations USING (conversation_id)
        JOIN participants USING (conversation_id)
        WHERE participants.user_id = item.actor_id
          AND participants.left_seq IS NULL
          AND NOT EXISTS (SELECT FROM conversation_log known WHERE known.event_id = item.event_id)
          AND (item.subject_id IS NULL OR item.type IN ('ParticipantJoined', 'ParticipantLeft') OR EXISTS (
                SELECT FROM conversation_log subject
                WHERE subject.event_id = item.subject_id
                  AND subject.conversation_id = item.conversation_id
                  AND subject.type = 'MessageSent'
                  AND (item.type = 'MessageSent'
                       OR (subject.actor_id = item.actor_id OR participants.role = 'admin')
                          AND NOT EXISTS (
                            SELECT FROM conversation_log deletion
                            WHERE deletion.message_id = item.subject_id AND deletion.type = 'MessageDeleted'))))
        ORDER BY event_id, ordinal
    ), bumped AS (
        UPDATE conversations
        SET last_seq = last_seq + added.entries
        FROM (SELECT conversation_id, count(*) AS entries FROM fresh GROUP BY conversation_id) added
        WHERE conversations.conversation_id = added.conversation_id
    ), placed AS (
        SELECT numbered.*, '{"seq":' || seq || v_prefix || tail AS payload
        FROM (
            SELECT fresh.*, last_seq + row_number() OVER (PARTITION BY conversation_id ORDER BY ordinal) AS seq
            FROM fresh
        ) AS numbered
    ), logged AS (
        INSERT INTO conversation_log
            (conversation_id, seq, event_id, type, actor_id, payload, created_at, traceparent, message_id)
        SELECT conversation_id, seq, event_id, type, actor_id, payload, v_created_at, traceparent,
               CASE WHEN type IN ('MessageEdited', 'MessageDeleted') THEN subject_id END
        FROM placed
    ), emitted AS (
        INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, seq, traceparent, created_at)
        SELECT event_id, 'conversation', 'conversation:' || conversation_id, type, payload, seq, traceparent,
               v_created_at
        FROM placed
        ORDER BY conversation_id, seq
        RETURNING ctid
    )
    SELECT (SELECT array_agg(event_id ORDER BY ordinal) FROM placed),
           (SELECT array_agg(seq ORDER BY ordinal) FROM placed),
           (SELECT array_agg(ctid) FROM emitted)
    INTO v_appended, v_seqs, v_outbox;

    IF v_outbox IS NOT NULL THEN
        DELETE FROM outbox WHERE ctid = ANY (v_outbox);
    END IF;

    IF p_types && '{ConversationCreated,MessageDeleted}' THEN
        PERFORM record_audit_events(array_agg(action), array_agg(actor_id::text), array_agg(detail::text))
        FROM (
            SELECT DISTINCT ON (event_id) actor_id,
                CASE type WHEN 'MessageDeleted' THEN 'message.deleted' ELSE 'conversation.created' END AS action,
                jsonb_strip_nulls(jsonb_build_object('conversation_id', conversation_id, 'message_id', subject_id))
                AS detail
            FROM unnest(p_event_ids, p_conversation_ids, p_actor_ids, p_types, p_subject_ids)
                 AS item (event_id, conversation_id, actor_id, type, subject_id)
            WHERE event_id = ANY (v_appended) AND type IN ('ConversationCreated', 'MessageDeleted')
        ) AS audited;
    END IF;

    IF cardinality(v_appended) = cardinality(p_event_ids) THEN
        RETURN QUERY SELECT 'appended', placed_seq, v_created_at FROM unnest(v_seqs) AS placed_seq;
        RETURN;
    END IF;

    RETURN QUERY
    SELECT told.outcome,
        CASE WHEN is_same THEN entry.seq WHEN told.outcome = 'replayed' THEN deletion.seq END,
        CASE WHEN is_same THEN entry.created_at WHEN told.outcome = 'replayed' THEN deletion.created_at END
    FROM (
        SELECT compared.*, ordinal = min(ordinal) FILTER (WHERE is_same) OVER (PARTITION BY event_id) AS is_first
        FROM (
            SELECT item.*,
                known.seq IS NOT NULL
                AND known.actor_id = item.actor_id
                AND known.conversation_id = item.conversation_id
                AND (known.payload = '{"seq":' || known.seq || ',"created_at":"' || payload_time(known.created_at)
                                     || '",' || item.tail
                     OR known.payload::jsonb - '{seq,created_at,successor_id}'::text[] = ('{' || item.tail)::jsonb)
                AS is_same
            FROM unnest(p_event_ids, p_conversation_ids, p_actor_ids, p_types, p_subject_ids, p_tails)
                 WITH ORDINALITY AS item (event_id, conversation_id, actor_id, type, subject_id, tail, ordinal)
            LEFT JOIN conversation_log known ON known.event_id = item.event_id
        ) AS compared
    ) AS item
    LEFT JOIN conversation_log entry ON entry.event_id = item.event_id
    LEFT JOIN participants
        ON participants.conversation_id = item.conversation_id
        AND participants.user_id = item.actor_id AND participants.left_seq IS NULL
    LEFT JOIN conversation_log subject
        ON subject.event_id = item.subject_id
        AND subject.conversation_id = item.conversation_id AND subject.type = 'MessageSent'
        AND (subject.event_id = ANY (v_appended)) IS NOT TRUE -- sent by this very call: not seen by its neighbours
    LEFT JOIN conversation_log deletion
        ON deletion.message_id = subject.event_id AND deletion.type = 'MessageDeleted'
    CROSS JOIN LATERAL (SELECT CASE
        WHEN is_first AND item.event_id = ANY (v_appended) THEN 'appended'
        WHEN is_same THEN 'replayed'
        WHEN participants.user_id IS NULL THEN 'not_found'
        WHEN entry.event_id IS NOT NULL THEN 'conflict'
        WHEN item.type = 'MessageSent' THEN 'unknown_reply'
        WHEN subject.event_id IS NULL THEN 'unknown_message'
        WHEN subject.actor_id <> item.actor_id AND participants.role <> 'admin' THEN 'forbidden'
        WHEN item.type = 'MessageDeleted' THEN 'replayed'
        ELSE 'deleted'
    END) AS told (outcome)
    ORDER BY item.ordinal;
END
$function$
