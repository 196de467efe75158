-- Purpose: the result of an ended job is stored, told to all who wait for it, and its answer kept
--   for equal requests, in one step.
-- KEYS: 1 result (also the channel). `cached` stands before it and names the keys of the cache.
-- ARGV: 1 record, 2 its lifetime in seconds, 3 prefix, 4 bound of the cache in bytes; then for each
--   answer to keep: fingerprint, entry, its lifetime in ms, `tenant|model`.
-- Result: how many were waiting; -1 less that where the answer could not be kept, since a key of the
--   cache's books is of another type.
-- Sent twice: stores the same again; those who wait may hear it twice.
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local bound = tonumber(ARGV[4])
-- Whatever has become of the cache: the result is there, and is told.
local kept = #ARGV == 4 or pcall(function()
  prefix = ARGV[3]
  by_clock()
  local bytes
  for i = 5, #ARGV, 4 do
    -- One answer must not drive out many.
    if #ARGV[i + 1] * 8 <= bound then
      bytes = cached.keep(ARGV[i], ARGV[i + 1], whole(ARGV[i + 2]), ARGV[i + 3])
    end
  end
  cached.shed(bound, bytes)
end)
local waiting = redis.call('PUBLISH', KEYS[1], ARGV[1])
return kept and waiting or -1 - waiting
