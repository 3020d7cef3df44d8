-- Replaces a conversation's tables by what Postgres holds, under a new epoch; unless they are as far already.
--
-- KEYS  head, timeline, participants, live channel
-- ARGV  seq, epoch, title ('' for none), last message ('' for none), number of participants, then per participant:
--       user, joined_seq; then per entry of the timeline, in seq order: seq, type, event id, payload
-- Answers 1 if the tables were replaced. The newest entry is published, so that watchers notice what they have missed.
local head, timeline, participants, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if tonumber(redis.call('HGET', head, 'seq') or 0) >= tonumber(ARGV[1]) then
    return 0
end
redis.call('DEL', head, timeline, participants)
redis.call('HSET', head, 'seq', ARGV[1], 'epoch', ARGV[2])
if ARGV[3] ~= '' then
    redis.call('HSET', head, 'title', ARGV[3])
end
if ARGV[4] ~= '' then
    redis.call('HSET', head, 'last_message', ARGV[4])
end
local first_entry = 6 + tonumber(ARGV[5]) * 2
for p = 6, first_entry - 1, 2 do
    redis.call('HSET', participants, ARGV[p], ARGV[p + 1])
end
for e = first_entry, #ARGV, 4 do
    redis.call('XADD', timeline, ARGV[e] .. '-0', 'type', ARGV[e + 1], 'id', ARGV[e + 2], 'data', ARGV[e + 3])
end
local last = #ARGV - 3
if last >= first_entry then
    redis.call('PUBLISH', channel, ARGV[last] .. ' ' .. ARGV[last + 1] .. ' ' .. ARGV[last + 2] .. '\n' .. ARGV[last + 3])
end
return 1
