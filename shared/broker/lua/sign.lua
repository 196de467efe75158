-- Purpose: says that a worker lives and what it serves, also on a full server.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 the worker, 3 text of its sign, 4 ms that it lasts.
-- Result: 1. Sent twice: it lasts a little longer.
-- @include lib/full
local lasts_ms = tonumber(ARGV[4])
redis.call('SET', KEY.worker(ARGV[2]), ARGV[3], 'PX', lasts_ms)
redis.call('ZREMRANGEBYSCORE', KEY.workers, '-inf', whole_ms)
redis.call('ZADD', KEY.workers, whole_ms + lasts_ms, ARGV[2])
redis.call('PEXPIRE', KEY.workers, lasts_ms)
return 1
