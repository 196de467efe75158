-- Purpose: the index of the cache: which answers are kept, how large they are, and whose they are.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- `cached` has a field for each answer, `cache_uses` and `cache_ends` its last use and its end. `bytes`
-- in `cache_counts` is the sum of what the fields say. An answer that Redis let expire stays in the
-- index until somebody meets it: its bytes are counted a little too long, never too short.
-- @include lib/prelude
local cached = {}
-- Answers that one call throws away at most; 2 ms.
cached.MOST = 500

local function size_of(entry) return tonumber(entry and string.match(entry, '^%d+') or 0) end

-- Removes the answer from the index; returns whether it was there.
function cached.remove(fingerprint)
  local entry = redis.call('HGET', KEY.cached, fingerprint)
  redis.call('ZREM', KEY.cache_uses, fingerprint)
  redis.call('ZREM', KEY.cache_ends, fingerprint)
  if not entry then return false end
  redis.call('HDEL', KEY.cached, fingerprint)
  redis.call('HINCRBY', KEY.cache_counts, 'bytes', -size_of(entry))
  return true
end

-- Removes the answer, and from the index as well.
function cached.drop(fingerprint)
  redis.call('DEL', KEY.cache(fingerprint))
  return cached.remove(fingerprint)
end

-- Keeps answers; returns the bytes of all. `places`: where each begins in ARGV, with fingerprint,
-- entry, lifetime in ms and `tenant|model`.
function cached.keep(places)
  local names, sizes, entries, uses, ends, more = {}, {}, {}, {}, {}, 0
  for n, i in ipairs(places) do names[n] = ARGV[i] end
  for n, before in ipairs(redis.call('HMGET', KEY.cached, unpack(names))) do
    sizes[names[n]] = size_of(before)
  end
  for n, i in ipairs(places) do
    local name, value, ttl_ms = names[n], ARGV[i + 1], math.floor(tonumber(ARGV[i + 2]) or 0)
    redis.call('SET', KEY.cache(name), value, 'PX', ttl_ms)
    local end_ms = whole_ms + ttl_ms
    entries[2 * n - 1], entries[2 * n] = name, #value .. '|' .. ARGV[i + 3] .. '|' .. end_ms
    uses[2 * n - 1], uses[2 * n] = now, name
    ends[2 * n - 1], ends[2 * n] = end_ms, name
    more, sizes[name] = more + #value - sizes[name], #value
  end
  redis.call('HSET', KEY.cached, unpack(entries))
  redis.call('ZADD', KEY.cache_uses, unpack(uses))
  redis.call('ZADD', KEY.cache_ends, unpack(ends))
  return redis.call('HINCRBY', KEY.cache_counts, 'bytes', more)
end

-- Drops what has expired; then, while there is more than the bound, what was not used for longest.
-- `bytes`: of all, where that is known. Returns whether there is more to do.
function cached.evict(bound, bytes)
  local gone = redis.call('ZRANGEBYSCORE', KEY.cache_ends, '-inf', now, 'LIMIT', 0, cached.MOST)
  for _, fingerprint in ipairs(gone) do cached.drop(fingerprint) end
  local left, evicted = cached.MOST - #gone, 0
  if #gone > 0 or not bytes then
    bytes = tonumber(redis.call('HGET', KEY.cache_counts, 'bytes') or 0)
  end
  if bytes < 0 then redis.call('HSET', KEY.cache_counts, 'bytes', 0) end -- somebody removed the sum
  while bytes > bound and left > 0 do
    local oldest = redis.call('ZRANGE', KEY.cache_uses, 0, 0)[1]
    if not oldest then
      -- Nothing is left: whatever the sum says, somebody else has made it.
      if redis.call('HLEN', KEY.cached) == 0 then
        redis.call('HSET', KEY.cache_counts, 'bytes', 0)
      end
      break
    end
    cached.drop(oldest)
    bytes = tonumber(redis.call('HGET', KEY.cache_counts, 'bytes') or 0)
    left, evicted = left - 1, evicted + 1
  end
  if evicted > 0 then redis.call('HINCRBY', KEY.cache_counts, 'evicted', evicted) end
  return left <= 0
end
