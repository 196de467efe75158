-- Purpose: stores the result of an ended job, publishes it to all who wait for it, and keeps its
--   answer for equal requests, in one step. Results and answers stay within their bounds.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 job id (its result is also the channel), 3 record, 4 its lifetime in
--   seconds (0: it is only published), 5 bound of all results in bytes, 6 the group of tasks that the job belongs to, or '',
--   7 whether pieces of it were streamed (1, 0), 8 bound of the cache in bytes; then for each answer
--   to keep: fingerprint, entry, its lifetime in ms, `tenant|model`.
-- Result: how many were waiting; -1 less that where a key of the cache's index or of the results' books
--   is of another type: then the answer is not kept, or the result is in no book.
-- Sent twice: stores the same again, and its bytes count twice until it is evicted or expires; those
--   who wait may get it twice.
-- @include lib/cache
-- @include lib/results
local function whole(text) return math.floor(tonumber(text) or 0) end
local id, record, bound = ARGV[2], ARGV[3], tonumber(ARGV[5])
local key = KEY.result(id)

local is_stored = ARGV[4] ~= '0'
local stored = is_stored and redis.pcall('SET', key, record, 'EX', ARGV[4])
local is_full = type(stored) == 'table' and stored.err ~= nil
if is_full then
  if not string.find(stored.err, 'OOM', 1, true) then return stored end
  -- A full server takes what follows the first command that needs no memory. So that it does not grow
  -- by this, twice as much of the oldest results goes.
  pcall(function()
    local bytes = tonumber(redis.call('HGET', KEY.results_counts, 'bytes') or 0)
    results.evict(math.max(0, bytes - 2 * (#record + FIGURES.RESULT_OVERHEAD)), bytes)
  end)
  redis.call('DEL', key)
  redis.call('SET', key, record, 'EX', ARGV[4])
end
-- Whatever has become of the books and of the cache: the result is there, and is published.
local booked = not is_stored or pcall(function()
  local bytes = results.add(id, ARGV[6], #record)
  if bytes > bound then results.evict(bound, bytes) end
end)
if ARGV[7] == '1' then redis.call('PEXPIRE', KEY.deltas(id), FIGURES.PIECES_MS) end

local cache_bound = tonumber(ARGV[8])
local kept = is_full or #ARGV == 8 or pcall(function()
  local sum
  for i = 9, #ARGV, 4 do
    -- One answer must not drive out many.
    if #ARGV[i + 1] * 8 <= cache_bound then
      sum = cached.keep(ARGV[i], ARGV[i + 1], whole(ARGV[i + 2]), ARGV[i + 3])
    end
  end
  cached.evict(cache_bound, sum)
end)
local waiting = redis.call('PUBLISH', key, record)
return booked and kept and waiting or -1 - waiting
