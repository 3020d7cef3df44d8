"""The SQL of the log reader: every question that the stream side asks Postgres."""

from __future__ import annotations

# The entries after a seq, in seq order.
READ_ENTRIES = """
    SELECT seq, event_id::text, type, payload, traceparent FROM conversation_log
    WHERE conversation_id = %(conversation_id)s AND seq > %(after_seq)s
    ORDER BY seq LIMIT %(limit)s
"""

# The newest entries before a seq, newest first.
READ_ENTRIES_BEFORE = """
    SELECT seq, event_id::text, type, payload, traceparent FROM conversation_log
    WHERE conversation_id = %(conversation_id)s AND seq < %(before_seq)s
    ORDER BY seq DESC LIMIT %(limit)s
"""

# A message's seq and the moments that Postgres knows of, in microseconds since 1970: when it got its seq, and when that
# was committed (NULL if the server keeps no such times, or not that far back).
READ_MOMENTS = """
    SELECT seq, (extract(epoch FROM created_at) * 1000000)::bigint,
        CASE WHEN current_setting('track_commit_timestamp')::boolean
            THEN (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint END,
        traceparent
    FROM conversation_log
    WHERE event_id = %(message_id)s AND conversation_id = %(conversation_id)s AND type = 'MessageSent'
"""

# A conversation with everyone who is or was in it, one row per participant, who came first before who came later.
READ_CONVERSATION = """
    SELECT c.title, c.last_seq, p.user_id::text, p.joined_seq, p.left_seq, p.role
    FROM conversations c
    LEFT JOIN participants p ON p.conversation_id = c.conversation_id
    WHERE c.conversation_id = %(conversation_id)s
    ORDER BY p.joined_seq, p.user_id
"""

# How far the participants have received and read.
READ_RECEIPTS = """
    SELECT user_id::text, delivered_seq, read_seq FROM receipts WHERE conversation_id = %(conversation_id)s
"""

# The entries that tell who was in the conversation, and its title, up to a seq.
READ_STRUCTURE = """
    SELECT seq, event_id::text, type, payload, traceparent FROM conversation_log
    WHERE conversation_id = %(conversation_id)s AND seq <= %(up_to_seq)s
      AND type IN ('ConversationCreated', 'ParticipantJoined', 'ParticipantLeft', 'TitleChanged')
    ORDER BY seq
"""

# What the conversation's latest message is, and the latest change of it.
READ_LAST_MESSAGE = """
    SELECT message.payload, change.payload
    FROM (
        SELECT event_id, seq, payload FROM conversation_log
        WHERE conversation_id = %(conversation_id)s AND type = 'MessageSent'
        ORDER BY seq DESC LIMIT 1) message
    LEFT JOIN LATERAL (
        SELECT c.payload FROM conversation_log c
        WHERE c.conversation_id = %(conversation_id)s AND c.seq > message.seq
          AND c.type IN ('MessageEdited', 'MessageDeleted')
          AND c.payload::json ->> 'message_id' = message.event_id::text
        ORDER BY c.seq DESC LIMIT 1) change ON true
"""

# The latest change of each of some messages, up to a seq. A change is younger than its message.
READ_CHANGES = """
    SELECT DISTINCT ON (message_id) message_id, seq, event_id::text, type, payload, traceparent
    FROM (
        SELECT payload::json ->> 'message_id' AS message_id, seq, event_id, type, payload, traceparent
        FROM conversation_log
        WHERE conversation_id = %(conversation_id)s AND seq > %(after_seq)s AND seq <= %(up_to_seq)s
          AND type IN ('MessageEdited', 'MessageDeleted')) change
    WHERE message_id = ANY (%(message_ids)s)
    ORDER BY message_id, seq DESC
"""

# Which conversations a user is or was in.
READ_USER_CONVERSATIONS = """
    SELECT conversation_id::text, joined_seq, left_seq FROM participants WHERE user_id = %(user_id)s
"""

# A user's stays in conversations, and how far these are.
READ_MEMBERSHIPS = """
    SELECT c.conversation_id::text, p.joined_seq, p.left_seq, c.last_seq
    FROM participants p JOIN conversations c USING (conversation_id)
    WHERE p.conversation_id = ANY (%(conversation_ids)s::uuid[]) AND p.user_id = %(user_id)s
"""

# How far conversations are.
READ_LAST_SEQS = """
    SELECT conversation_id::text, last_seq FROM conversations
    WHERE conversation_id = ANY (%(conversation_ids)s::uuid[])
"""

# What an inbox shows a user of conversations: each as it was when the user left, or as it is.
READ_SUMMARIES = """
    SELECT c.conversation_id::text, view.seq, p.joined_seq, p.left_seq,
           CASE WHEN p.left_seq IS NULL THEN c.title ELSE former.title END,
           message.payload, change.payload, entry.payload, COALESCE(r.read_seq, 0)
    FROM participants p
    JOIN conversations c USING (conversation_id)
    CROSS JOIN LATERAL (SELECT COALESCE(p.left_seq, c.last_seq) AS seq) view
    LEFT JOIN LATERAL (
        SELECT l.payload::json ->> 'title' AS title FROM conversation_log l
        WHERE p.left_seq IS NOT NULL AND l.conversation_id = p.conversation_id AND l.seq <= p.left_seq
          AND l.type IN ('ConversationCreated', 'TitleChanged')
        ORDER BY l.seq DESC LIMIT 1) former ON true
    LEFT JOIN LATERAL (
        SELECT l.event_id, l.seq, l.payload FROM conversation_log l
        WHERE l.conversation_id = p.conversation_id AND l.seq BETWEEN p.joined_seq AND view.seq
          AND l.type = 'MessageSent'
        ORDER BY l.seq DESC LIMIT 1) message ON true
    LEFT JOIN LATERAL (
        SELECT l.payload FROM conversation_log l
        WHERE l.conversation_id = p.conversation_id AND l.seq > message.seq AND l.seq <= view.seq
          AND l.type IN ('MessageEdited', 'MessageDeleted')
          AND l.payload::json ->> 'message_id' = message.event_id::text
        ORDER BY l.seq DESC LIMIT 1) change ON true
    LEFT JOIN conversation_log entry ON entry.conversation_id = p.conversation_id AND entry.seq = view.seq
    LEFT JOIN receipts r ON r.conversation_id = p.conversation_id AND r.user_id = p.user_id
    WHERE p.user_id = %(user_id)s AND p.conversation_id = ANY (%(conversation_ids)s::uuid[])
"""

# How many messages of others there are in ranges of conversations that were not deleted within them.
READ_UNREAD = """
    SELECT asked.conversation_id::text, count(l.seq)
    FROM unnest(%(conversation_ids)s::uuid[], %(first_seqs)s::bigint[], %(last_seqs)s::bigint[])
         AS asked (conversation_id, first_seq, last_seq)
    LEFT JOIN conversation_log l
        ON l.conversation_id = asked.conversation_id AND l.seq BETWEEN asked.first_seq AND asked.last_seq
        AND l.type = 'MessageSent' AND l.actor_id <> %(user_id)s
        AND NOT EXISTS (
            SELECT FROM conversation_log d
            WHERE d.conversation_id = l.conversation_id AND d.seq > l.seq AND d.seq <= asked.last_seq
              AND d.type = 'MessageDeleted' AND d.payload::json ->> 'message_id' = l.event_id::text)
    GROUP BY asked.conversation_id
"""

# When a user came into a conversation and left it.
READ_COMINGS_AND_GOINGS = """
    SELECT seq, type FROM conversation_log
    WHERE conversation_id = %(conversation_id)s
      AND type IN ('ConversationCreated', 'ParticipantJoined', 'ParticipantLeft')
      AND (payload::json ->> 'user_id' = %(user_id)s
           OR type = 'ConversationCreated' AND payload::jsonb -> 'participants' ? %(user_id)s)
    ORDER BY seq
"""

# How often channels were set, verified, removed or disabled.
READ_CHANNEL_REVISION = "SELECT revision FROM channel_revision"

# Who in conversations has a channel in use.
READ_CHANNEL_TARGETS = """
    SELECT p.conversation_id::text, c.channel, c.channel_id::text, p.user_id::text, p.joined_seq, p.left_seq,
           c.verified_at
    FROM participants p JOIN channels c USING (user_id)
    WHERE p.conversation_id = ANY (%(conversation_ids)s::uuid[])
      AND c.verified_at IS NOT NULL AND c.disabled_at IS NULL
"""

# A message with how far each target is that it was to be delivered to.
READ_DELIVERIES = """
    SELECT l.seq, l.actor_id::text, c.user_id::text, c.channel,
           t.delivered_seq >= l.seq, c.disabled_at IS NOT NULL
    FROM conversation_log l
    LEFT JOIN (channel_lines t JOIN channels c USING (channel_id)
               JOIN participants p ON p.conversation_id = t.conversation_id AND p.user_id = c.user_id)
        ON t.conversation_id = l.conversation_id AND l.seq BETWEEN t.first_seq AND t.last_seq
        AND p.joined_seq <= l.seq AND (p.left_seq IS NULL OR p.left_seq >= l.seq)
        AND c.user_id <> l.actor_id
    WHERE l.event_id = %(message_id)s AND l.conversation_id = %(conversation_id)s AND l.type = 'MessageSent'
    ORDER BY c.user_id, c.channel
"""

# The cheapest question that only a working database answers.
PING = "SELECT 1"
