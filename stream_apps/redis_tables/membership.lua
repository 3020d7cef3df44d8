-- Notes in a user's table that the user joined or left a conversation; only if the table is complete, since one that
-- was lost and holds only what came later would pass for the whole. What is older than what the table says is passed
-- over, so order and repetition do not matter.
--
-- KEYS  the user's table
-- ARGV  conversation id, seq, 'joined' or 'left'
-- Answers 1 if the table now says so, 0 if it is not complete and must be built from Postgres.
if redis.call('HEXISTS', KEYS[1], 'complete') == 0 then
    return 0
end
local joined, left = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '0:', '^(%d+):(%d*)$')
if tonumber(ARGV[2]) <= math.max(tonumber(joined), tonumber(left) or 0) then
    return 1
end
if ARGV[3] == 'joined' then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':')
elseif joined ~= '0' then
    redis.call('HSET', KEYS[1], ARGV[1], joined .. ':' .. ARGV[2])
else
    return 0
end
return 1
