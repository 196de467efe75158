-- Purpose: turns the lease of a job into a place in the due-list: it goes back to its queue then.
--   Its crashes are forgotten: it has come this far without one. One that is to be cancelled goes
--   back at once, to end.
-- KEYS: 1 leases, 2 owners, 3 messages, 4 due, 5 crashes, 6 cancels.
-- ARGV: 1 owner of the lease, 2 job id, 3 wait ms, 4 prefix of all keys, 5 the ticket that counts
--   from now on, or empty, 6 whether nothing was sent for it (1, 0): then it costs nothing.
-- Result: 1 when deferred, 0 when the worker no longer holds the job or its message is lost.
-- Sent twice: the second call finds no lease and answers 0, and changes nothing.
local leases, owners, messages, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id = ARGV[2]
local time = redis.call('TIME')
prefix, now = ARGV[4], time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('HGET', owners, id) ~= ARGV[1] then return 0 end
local stored = redis.call('HGET', messages, id)
if not stored or stored == '' then return 0 end
redis.call('ZREM', leases, id)
redis.call('HDEL', owners, id)
redis.call('HDEL', KEYS[5], id)
money.ends_at(ARGV[6] == '1' and 0 or nil)
release({id})
flights.land({id})
save()
if ARGV[5] ~= '' then redis.call('HSET', prefix .. 'headgate:tickets', id, ARGV[5]) end
local wait_ms = redis.call('ZSCORE', KEYS[6], id) and 0 or tonumber(ARGV[3])
redis.call('ZADD', due, now + wait_ms, id)
return 1
