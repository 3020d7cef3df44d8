"""The SQL of the log scanner: questions about many conversations at once."""

from __future__ import annotations

# The conversations after one, in the order of their ids, and how far they are.
READ_CONVERSATIONS = """
    SELECT conversation_id::text, last_seq FROM conversations
    WHERE conversation_id > %(after)s ORDER BY conversation_id LIMIT %(limit)s
"""

COUNT_CONVERSATIONS = "SELECT count(*) FROM conversations"

# What Postgres' clock says.
READ_CLOCK = "SELECT clock_timestamp()"

# The conversations with entries of a time span, latest first, and the first and last of these.
READ_TOUCHED = """
    SELECT conversation_id::text, min(seq), max(seq) FROM conversation_log
    WHERE created_at > %(since)s AND created_at <= %(until)s
    GROUP BY conversation_id ORDER BY max(created_at) DESC
"""

# How far conversations are.
READ_LAST_SEQS = """
    SELECT conversation_id::text, last_seq FROM conversations WHERE conversation_id = ANY (%(ids)s::uuid[])
"""

# Conversations with everyone who is or was in them, one row per participant.
READ_DETAILS = """
    SELECT c.conversation_id::text, c.title, c.last_seq, p.user_id::text, p.joined_seq, p.left_seq, p.role
    FROM conversations c LEFT JOIN participants p USING (conversation_id)
    WHERE c.conversation_id = ANY (%(ids)s::uuid[])
    ORDER BY c.conversation_id, p.joined_seq, p.user_id
"""

READ_RECEIPTS = """
    SELECT conversation_id::text, user_id::text, delivered_seq, read_seq FROM receipts
    WHERE conversation_id = ANY (%(ids)s::uuid[])
"""

# The entries of ranges of seqs (both ends included), in seq order; `place` is the range's place among those asked for.
READ_RANGES = """
    SELECT asked.place, l.seq, l.event_id::text, l.type, l.payload
    FROM unnest(%(ids)s::uuid[], %(first_seqs)s::bigint[], %(last_seqs)s::bigint[])
         WITH ORDINALITY AS asked (conversation_id, first_seq, last_seq, place)
    CROSS JOIN LATERAL (
        SELECT seq, event_id, type, payload FROM conversation_log
        WHERE conversation_id = asked.conversation_id AND seq BETWEEN asked.first_seq AND asked.last_seq
        ORDER BY seq) l
"""

# How far conversations are, how many entries the log has of them, and its first and last; all of one moment.
READ_DENSITY = """
    SELECT c.conversation_id::text, c.last_seq, count(l.seq), COALESCE(min(l.seq), 0), COALESCE(max(l.seq), 0)
    FROM conversations c LEFT JOIN conversation_log l USING (conversation_id)
    WHERE c.conversation_id = ANY (%(ids)s::uuid[]) GROUP BY c.conversation_id
"""

# In which conversations some users are or were.
READ_STAYS = """
    SELECT user_id::text, conversation_id::text, joined_seq, left_seq FROM participants
    WHERE user_id = ANY (%(users)s::uuid[])
"""
