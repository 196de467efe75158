-- Purpose: gives the maintenance to one worker at a time, also on a full server.
-- KEYS: 1 the worker whose turn it is. ARGV: 1 prefix of all keys, 2 name of the worker that asks,
--   3 ms that its turn lasts.
-- Result: 1 if it is that worker's turn, else 0.
-- Sent twice: its turn lasts a little longer.
-- @include lib/full
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
