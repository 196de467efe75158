-- Purpose: extends the leases of a worker's jobs, and answers which of them it must stop.
--   A lease that the server has lost (a restart, a failover) is taken again without its message,
--   so that a second copy of the job does not start beside the first. Not so for a worker that
--   stood still: there the job may have ended elsewhere, and counts as lost.
-- KEYS: 1 leases, 2 owners, 3 messages, 4 present, 5 cancels.
-- ARGV: 1 lease ms, 2 whether leases that the server has lost are taken again (1, 0), then for each
--   job its id and the owner of its lease.
-- Result: {number lost, ids of jobs that are no longer this worker's..., ids to be cancelled...}.
-- Sent twice: the same leases end a little later.
local leases, owners, messages, present, cancels = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local lease_ms = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A full server refuses a script at its first command that may need memory, but none after a first
-- write. Leases must not lapse there: this removes nothing, and what follows hardly needs memory.
redis.call('ZREM', leases, '')
local any_cancel = redis.call('EXISTS', cancels) == 1
local lost, cancelled = {}, {}

-- The server has lost this lease.
local function take_again(id, owner)
  redis.call('HSET', owners, id, owner)
  redis.call('HSETNX', messages, id, '')
  redis.call('SADD', present, id)
end

-- Extends the leases of these jobs, whose owners stand behind each id in ARGV, from `first` on.
local function renew(ids, first)
  local words = {}
  for n, holder in ipairs(redis.call('HMGET', owners, unpack(ids))) do
    local id, owner = ids[n], ARGV[first + 2 * n - 1]
    if holder and holder ~= owner or not holder and ARGV[2] == '0' then
      lost[#lost + 1] = id
    else
      if not holder then take_again(id, owner) end
      words[#words + 1] = now + lease_ms
      words[#words + 1] = id
    end
  end
  if #words == 0 then return end
  redis.call('ZADD', leases, unpack(words))
  if not any_cancel then return end
  for i = 2, #words, 2 do
    if redis.call('ZSCORE', cancels, words[i]) then cancelled[#cancelled + 1] = words[i] end
  end
end

local MOST = 500 -- `unpack` has a limit
for first = 3, #ARGV, 2 * MOST do
  local ids = {}
  for i = first, math.min(first + 2 * MOST - 2, #ARGV), 2 do ids[#ids + 1] = ARGV[i] end
  renew(ids, first)
end
local reply = {#lost}
for _, id in ipairs(lost) do reply[#reply + 1] = id end
for _, id in ipairs(cancelled) do reply[#reply + 1] = id end
return reply
