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
local MOST = 500 -- `unpack` has a limit
for first = 8, #ARGV, MOST do
  local last, uses = math.min(first + MOST - 1, #ARGV), {}
  for n, entry in ipairs(redis.call('HMGET', KEY.cached, unpack(ARGV, first, last))) do
    local name = ARGV[first + n - 1]
    if entry and first + n - 1 <= last_found then
      uses[#uses + 1] = now
      uses[#uses + 1] = name
    elseif entry and redis.call('EXISTS', KEY.cache(name)) == 0 then
      cached.remove(name)
    end
  end
  if #uses > 0 then redis.call('ZADD', KEY.cache_uses, unpack(uses)) end
end
return 1
