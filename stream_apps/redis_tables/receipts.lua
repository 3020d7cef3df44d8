-- Advances receipts: both numbers only grow, so order and repetition do not matter. What is news is published.
--
-- KEYS  per conversation: receipts, live channel
-- ARGV  per conversation: number of receipts; then per receipt: user, delivered_seq, read_seq, event id, payload
-- Answers how many were news; then, for each conversation whose receipts could not be advanced, its place among the
-- conversations (from 0) and the error. One conversation's error is no other's.
local news = 0

local function advance(c, first, last)
    for r = first, last, 5 do
        local held = redis.call('HGET', KEYS[c], ARGV[r]) or '0:0'
        local delivered, read = string.match(held, '^(%d+):(%d+)$')
        delivered = math.max(tonumber(delivered), tonumber(ARGV[r + 1]))
        read = math.max(tonumber(read), tonumber(ARGV[r + 2]))
        local advanced = string.format('%.0f:%.0f', delivered, read)
        if advanced ~= held then
            redis.call('HSET', KEYS[c], ARGV[r], advanced)
            redis.call('PUBLISH', KEYS[c + 1], '0 ReceiptAdvanced ' .. ARGV[r + 3] .. '\n' .. ARGV[r + 4])
            news = news + 1
        end
    end
end

local at = 1
local errors = {}
for c = 1, #KEYS, 2 do
    local following = at + 1 + tonumber(ARGV[at]) * 5
    local is_sound, problem = pcall(advance, c, at + 1, following - 1)
    if not is_sound then
        errors[#errors + 1] = (c - 1) / 2
        errors[#errors + 1] = type(problem) == 'table' and problem.err or tostring(problem)
    end
    at = following
end
return {news, unpack(errors)}
