-- Purpose: stores the results of ended jobs, publishes each to all who wait for it, and keeps their
--   answers for equal requests, in one step. Results and answers stay within their bounds.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 bound of all results in bytes, 3 bound of the cache in bytes; then for
--   each job: its id (its result is also the channel), the record, its lifetime in seconds (0: it is
--   only published), the group of tasks that it belongs to, or '', whether pieces of it were streamed
--   (1, 0), how many answers to keep, and for each: fingerprint, entry, its lifetime in ms,
--   `tenant|model`.
-- Result: for each job how many were waiting; -1 less that where a key of the cache's index or of the
--   results' books is of another type: then answers are not kept, or results are in no book.
-- Sent twice: stores the same again, and its bytes count twice until it is evicted or expires; those
--   who wait may get it twice.
-- @include lib/cache
-- @include lib/results
local WORDS, ANSWER = 6, 4 -- words of a job before its answers, and of an answer
local results_bound, cache_bound = tonumber(ARGV[2]), tonumber(ARGV[3])
local is_full = false

-- A full server takes what follows the first command that needs no memory. So that it does not grow
-- by this, twice as much of the oldest results goes.
local function store_on_full(key, record, ttl_s)
  is_full = true
  pcall(function()
    local bytes = tonumber(redis.call('HGET', KEY.results_counts, 'bytes') or 0)
    results.evict(math.max(0, bytes - 2 * (#record + FIGURES.RESULT_OVERHEAD)), bytes)
  end)
  redis.call('DEL', key)
  redis.call('SET', key, record, 'EX', ttl_s)
end

-- Returns the error where the server refuses for another reason than that it is full.
local function store(key, record, ttl_s)
  local stored = redis.pcall('SET', key, record, 'EX', ttl_s)
  if not stored.err then return nil end
  if not string.find(stored.err, 'OOM', 1, true) then return stored end
  store_on_full(key, record, ttl_s)
end

local names, records, at, answers = {}, {}, 4, {}
while at <= #ARGV do
  local id, record, ttl_s, last = ARGV[at], ARGV[at + 1], ARGV[at + 2], at + WORDS - 1
  local key = KEY.result(id)
  names[#names + 1], records[#records + 1] = key, record
  if ttl_s ~= '0' then
    local refused = store(key, record, ttl_s)
    if refused then return refused end
    results.note(id, ARGV[at + 3], #record)
  end
  if ARGV[at + 4] == '1' then redis.call('PEXPIRE', KEY.deltas(id), FIGURES.PIECES_MS) end
  at = last + 1 + ANSWER * tonumber(ARGV[last])
  for i = last + 1, at - 1, ANSWER do
    -- One answer must not drive out many.
    if #ARGV[i + 1] * 8 <= cache_bound then answers[#answers + 1] = i end
  end
end

-- Whatever has become of the books and of the cache: the results are there, and are published.
local are_booked = pcall(function()
  local bytes = results.save()
  if bytes and bytes > results_bound then results.evict(results_bound, bytes) end
end)
local are_kept = is_full or #answers == 0 or pcall(function()
  cached.evict(cache_bound, cached.keep(answers))
end)
local reply = {}
for n, key in ipairs(names) do
  local waiting = redis.call('PUBLISH', key, records[n])
  reply[n] = are_booked and are_kept and waiting or -1 - waiting
end
return reply
