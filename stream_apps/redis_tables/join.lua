-- Notes in a user's table that the user joined a conversation; only if the table is complete, since one that was lost
-- and holds only what came later would pass for the whole.
--
-- KEYS  the user's table
-- ARGV  conversation id, joined_seq
-- Answers 1 if the table now says so, 0 if it is not complete and must be built from Postgres.
if redis.call('HEXISTS', KEYS[1], 'complete') == 0 then
    return 0
end
if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0) < tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
