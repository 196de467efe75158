-- Purpose: adds what a worker saw of answers to the counts that all workers share.
-- KEYS: 1 ZSET of groups by ms of their last answer, 2 HASH of learned values, 3 STRING name of this
--   call, 4.. HASH of counts of each group. ARGV: 1 what stands before a group's name in its key,
--   2 half-life in answers, 3 ms for which a group without answers is kept, 4 most groups that are
--   kept, 5 promised share of answers over the bound, then for each group: its name, its new
--   answers, how many counts follow, and for each the name of the count and its amount.
-- Result: for each group its counts as they are now, names and amounts in turn; `scale` is what all
--   but `answers` and `miss` are to be divided by.
-- Sent twice: the name of the call is known then, and nothing is added.
--
-- Counts fade by growing what is new: an answer counts `scale`, which doubles with each half-life.
-- So only what is touched is written, until the numbers are large and all are divided.
local prefix, half_life, kept_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local LARGE, NOTHING, KNOWN_MS = 2 ^ 20, 0.001, 3600000
-- Half-lives of one call, so that what was gathered in a long outage stays within a number.
local MOST_LIVES = 30
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local new = redis.call('SET', KEYS[3], '1', 'NX', 'PX', KNOWN_MS)

local function text(amount)
  return string.format('%.9g', amount)
end

local function add(key, answers, from, count)
  local flat, counts = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do counts[flat[i]] = tonumber(flat[i + 1]) end
  local scale = (counts.scale or 1) * 2 ^ math.min(MOST_LIVES, answers / half_life)
  local words = {'scale', text(scale), 'answers', (counts.answers or 0) + answers, 'miss', ARGV[5]}
  for i = from, from + 2 * count - 2, 2 do
    words[#words + 1] = ARGV[i]
    words[#words + 1] = text((counts[ARGV[i]] or 0) + ARGV[i + 1] * scale)
  end
  redis.call('HSET', key, unpack(words))
  if scale < LARGE then return redis.call('HGETALL', key) end
  flat = redis.call('HGETALL', key)
  local gone = {}
  words = {'scale', '1'}
  for i = 1, #flat, 2 do
    local name, amount = flat[i], tonumber(flat[i + 1])
    if name ~= 'scale' and name ~= 'answers' and name ~= 'miss' then
      if amount / scale < NOTHING then
        gone[#gone + 1] = name
      else
        words[#words + 1] = name
        words[#words + 1] = text(amount / scale)
      end
    end
  end
  redis.call('HSET', key, unpack(words))
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  return redis.call('HGETALL', key)
end

local function forget(group)
  redis.call('ZREM', KEYS[1], group)
  redis.call('DEL', prefix .. group)
  redis.call('HDEL', KEYS[2], 'out|' .. group)
  local model = string.match(group, '^([^|]*)|%*|$')
  if model then redis.call('HDEL', KEYS[2], 'in|' .. model) end
end

local reply, at = {}, 6
for n = 4, #KEYS do
  local group, answers, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if new then
    reply[#reply + 1] = add(KEYS[n], answers, at + 3, count)
    redis.call('ZADD', KEYS[1], now, group)
    redis.call('PEXPIRE', KEYS[n], kept_ms)
  else
    reply[#reply + 1] = redis.call('HGETALL', KEYS[n])
  end
  at = at + 3 + 2 * count
end
redis.call('PEXPIRE', KEYS[1], kept_ms)
for _, group in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - kept_ms, 'LIMIT', 0, 100)) do
  forget(group)
end
local over = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[4])
if over > 0 then
  for _, group in ipairs(redis.call('ZRANGE', KEYS[1], 0, over - 1)) do forget(group) end
end
return reply
