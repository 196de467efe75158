-- Purpose: returns leased jobs to the head of their queues at once, in the order given.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 whether nothing was sent for them (1, 0): then they cost nothing,
--   then for each job its id and the owner of its lease.
-- Result: how many were returned. Those that the worker no longer holds are left alone.
-- Sent twice: the second call finds no lease and does nothing.
-- @include lib/hold
-- @include lib/flights
local restored = 0
for i = #ARGV - 1, 3, -2 do
  local id = ARGV[i]
  if redis.call('HGET', KEY.owners, id) == ARGV[i + 1] then
    local queue, message = split_stored(redis.call('HGET', KEY.messages, id))
    redis.call('ZREM', KEY.leases, id)
    redis.call('HDEL', KEY.owners, id)
    release({id}, ARGV[2] == '1' and {[id] = 0} or nil)
    flights.land({id})
    redis.call('HDEL', KEY.messages, id)
    if queue then
      redis.call('RPUSH', KEY.queue(queue), message)
      wake_workers(queue)
      restored = restored + 1
    else
      redis.call('SREM', KEY.present, id)
    end
  end
end
save()
return restored
