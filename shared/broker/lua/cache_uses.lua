-- Purpose: what a worker found in the cache since it last told, and what it did not find.
-- KEYS: none; `cached` stands before it and names them.
-- ARGV: 1 prefix, 2 id of this call, 3 answers found whose lifetime runs, 4 looked for in vain,
--   5 found that only count as shared, 6 pico-USD saved, 7 how many fingerprints were found, then
--   those that were, then those that were not.
-- Result: 1, or 0 where it had been told before.
-- Sent twice: counts once; the id is known for a minute.
prefix = ARGV[1]
if not redis.call('SET', prefix .. 'headgate:cache:heard:' .. ARGV[2], '', 'PX', 60000, 'NX') then
  return 0
end
by_clock()
for i, name in ipairs({'hits', 'misses', 'shared', 'saved'}) do
  if ARGV[i + 2] ~= '0' then redis.call('HINCRBY', prefix .. COUNTS, name, ARGV[i + 2]) end
end
local last_found = 7 + tonumber(ARGV[7])
for i = 8, #ARGV do
  if i > last_found then
    if redis.call('HEXISTS', prefix .. BOOKED, ARGV[i]) == 1
      and redis.call('EXISTS', entry_of(ARGV[i])) == 0 then
      cached.strike(ARGV[i])
    end
  elseif redis.call('HEXISTS', prefix .. BOOKED, ARGV[i]) == 1 then
    redis.call('ZADD', prefix .. USES, now, ARGV[i])
  end
end
return 1
