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
for i = 3, #ARGV, 2 do
  local id, owner = ARGV[i], ARGV[i + 1]
  local holder = redis.call('HGET', owners, id)
  if holder and holder ~= owner or not holder and ARGV[2] == '0' then
    lost[#lost + 1] = id
  else
    if not holder then
      redis.call('HSET', owners, id, owner)
      redis.call('HSETNX', messages, id, '')
      redis.call('SADD', present, id)
    end
    redis.call('ZADD', leases, now + lease_ms, id)
    if any_cancel and redis.call('ZSCORE', cancels, id) then
      cancelled[#cancelled + 1] = id
    end
  end
end
local reply = {#lost}
for _, id in ipairs(lost) do reply[#reply + 1] = id end
for _, id in ipairs(cancelled) do reply[#reply + 1] = id end
return reply
