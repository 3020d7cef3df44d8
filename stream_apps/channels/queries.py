"""The SQL of the channels app."""

from __future__ import annotations

# Notes what is to be delivered. A line begins with its first request; a request that comes again changes nothing.
NOTE_REQUESTS = """
    INSERT INTO channel_lines AS line (channel_id, conversation_id, partition, first_seq, delivered_seq, last_seq)
    SELECT channel_id, conversation_id, partition, first_seq, first_seq - 1, last_seq
    FROM unnest(%(channel_id)s::uuid[], %(conversation_id)s::uuid[], %(partition)s::smallint[],
                %(first_seq)s::bigint[], %(last_seq)s::bigint[])
         AS request (channel_id, conversation_id, partition, first_seq, last_seq)
    JOIN channels USING (channel_id)
    WHERE disabled_at IS NULL
    ORDER BY channel_id, conversation_id
    ON CONFLICT (channel_id, conversation_id) DO UPDATE
    SET last_seq = greatest(line.last_seq, excluded.last_seq), partition = excluded.partition
    RETURNING channel_id::text
"""

# The channels that have something to deliver in some partitions.
FIND_CHANNELS_BEHIND = """
    SELECT channel_id::text FROM channels
    WHERE channel = %(channel)s AND verified_at IS NOT NULL AND disabled_at IS NULL
      AND EXISTS (SELECT FROM channel_lines line
                  WHERE line.channel_id = channels.channel_id AND line.delivered_seq < line.last_seq
                    AND line.partition = ANY (%(partitions)s::smallint[]))
"""

# The lines of a channel that are behind, after a conversation's id.
FIND_LINES_BEHIND = """
    SELECT channel_id::text, conversation_id::text, delivered_seq, last_seq FROM channel_lines
    WHERE channel_id = %(channel_id)s AND delivered_seq < last_seq
      AND conversation_id > %(after)s AND partition = ANY (%(partitions)s::smallint[])
    ORDER BY conversation_id LIMIT %(limit)s
"""

# A channel in use, or one that a verification code is to be sent over; the secrets that sign, the newest first.
FIND_TARGET = """
    SELECT channel_id::text, user_id::text, channel, address, failing_since IS NOT NULL,
           (SELECT array_agg(secret ORDER BY expires_at DESC NULLS FIRST) FROM channel_secrets secret
            WHERE secret.channel_id = channels.channel_id AND (expires_at IS NULL OR expires_at > clock_timestamp()))
    FROM channels
    WHERE channel_id = %(channel_id)s AND disabled_at IS NULL
      AND CASE WHEN %(is_verified)s THEN verified_at IS NOT NULL ELSE verified_at IS NULL AND challenged_at IS NULL END
"""

# The channels whose verification code is on its way.
FIND_CHALLENGES = """
    SELECT channel_id::text FROM channels
    WHERE challenged_at IS NULL AND verified_at IS NULL AND set_at > clock_timestamp() - interval '1 hour'
"""

# The first messages of a line, by others than its user, with their latest change; and the user's latest stay.
READ_MESSAGES = """
    SELECT p.joined_seq, p.left_seq, c.title, l.seq, l.event_id::text, l.actor_id::text, u.display_name, l.payload,
           l.traceparent, change.type, change.payload
    FROM conversation_log l
    JOIN conversations c USING (conversation_id)
    JOIN participants p ON p.conversation_id = l.conversation_id AND p.user_id = %(user_id)s
    LEFT JOIN users u ON u.user_id = l.actor_id
    LEFT JOIN LATERAL (
        SELECT type, payload FROM conversation_log
        WHERE message_id = l.event_id
        ORDER BY seq DESC LIMIT 1) change ON true
    WHERE l.conversation_id = %(conversation_id)s AND l.seq > %(delivered_seq)s AND l.seq <= %(last_seq)s
      AND l.type = 'MessageSent' AND l.actor_id <> %(user_id)s
    ORDER BY l.seq LIMIT %(limit)s
"""

# Lines are delivered up to a seq.
ADVANCE = """
    UPDATE channel_lines line SET delivered_seq = done.delivered_seq
    FROM unnest(%(channel_ids)s::uuid[], %(conversation_ids)s::uuid[], %(delivered_seqs)s::bigint[])
         AS done (channel_id, conversation_id, delivered_seq)
    WHERE line.channel_id = done.channel_id AND line.conversation_id = done.conversation_id
      AND line.delivered_seq < done.delivered_seq
"""

# A try failed; the seconds since the first one that did.
MARK_FAILING = """
    UPDATE channels SET failing_since = coalesce(failing_since, clock_timestamp()), last_error = %(reason)s
    WHERE channel_id = %(channel_id)s AND disabled_at IS NULL
    RETURNING extract(epoch FROM clock_timestamp() - failing_since)
"""

# A try succeeded.
MARK_HEALTHY = """
    UPDATE channels SET failing_since = NULL, last_error = NULL
    WHERE channel_id = %(channel_id)s AND failing_since IS NOT NULL AND disabled_at IS NULL
"""

# The target took its verification code.
MARK_CHALLENGED = """
    UPDATE channels SET challenged_at = clock_timestamp(), failing_since = NULL, last_error = NULL
    WHERE channel_id = %(channel_id)s
"""

# Nothing is delivered over the channel any more.
DISABLE = "SELECT disable_channel(%(channel_id)s, %(reason)s)"
