-- Makes a user's table complete. What it knows that is newer than what Postgres said stays.
--
-- KEYS  the user's table
-- ARGV  per conversation: its id, `<joined_seq>:<left_seq or nothing>`
local function newest(stay)
    local joined, left = string.match(stay, '^(%d+):(%d*)$')
    return math.max(tonumber(joined), tonumber(left) or 0)
end
for c = 1, #ARGV, 2 do
    if newest(redis.call('HGET', KEYS[1], ARGV[c]) or '0:') < newest(ARGV[c + 1]) then
        redis.call('HSET', KEYS[1], ARGV[c], ARGV[c + 1])
    end
end
redis.call('HSET', KEYS[1], 'complete', 1)
