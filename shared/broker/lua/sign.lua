-- Purpose: says that a worker lives, also on a full server.
-- KEYS: 1 the sign of the worker. ARGV: 1 prefix of all keys, 2 its text, 3 ms that it lasts.
-- Result: 1. Sent twice: it lasts a little longer.
-- @include lib/full
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
