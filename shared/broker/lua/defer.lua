-- Purpose: turns the lease of a job into a place on the due list: it returns to its queue then.
--   Its crashes are forgotten: it has come this far without one. One that is to be cancelled returns
--   at once, to end.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 owner of the lease, 3 job id, 4 wait ms, 5 the ticket that counts
--   from now on, or empty, 6 whether nothing was sent for it (1, 0): then it costs nothing.
-- Result: 1 when deferred, 0 when the worker no longer holds the job or its message is lost.
-- Sent twice: the second call finds no lease and answers 0, and changes nothing.
-- @include lib/hold
-- @include lib/flights
local id = ARGV[3]
if redis.call('HGET', KEY.owners, id) ~= ARGV[2] then return 0 end
local stored = redis.call('HGET', KEY.messages, id)
if not stored or stored == '' then return 0 end
redis.call('ZREM', KEY.leases, id)
redis.call('HDEL', KEY.owners, id)
redis.call('HDEL', KEY.crashes, id)
release({id}, ARGV[6] == '1' and {[id] = 0} or nil)
flights.land({id})
save()
if ARGV[5] ~= '' then redis.call('HSET', KEY.tickets, id, ARGV[5]) end
local wait_ms = redis.call('ZSCORE', KEY.cancels, id) and 0 or tonumber(ARGV[4])
redis.call('ZADD', KEY.due, whole_ms + wait_ms, id)
return 1
