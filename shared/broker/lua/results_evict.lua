-- Purpose: removes results from the books that have expired, and the oldest ones over the bound.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 bound in bytes.
-- Result: 1 if there is more to do, else 0.
-- Sent twice: finds them gone.
-- @include lib/results
local more = results.drop_expired()
local bytes = tonumber(redis.call('HGET', KEY.results_counts, 'bytes') or 0)
more = results.evict(tonumber(ARGV[2]), bytes) or more
return more and 1 or 0
