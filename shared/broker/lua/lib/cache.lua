-- Purpose: the books of the cache: which answers are kept, how large they are, and who needs them. It
--   stands before `publish`, `heard` and `uncache`, after `base`.
-- KEYS and ARGV: those of the script that follows. Result: none; it defines functions.
--
-- `cached` has a line for each answer, `uses` and `ends` its last use and its end; `bytes` in `counts`
-- is the sum of what the lines say. An answer that Redis let expire stays in the books until somebody
-- meets it: its bytes are counted a little too long, never too short.
local cached = {}
local BOOKED, USES, ENDS = 'headgate:cached', 'headgate:cache:uses', 'headgate:cache:ends'
local COUNTS = 'headgate:cache:counts'
-- Answers that one call throws away at most; 2 ms.
cached.MOST = 500

local function entry_of(fp) return prefix .. 'headgate:cache:' .. fp end

local function size_of(line) return tonumber(line and string.match(line, '^%d+') or 0) end

-- It is in no book any more; returns whether it was.
function cached.strike(fp)
  local line = redis.call('HGET', prefix .. BOOKED, fp)
  redis.call('ZREM', prefix .. USES, fp)
  redis.call('ZREM', prefix .. ENDS, fp)
  if not line then return false end
  redis.call('HDEL', prefix .. BOOKED, fp)
  redis.call('HINCRBY', prefix .. COUNTS, 'bytes', -size_of(line))
  return true
end

function cached.drop(fp)
  redis.call('DEL', entry_of(fp))
  return cached.strike(fp)
end

-- Returns the bytes of all.
function cached.keep(fp, value, ttl_ms, whose)
  local before = redis.call('HGET', prefix .. BOOKED, fp)
  redis.call('SET', entry_of(fp), value, 'PX', ttl_ms)
  local ends = math.floor(now) + ttl_ms
  redis.call('HSET', prefix .. BOOKED, fp, #value .. '|' .. whose .. '|' .. ends)
  redis.call('ZADD', prefix .. USES, now, fp)
  redis.call('ZADD', prefix .. ENDS, ends, fp)
  return redis.call('HINCRBY', prefix .. COUNTS, 'bytes', #value - size_of(before))
end

-- What has expired is struck; then, while there is more than the bound, what was not used for longest
-- goes. `bytes`: of all, where that is known. Returns whether there is more to do.
function cached.shed(bound, bytes)
  local gone = redis.call('ZRANGEBYSCORE', prefix .. ENDS, '-inf', now, 'LIMIT', 0, cached.MOST)
  for _, fp in ipairs(gone) do cached.drop(fp) end
  local left, evicted = cached.MOST - #gone, 0
  if #gone > 0 or not bytes then
    bytes = tonumber(redis.call('HGET', prefix .. COUNTS, 'bytes') or 0)
  end
  if bytes < 0 then redis.call('HSET', prefix .. COUNTS, 'bytes', 0) end -- somebody removed the sum
  while bytes > bound and left > 0 do
    local oldest = redis.call('ZRANGE', prefix .. USES, 0, 0)[1]
    if not oldest then
      -- Nothing is left: whatever the sum says, somebody else has made it.
      if redis.call('HLEN', prefix .. BOOKED) == 0 then
        redis.call('HSET', prefix .. COUNTS, 'bytes', 0)
      end
      break
    end
    cached.drop(oldest)
    bytes = tonumber(redis.call('HGET', prefix .. COUNTS, 'bytes') or 0)
    left, evicted = left - 1, evicted + 1
  end
  if evicted > 0 then redis.call('HINCRBY', prefix .. COUNTS, 'evicted', evicted) end
  return left <= 0
end

local function whole(text) return math.floor(tonumber(text) or 0) end

local function by_clock()
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
