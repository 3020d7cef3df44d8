-- Applies events to the tables of any number of conversations, each conversation's in seq order.
--
-- KEYS  per conversation: head, timeline, participants, live channel
-- ARGV  timeline length, epoch for tables that begin here; then per conversation: number of events; then per event:
--       seq, type, event id, payload, effects ('' or JSON: {"title": text, "participants": {user: joined_seq}})
-- Answers, per conversation: events applied, duplicates, and the head's seq before a gap (-1: no gap; -2: a gap, and
-- there is no head at all).
local length, epoch = ARGV[1], ARGV[2]
local answer = {}
local at = 3
for c = 1, #KEYS, 4 do
    local head, timeline, participants, channel = KEYS[c], KEYS[c + 1], KEYS[c + 2], KEYS[c + 3]
    local events = tonumber(ARGV[at])
    local following = at + 1 + events * 5
    local held = redis.call('HGET', head, 'seq')
    local seq = tonumber(held or 0)
    local applied, duplicates, gap = 0, 0, -1
    local last_message
    for e = at + 1, following - 1, 5 do
        local event_seq = tonumber(ARGV[e])
        if event_seq <= seq then
            duplicates = duplicates + 1
        elseif event_seq == seq + 1 then
            if not held and applied == 0 then
                -- What is left of tables whose head was lost would refuse these entries.
                redis.call('DEL', timeline, participants)
            end
            local kind, id, payload, effects = ARGV[e + 1], ARGV[e + 2], ARGV[e + 3], ARGV[e + 4]
            redis.call('XADD', timeline, 'MAXLEN', '~', length, ARGV[e] .. '-0',
                'type', kind, 'id', id, 'data', payload)
            redis.call('PUBLISH', channel, ARGV[e] .. ' ' .. kind .. ' ' .. id .. '\n' .. payload)
            if kind == 'MessageSent' then
                last_message = payload
            end
            if effects ~= '' then
                local changes = cjson.decode(effects)
                if changes.title then
                    redis.call('HSET', head, 'title', changes.title)
                end
                for user, joined in pairs(changes.participants) do
                    redis.call('HSET', participants, user, joined)
                end
            end
            seq = event_seq
            applied = applied + 1
        else
            gap = held and seq or (applied > 0 and seq or -2)
            break
        end
    end
    if applied > 0 then
        if last_message then
            redis.call('HSET', head, 'seq', seq, 'last_message', last_message)
        else
            redis.call('HSET', head, 'seq', seq)
        end
        if not held then
            redis.call('HSET', head, 'epoch', epoch)
        end
    end
    answer[#answer + 1] = applied
    answer[#answer + 1] = duplicates
    answer[#answer + 1] = gap
    at = following
end
return answer
