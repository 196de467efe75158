-- Purpose: takes what one attempt needs from all its buckets, or from none and says how long to wait.
--   An amount over a bucket's capacity is granted when the bucket is full, and leaves a debt.
-- KEYS: 1 hold, then the buckets (HASH: level, at_ms).
-- ARGV: 1 lifetime of the hold in ms, then for each bucket: rate per ms, capacity, amount.
-- Result: 0 when granted, else the wait in ms (at least 1).
-- Sent twice: the hold is there already, and nothing more is taken.
local hold, hold_ms = KEYS[1], tonumber(ARGV[1])
if redis.call('EXISTS', hold) == 1 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local wait, levels, held = 0, {}, {}
for k = 2, #KEYS do
  local a = 3 * k - 4
  local rate, capacity, amount = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local state = redis.call('HMGET', KEYS[k], 'level', 'at_ms')
  local level = tonumber(state[1] or capacity)
  local at_ms = tonumber(state[2] or now)
  if at_ms > now then
    -- The server's clock was set back: without this the bucket would not fill until it caught up.
    redis.call('HSET', KEYS[k], 'at_ms', string.format('%.3f', now))
    at_ms = now
  end
  level = math.min(capacity, level + math.max(0, now - at_ms) * rate)
  local needed = math.min(amount, capacity)
  -- A grain of tolerance: refilling in floats must not make a full bucket wait for 1e-13 of a token.
  if level < needed - 1e-6 then wait = math.max(wait, math.ceil((needed - level) / rate)) end
  levels[k], held[#held + 1] = level - amount, ARGV[a + 2]
end
if wait > 0 then return math.max(1, wait) end
for k = 2, #KEYS do
  redis.call('HSET', KEYS[k], 'level', string.format('%.6f', levels[k]), 'at_ms', string.format('%.3f', now))
  redis.call('PEXPIRE', KEYS[k], 3600000)
end
redis.call('SET', hold, table.concat(held, ' '), 'PX', hold_ms)
return 0
