-- Replaces a conversation's tables by what Postgres holds, under a new epoch; unless they are as far already. Tables that
-- are as far are replaced only while they are those that the caller has seen, told by epoch and seq: whoever has applied
-- an event since, or rebuilt them, keeps what it wrote.
--
-- KEYS  head, timeline, participants, changes, receipts, live channel
-- ARGV  seq, epoch, title ('' for none, else '+' and the title), last message ('' for none), its last change ('' for
--       none), then the numbers of participants, changes and receipts, then the epoch and the seq of the tables that may
--       be replaced although they are as far ('' and '' for none); then per participant: user, its participation; per
--       change: message id, its value; per receipt: user, delivered_seq, read_seq; then per entry of the timeline, in
--       seq order: seq, type, event id, payload
-- Answers 1 if the tables were replaced. The newest entry is published, so that watchers notice what they have missed.
-- Receipts are merged, not replaced: the table may know more than Postgres did when it was read.
local head, timeline, participants, changes, receipts, channel = unpack(KEYS)
local held = redis.call('HMGET', head, 'seq', 'epoch')
if tonumber(held[1] or 0) >= tonumber(ARGV[1]) and not (held[2] == ARGV[9] and held[1] == ARGV[10]) then
    return 0
end
redis.call('DEL', head, timeline, participants, changes)
redis.call('HSET', head, 'seq', ARGV[1], 'epoch', ARGV[2])
if ARGV[3] ~= '' then
    redis.call('HSET', head, 'title', string.sub(ARGV[3], 2))
end
if ARGV[4] ~= '' then
    redis.call('HSET', head, 'last_message', ARGV[4])
end
if ARGV[5] ~= '' then
    redis.call('HSET', head, 'last_change', ARGV[5])
end
local first_change = 11 + tonumber(ARGV[6]) * 2
local first_receipt = first_change + tonumber(ARGV[7]) * 2
local first_entry = first_receipt + tonumber(ARGV[8]) * 3
for p = 11, first_change - 1, 2 do
    redis.call('HSET', participants, ARGV[p], ARGV[p + 1])
end
for c = first_change, first_receipt - 1, 2 do
    redis.call('HSET', changes, ARGV[c], ARGV[c + 1])
end
for r = first_receipt, first_entry - 1, 3 do
    local delivered, read = string.match(redis.call('HGET', receipts, ARGV[r]) or '0:0', '^(%d+):(%d+)$')
    redis.call('HSET', receipts, ARGV[r], string.format('%.0f:%.0f',
        math.max(tonumber(delivered), tonumber(ARGV[r + 1])), math.max(tonumber(read), tonumber(ARGV[r + 2]))))
end
for e = first_entry, #ARGV, 4 do
    redis.call('XADD', timeline, ARGV[e] .. '-0', 'type', ARGV[e + 1], 'id', ARGV[e + 2], 'data', ARGV[e + 3])
end
local last = #ARGV - 3
if last >= first_entry then
    redis.call('PUBLISH', channel, ARGV[last] .. ' ' .. ARGV[last + 1] .. ' ' .. ARGV[last + 2] .. '\n' .. ARGV[last + 3])
end
return 1
