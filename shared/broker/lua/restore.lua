-- Purpose: gives leased jobs back to the head of their queues at once, in the order given.
-- KEYS: 1 leases, 2 owners, 3 messages, 4 present.
-- ARGV: 1 prefix of all keys, 2 whether nothing was sent for them (1, 0): then they cost nothing,
--   then for each job its id and the owner of its lease.
-- Result: how many were given back. Those that the worker no longer holds are left alone.
-- Sent twice: the second call finds no lease and does nothing.
local leases, owners, messages, present = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local restored = 0
local time = redis.call('TIME')
prefix, now = ARGV[1], time[1] * 1000 + time[2] / 1000
for i = #ARGV - 1, 3, -2 do
  local id = ARGV[i]
  if redis.call('HGET', owners, id) == ARGV[i + 1] then
    local stored = redis.call('HGET', messages, id)
    redis.call('ZREM', leases, id)
    redis.call('HDEL', owners, id)
    money.ends_at(ARGV[2] == '1' and 0 or nil)
    release({id})
    money.ends_at(nil)
    flights.land({id})
    redis.call('HDEL', messages, id)
    local cut = stored and string.find(stored, '\n', 1, true)
    if cut then
      local queue = string.sub(stored, 1, cut - 1)
      redis.call('RPUSH', prefix .. queue, string.sub(stored, cut + 1))
      local wake = prefix .. 'headgate:wake:' .. queue
      redis.call('RPUSH', wake, '1')
      redis.call('LTRIM', wake, 0, 0)
      restored = restored + 1
    else
      redis.call('SREM', present, id)
    end
  end
end
save()
return restored
