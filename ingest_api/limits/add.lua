-- Adds to shared buckets: KEYS are buckets, ARGV what each is filled by (microseconds of draining, 0 only asks).
-- A bucket is the time at which it will be empty, in microseconds of this server's clock. Returns how long each takes
-- to empty now. Nothing is decided here: each process decides with what this tells it.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local levels = {}
for i, key in ipairs(KEYS) do
    local empty_at = math.max(now, tonumber(redis.call('GET', key) or 0)) + tonumber(ARGV[i])
    local level = empty_at - now
    if level > 0 then
        redis.call('SET', key, string.format('%.0f', empty_at), 'PX', math.ceil(level / 1000))
    end
    levels[i] = level
end
return levels
