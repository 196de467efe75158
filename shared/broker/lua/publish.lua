-- Purpose: stores the result of an ended job, publishes it to all who wait for it, and keeps its
--   answer for equal requests, in one step.
-- KEYS: 1 result (also the channel).
-- ARGV: 1 prefix of all keys, 2 record, 3 its lifetime in seconds, 4 bound of the cache in bytes; then
--   for each answer to keep: fingerprint, entry, its lifetime in ms, `tenant|model`.
-- Result: how many were waiting; -1 less that where the answer could not be kept, since a key of the
--   cache's index is of another type.
-- Sent twice: stores the same again; those who wait may get it twice.
-- @include lib/cache
local function whole(text) return math.floor(tonumber(text) or 0) end

redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
local bound = tonumber(ARGV[4])
-- Whatever has become of the cache: the result is there, and is published.
local kept = #ARGV == 4 or pcall(function()
  local bytes
  for i = 5, #ARGV, 4 do
    -- One answer must not drive out many.
    if #ARGV[i + 1] * 8 <= bound then
      bytes = cached.keep(ARGV[i], ARGV[i + 1], whole(ARGV[i + 2]), ARGV[i + 3])
    end
  end
  cached.evict(bound, bytes)
end)
local waiting = redis.call('PUBLISH', KEYS[1], ARGV[2])
return kept and waiting or -1 - waiting
