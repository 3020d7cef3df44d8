-- change_conversations: participants who join and leave, and titles: each a log entry and the change that it tells of.
--
-- Takes what append_entries takes (p_subject_ids: the user who joins or leaves) and answers the same way, one row per
-- entry in the order of the arrays. It makes one change after the other, so that each sees the one before.
-- Outcomes beyond those of append_entries:
--   replayed             also: the user is a participant already (where they joined), or has left already (where)
--   forbidden            only an admin may do this
--   unknown_participant  the user who is to leave was never a participant
--   unknown_user         the user who is to join is not registered
-- When the last admin leaves, the longest-standing participant becomes admin: `successor_id` of ParticipantLeft.
--
-- Locks: the conversations' rows first, in the order of their ids, as append_entries; the audit log's head last.
CREATE FUNCTION change_conversations(
    p_event_ids uuid[], p_conversation_ids uuid[], p_actor_ids uuid[], p_types text[],
    p_subject_ids uuid[], p_tails text[], p_traceparents text[]
) RETURNS TABLE (outcome text, seq bigint, created_at timestamptz)
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    v_type text;
    v_conversation_id uuid;
    v_subject_id uuid;
    v_tail text;
    v_successor_id uuid;
    v_role text;
    v_subject participants;
    v_answer record;
    v_audited jsonb[] := '{}';
BEGIN
    PERFORM FROM conversations
    WHERE conversation_id = ANY (p_conversation_ids)
    ORDER BY conversation_id
    FOR NO KEY UPDATE;

    FOR i IN 1 .. cardinality(p_event_ids) LOOP
        v_type := p_types[i];
        v_conversation_id := p_conversation_ids[i];
        v_subject_id := p_subject_ids[i];
        v_tail := p_tails[i];
        v_successor_id := NULL;
        v_answer := NULL;

        SELECT role INTO v_role FROM participants
        WHERE conversation_id = v_conversation_id AND user_id = p_actor_ids[i] AND left_seq IS NULL;
        SELECT * INTO v_subject FROM participants
        WHERE conversation_id = v_conversation_id AND user_id = v_subject_id;

        IF NOT EXISTS (SELECT FROM conversation_log WHERE event_id = p_event_ids[i]) THEN
            IF v_role IS NULL AND NOT (
                v_type = 'ParticipantLeft' AND v_subject_id = p_actor_ids[i] AND v_subject.left_seq IS NOT NULL
            ) THEN
                SELECT 'not_found' AS outcome, NULL::bigint AS seq, NULL::timestamptz AS created_at INTO v_answer;
            ELSIF v_role <> 'admin' AND NOT (v_type = 'ParticipantLeft' AND v_subject_id = p_actor_ids[i]) THEN
                SELECT 'forbidden' AS outcome, NULL::bigint AS seq, NULL::timestamptz AS created_at INTO v_answer;
            ELSIF v_type = 'ParticipantLeft' AND v_subject.user_id IS NULL THEN
                SELECT 'unknown_participant' AS outcome, NULL::bigint AS seq, NULL::timestamptz AS created_at INTO v_answer;
            ELSIF v_type = 'ParticipantJoined' AND v_subject.user_id IS NOT NULL AND v_subject.left_seq IS NULL
                OR v_type = 'ParticipantLeft' AND v_subject.left_seq IS NOT NULL
            THEN
                SELECT 'replayed' AS outcome, entry.seq, entry.created_at INTO STRICT v_answer
                FROM conversation_log entry
                WHERE entry.conversation_id = v_conversation_id
                  AND entry.seq = coalesce(v_subject.left_seq, v_subject.joined_seq);
            ELSIF v_type = 'ParticipantJoined' AND NOT EXISTS (SELECT FROM users WHERE user_id = v_subject_id) THEN
                SELECT 'unknown_user' AS outcome, NULL::bigint AS seq, NULL::timestamptz AS created_at INTO v_answer;
            ELSIF v_type = 'ParticipantLeft' AND v_subject.role = 'admin' THEN
                SELECT user_id INTO v_successor_id
                FROM participants
                WHERE conversation_id = v_conversation_id AND user_id <> v_subject_id AND left_seq IS NULL
                  AND NOT EXISTS (
                    SELECT FROM participants other
                    WHERE other.conversation_id = v_conversation_id AND other.user_id <> v_subject_id
                      AND other.left_seq IS NULL AND other.role = 'admin')
                ORDER BY joined_seq, user_id
                LIMIT 1;
                IF v_successor_id IS NOT NULL THEN
                    v_tail := left(v_tail, -1) || ',"successor_id":"' || v_successor_id || '"}';
                END IF;
            END IF;
        END IF;

        IF v_answer IS NULL THEN
            SELECT appended.* INTO v_answer FROM append_entries(
                p_event_ids[i:i], p_conversation_ids[i:i], p_actor_ids[i:i], p_types[i:i], p_subject_ids[i:i],
                ARRAY[v_tail], p_traceparents[i:i]) AS appended (outcome, seq, created_at);
            IF v_answer.outcome = 'appended' THEN
                CASE v_type
                    WHEN 'ParticipantJoined' THEN
                        INSERT INTO participants (conversation_id, user_id, role, joined_seq)
                        VALUES (v_conversation_id, v_subject_id, ('{' || v_tail)::jsonb ->> 'role', v_answer.seq)
                        ON CONFLICT (conversation_id, user_id) DO UPDATE
                        SET role = excluded.role, joined_seq = excluded.joined_seq, left_seq = NULL;
                    WHEN 'ParticipantLeft' THEN
                        UPDATE participants SET left_seq = v_answer.seq
                        WHERE conversation_id = v_conversation_id AND user_id = v_subject_id;
                        UPDATE participants SET role = 'admin'
                        WHERE conversation_id = v_conversation_id AND user_id = v_successor_id;
                    WHEN 'TitleChanged' THEN
                        UPDATE conversations SET title = ('{' || v_tail)::jsonb ->> 'title'
                        WHERE conversation_id = v_conversation_id;
                END CASE;
                IF v_type <> 'TitleChanged' THEN
                    v_audited := v_audited || jsonb_build_object(
                        'action', CASE v_type WHEN 'ParticipantJoined' THEN 'participant.joined' ELSE 'participant.left' END,
                        'actor_id', p_actor_ids[i],
                        'detail', jsonb_build_object('conversation_id', v_conversation_id, 'user_id', v_subject_id));
                END IF;
            END IF;
        END IF;
        outcome := v_answer.outcome;
        seq := v_answer.seq;
        created_at := v_answer.created_at;
        RETURN NEXT;
    END LOOP;

    PERFORM record_audit_events(
        array_agg(event ->> 'action' ORDER BY place),
        array_agg(event ->> 'actor_id' ORDER BY place),
        array_agg(event ->> 'detail' ORDER BY place))
    FROM unnest(v_audited) WITH ORDINALITY AS audited (event, place);
END
$function$
