-- disable_channel: ends deliveries over a channel, and tells so. Answers whether it was in use.
--
-- It runs with the rights of chat_channel_events; those who call it can neither change channels nor write the outbox.
CREATE FUNCTION disable_channel(p_channel_id uuid, p_reason text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $function$
DECLARE
    v_channel record;
BEGIN
    UPDATE channels SET disabled_at = clock_timestamp(), last_error = p_reason
    WHERE channel_id = p_channel_id AND verified_at IS NOT NULL AND disabled_at IS NULL
    RETURNING user_id, channel INTO v_channel;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM emit_channel_event(
        'ChannelDisabled', v_channel.user_id, v_channel.channel, p_channel_id, NULL, p_reason);
    PERFORM record_audit_events(
        ARRAY['channel.disabled'], ARRAY[v_channel.user_id::text],
        ARRAY[jsonb_build_object('channel', v_channel.channel, 'channel_id', p_channel_id, 'reason', p_reason)::text]);
    RETURN true;
END
$function$
