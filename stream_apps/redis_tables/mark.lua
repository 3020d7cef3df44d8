-- Moves the tables' marker on, if it is the one that the caller knows.
--
-- KEYS  the marker
-- ARGV  life, checked_until as the caller last wrote or read it, the new one, the new state ('' to leave it)
-- Answers 'ok', 'lost' (there is no marker, or another Redis' one), 'rewound' (it says less than the caller knows), or
-- 'ahead' (somebody else has moved it on; it is left as it is).
local held = redis.call('HMGET', KEYS[1], 'life', 'checked_until')
if held[1] ~= ARGV[1] then
    return 'lost'
end
local until_now = tonumber(held[2])
if until_now < tonumber(ARGV[2]) then
    return 'rewound'
end
if ARGV[4] ~= '' then
    redis.call('HSET', KEYS[1], 'state', ARGV[4])
end
if until_now > tonumber(ARGV[3]) then
    return 'ahead'
end
redis.call('HSET', KEYS[1], 'checked_until', ARGV[3])
return 'ok'
