-- Purpose: adds what a worker saw of answers to the counts that all workers share.
-- KEYS: 1 ZSET of groups by ms of their last answer, 2 HASH of learned values, 3 STRING name of this
--   call, 4.. STRING counts of each group. ARGV: 1 what stands before a group's name in its key,
--   2 half-life in answers, 3 ms for which a group without answers is kept, 4 most groups that are
--   kept, 5 promised share of answers over the bound, then for each group: its name and what is new
--   in JSON: {answers, judged, under, o: {bucket: weight}, r: {bucket: weight}}.
-- Result: for each group either the JSON of its counts, when enough is new to learn from; or the
--   number that was learned of its output before, or nothing. `scale` is what all counts but
--   `answers`, `read` and `miss` are to be divided by.
-- Sent twice: the name of the call is known then; nothing is added, and all counts are returned.
--
-- Counts fade by growing what is new: an answer counts `scale`, which doubles with each half-life,
-- until the numbers are large and all are divided. They are packed in one string: as fields of a
-- hash, in its small form, each would be searched for through all the others.
local prefix, half_life, kept_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local LARGE, NOTHING, KNOWN_MS = 2 ^ 20, 0.001, 3600000
-- Half-lives of one call, so that what was gathered in a long outage stays within a number.
local MOST_LIVES = 30
-- All counts are returned when this share of what counts is new: few answers always are.
local NEWS, FEW = 1 / 16, 50
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- This removes nothing, and lets a full server take what follows.
redis.pcall('ZREM', KEYS[1], '')
local new = redis.call('SET', KEYS[3], '1', 'NX', 'PX', KNOWN_MS)

-- Counts divided by the scale; those that are as good as nothing go.
local function divided(counts, scale)
  local kept = {}
  for bucket, weight in pairs(counts) do
    if weight / scale >= NOTHING then kept[bucket] = weight / scale end
  end
  return kept
end

-- The counts with what is new, and whether there is enough to learn from.
local function add(key, new)
  local packed = redis.call('GET', key)
  local all = packed and cmsgpack.unpack(packed)
    or {scale = 1, answers = 0, read = 0, judged = 0, under = 0, o = {}, r = {}}
  local scale = all.scale * 2 ^ math.min(MOST_LIVES, new.answers / half_life)
  all.answers, all.scale, all.miss = all.answers + new.answers, scale, tonumber(ARGV[5])
  all.judged, all.under = all.judged + new.judged * scale, all.under + new.under * scale
  for _, part in ipairs({'o', 'r'}) do
    local counts = all[part]
    for bucket, weight in pairs(new[part]) do
      counts[bucket] = (counts[bucket] or 0) + weight * scale
    end
  end
  if scale >= LARGE then
    all.scale, all.judged, all.under = 1, all.judged / scale, all.under / scale
    all.o, all.r = divided(all.o, scale), divided(all.r, scale)
  end
  local news = all.answers - all.read
  local due = all.answers < FEW or news >= NEWS * math.min(all.answers, half_life / math.log(2))
  if due then all.read = all.answers end
  redis.call('SET', key, cmsgpack.pack(all), 'PX', kept_ms)
  return all, due
end

local function forget(group)
  redis.call('ZREM', KEYS[1], group)
  redis.call('DEL', prefix .. group)
  redis.call('HDEL', KEYS[2], 'out|' .. group)
  local model = string.match(group, '^([^|]*)|%*|$')
  if model then redis.call('HDEL', KEYS[2], 'in|' .. model) end
end

local reply = {}
for n = 4, #KEYS do
  local group = ARGV[2 * n - 2]
  local all, due
  if new then
    all, due = add(KEYS[n], cjson.decode(ARGV[2 * n - 1]))
    redis.call('ZADD', KEYS[1], now, group)
  else
    local packed = redis.call('GET', KEYS[n])
    all, due = packed and cmsgpack.unpack(packed), packed
  end
  if due then
    reply[#reply + 1] = cjson.encode(all)
  else
    reply[#reply + 1] = redis.call('HGET', KEYS[2], 'out|' .. group) or ''
  end
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
