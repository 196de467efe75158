-- Purpose: counts what a worker found in the cache since its last call, and what it did not find.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 id of this call, 3 answers found whose lifetime runs, 4 looked for in
--   vain, 5 found that only count as shared, 6 pico-USD saved, 7 how many fingerprints were found,
--   then those that were, then those that were not.
-- Result: 1, or 0 where the call had counted before.
-- Sent twice: counts once; the id is known for a minute.
-- @include lib/cache
-- @include lib/full
if not redis.call('SET', KEY.cache_call(ARGV[2]), '', 'PX', 60000, 'NX') then return 0 end
for i, name in ipairs({'hits', 'misses', 'shared', 'saved'}) do
  if ARGV[i + 2] ~= '0' then redis.call('HINCRBY', KEY.cache_counts, name, ARGV[i + 2]) end
end
local last_found = 7 + tonumber(ARGV[7])
for i = 8, #ARGV do
  local is_known = redis.call('HEXISTS', KEY.cached, ARGV[i]) == 1
  if is_known and i <= last_found then
    redis.call('ZADD', KEY.cache_uses, now, ARGV[i])
  elseif is_known and redis.call('EXISTS', KEY.cache(ARGV[i])) == 0 then
    cached.remove(ARGV[i])
  end
end
return 1
