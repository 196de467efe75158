-- Purpose: counts, in one moment, the jobs that the broker claims to know and those that it has.
-- KEYS: 1 present, 2 leases, 3 due, then the queues. ARGV: none.
-- Result: {ids in `present`, jobs leased, deferred or queued}. A queue that is no list counts 0.
local placed = redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[3])
for k = 4, #KEYS do
  local length = redis.pcall('LLEN', KEYS[k])
  if type(length) == 'number' then placed = placed + length end
end
return {redis.call('SCARD', KEYS[1]), placed}
