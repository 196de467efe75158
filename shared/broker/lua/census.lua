-- Purpose: counts, in one moment, the jobs that the broker claims to know and those that it has.
-- KEYS: 1 present, 2 messages, then the queues. ARGV: none.
-- Result: {ids in `present`, jobs leased, deferred, in a waiting queue or queued, jobs queued}. A queue
--   that is no list counts 0.
local queued = 0
for k = 3, #KEYS do
  local length = redis.pcall('LLEN', KEYS[k])
  if type(length) == 'number' then queued = queued + length end
end
return {redis.call('SCARD', KEYS[1]), redis.call('HLEN', KEYS[2]) + queued, queued}
