-- Counts a user's unread messages: those of others, in a range of a timeline, that were not deleted since. It costs
-- what there is to count; no payload leaves Redis. (Reads only.)
--
-- KEYS  timeline
-- ARGV  first seq, last seq, user
-- Answers how many entries there are in the range (all of them, or the count proves nothing), and the unread messages.
local entries = redis.call('XRANGE', KEYS[1], ARGV[1] .. '-0', ARGV[2] .. '-0')
local mine = '"actor_id":"' .. ARGV[3] .. '"'
local unread, count = {}, 0
for _, entry in ipairs(entries) do
    local kind, id, payload = entry[2][2], entry[2][4], entry[2][6]
    if kind == 'MessageSent' then
        -- Inside a JSON text's strings quotes are escaped, so this finds the field and nothing else.
        if not string.find(payload, mine, 1, true) then
            unread[id] = true
            count = count + 1
        end
    elseif kind == 'MessageDeleted' then
        local readable, deleted = pcall(cjson.decode, payload)
        if readable and type(deleted) == 'table' and unread[deleted.message_id] then
            unread[deleted.message_id] = nil
            count = count - 1
        end
    end
end
return {#entries, count}
