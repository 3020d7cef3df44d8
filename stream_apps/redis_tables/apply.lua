-- Applies events to the tables of any number of conversations, each conversation's in seq order.
--
-- KEYS  per conversation: head, timeline, participants, changes, live channel
-- ARGV  timeline length, epoch for tables that begin here; then per conversation: number of events; then per event:
--       seq, type, event id, payload, effects ('' or JSON with any of: "title": text or null,
--       "participants": {user: "joined:left:role"}, "left": user, "successor": user, "message_id": what is changed),
--       origin (`<when Kafka appended it> <traceparent>`; with the time of now it makes the event's passage)
-- Answers, per conversation: events applied, duplicates, and the head's seq before a gap (-1: no gap; -2: a gap, and
-- there is no head at all), or the error that ended it. A conversation's error is no other's: all are gone through, and
-- what was applied before it counts.
local KEYS, ARGV, call = KEYS, ARGV, redis.call -- a global costs a look-up at each use: 6 % of a batch
local length, epoch = ARGV[1], ARGV[2]
local answer = {}
local at = 3
local time = call('TIME')
local now = ' ' .. time[1] .. string.format('%06d', time[2])

local function leave(participants, changes, seq)
    local joined, role = string.match(call('HGET', participants, changes.left) or '', '^(%d+):%d*:(.*)$')
    if joined then
        call('HSET', participants, changes.left, joined .. ':' .. seq .. ':' .. role)
    end
    if changes.successor then
        local since = string.match(call('HGET', participants, changes.successor) or '', '^(%d+:%d*:)')
        if since then
            call('HSET', participants, changes.successor, since .. 'admin')
        end
    end
end

-- Drops what changed messages that the timeline holds no longer; rarely, so that it costs little on average.
local function trim(timeline, changes)
    if call('HLEN', changes) <= 2 * length then
        return
    end
    local first = tonumber(string.match(call('XRANGE', timeline, '-', '+', 'COUNT', 1)[1][1], '^%d+'))
    local held = call('HGETALL', changes)
    for i = 1, #held, 2 do
        if tonumber(string.match(held[i + 1], '^%d+')) < first then
            call('HDEL', changes, held[i])
        end
    end
end

local function change_message(head, changes, message_id, seq, payload, last_message)
    call('HSET', changes, message_id, seq .. ' ' .. payload)
    local readable, last = pcall(cjson.decode, last_message or call('HGET', head, 'last_message') or '')
    if readable and type(last) == 'table' and last.message_id == message_id then
        call('HSET', head, 'last_change', payload)
    end
end

-- How far the conversation at hand is; `held` is its head's seq as it was found.
local held, seq, applied, duplicates, gap, last_message

-- What may be repeated comes first: an event whose entry is in the timeline has had all its effects.
local function append(head, timeline, participants, changes, channel, e)
    local kind, id, payload, effects = ARGV[e + 1], ARGV[e + 2], ARGV[e + 3], ARGV[e + 4]
    local is_change = false
    if not held and applied == 0 then
        -- What is left of tables whose head was lost would refuse these entries.
        call('DEL', timeline, participants, changes)
    end
    if effects ~= '' then
        local effect = cjson.decode(effects)
        if effect.title == cjson.null then
            call('HDEL', head, 'title')
        elseif effect.title then
            call('HSET', head, 'title', effect.title)
        end
        for user, participation in pairs(effect.participants or {}) do
            call('HSET', participants, user, participation)
        end
        if effect.left then
            leave(participants, effect, ARGV[e])
        end
        if effect.message_id then
            change_message(head, changes, effect.message_id, ARGV[e], payload, last_message)
            is_change = true
        end
    end
    local passage = ARGV[e + 5] .. now
    call('XADD', timeline, 'MAXLEN', '~', length, ARGV[e] .. '-0', 'type', kind, 'id', id, 'data', payload,
        'passage', passage)
    call('PUBLISH', channel, ARGV[e] .. ' ' .. kind .. ' ' .. id .. ' ' .. passage .. '\n' .. payload)
    if kind == 'MessageSent' then
        last_message = payload
    elseif is_change then
        trim(timeline, changes)
    end
end

local function apply(c, first, last)
    local head, timeline, participants, changes, channel = KEYS[c], KEYS[c + 1], KEYS[c + 2], KEYS[c + 3], KEYS[c + 4]
    held = call('HGET', head, 'seq')
    seq = tonumber(held or 0)
    for e = first, last, 6 do
        local event_seq = tonumber(ARGV[e])
        if event_seq <= seq then
            duplicates = duplicates + 1
        elseif event_seq == seq + 1 then
            append(head, timeline, participants, changes, channel, e)
            seq = event_seq
            applied = applied + 1
        else
            gap = held and seq or (applied > 0 and seq or -2)
            break
        end
    end
end

local function keep(head)
    if last_message then
        call('HSET', head, 'seq', seq, 'last_message', last_message)
    else
        call('HSET', head, 'seq', seq)
    end
    if not held then
        call('HSET', head, 'epoch', epoch)
    end
end

for c = 1, #KEYS, 5 do
    local following = at + 1 + tonumber(ARGV[at]) * 6
    held, applied, duplicates, gap, last_message = nil, 0, 0, -1, nil
    local is_sound, problem = pcall(apply, c, at + 1, following - 1)
    if applied > 0 then
        keep(KEYS[c])
    end
    if not is_sound then
        gap = type(problem) == 'table' and problem.err or tostring(problem)
    end
    answer[#answer + 1] = applied
    answer[#answer + 1] = duplicates
    answer[#answer + 1] = gap
    at = following
end
return answer
