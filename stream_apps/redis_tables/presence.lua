-- Who is online: users hold leases that whoever serves them renews. An end of a lease is noticed by the next call.
--
-- KEYS  the sorted set: user -> when the lease ends (seconds since 1970)
-- ARGV  now, when the leases end, how many ended ones are taken out at the most; then users
-- Answers the users who held no lease until now, and those whose lease has ended.
local key, now, ends, limit = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3]
local came = {}
for u = 4, #ARGV do
    local held = redis.call('ZSCORE', key, ARGV[u])
    if not held or tonumber(held) <= now then
        came[#came + 1] = ARGV[u]
    end
    redis.call('ZADD', key, ends, ARGV[u])
end
local gone = redis.call('ZRANGEBYSCORE', key, '-inf', ARGV[1], 'LIMIT', 0, limit)
if #gone > 0 then
    redis.call('ZREM', key, unpack(gone))
end
return {came, gone}
