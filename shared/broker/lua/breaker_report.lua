-- Purpose: counts how calls to one model with one key went; opens its breaker and closes it.
-- KEYS: 1 the breaker (`lib/breaker` lists its fields), 2 ZSET of breakers.
-- ARGV: 1 prefix of all keys, 2 `provider/model#key`, 3 how many were answered, 4 the ms they took in
--   sum, 5 how many failed after them, 6 the fence of the probe that this reports, or '', then the rules: 7
--   failures in a row that open (0: none ever opens), 8 share of failed calls that does, 9 ms that it
--   stays open, 10 ms without failure until the model counts as healthy, 11 what failed, or ''.
-- Result: {`opened`, `closed`, `open` (as it was) or '', ms until a probe may go}.
-- Sent twice: counts twice, so that a breaker may open some failures early; a probe counts once.
-- @include generated/figures
-- @include lib/wake
local SLOT_MS, SLOTS, HOUR_MS, KEPT_MS = FIGURES.SLOT_MS, FIGURES.SLOTS, 3600000, FIGURES.DAY_MS
-- Calls within a minute from which the share of those that failed means something.
local ENOUGH = 20
-- Where this share of the calls fails, failures in a row also come by chance: at 14 % and 1,000 calls a
-- minute five in a row every 20 minutes. A row opens then if so few of its length come in a minute.
local FLAKY, RARE = 0.05, 0.01
local answered, took, failed = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local most, share, open_ms = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local f = {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do f[fields[i]] = fields[i + 1] end
local function ms(moment) return string.format('%.0f', moment) end

local slot = math.floor(now / SLOT_MS)
local function counts(place)
  local at, ok, bad, sum = string.match(f[place] or '', '^(%d+) (%d+) (%d+) (%d+)$')
  at = tonumber(at)
  if not at or at > slot or at <= slot - SLOTS then return 0, 0, 0 end
  return tonumber(ok), tonumber(bad), tonumber(sum), at
end
local place = 'slot' .. slot % SLOTS
local ok, bad, sum, at = counts(place)
if at ~= slot then ok, bad, sum = 0, 0, 0 end
f[place] = string.format('%d %d %d %.0f', slot, ok + answered, bad + failed, sum + took)
local words = {place, f[place]}
local function put(name, value)
  words[#words + 1] = name
  words[#words + 1] = value
end
if answered > 0 then
  local n, total, since = string.match(f.hour or '', '^(%S+) (%S+) (%S+)$')
  local fades = since and math.exp(-math.max(0, now - tonumber(since)) / HOUR_MS) or 0
  put('hour', string.format('%.3f %.3f %.0f', (n or 0) * fades + answered, (total or 0) * fades + took, now))
end
if failed > 0 then
  put('fault_at', ms(now))
  put('healthy_at', ms(now + tonumber(ARGV[10])))
  if ARGV[11] ~= '' then put('fault', ARGV[11]) end
end

-- Whether chance alone brings about such a row of failures, as the calls before it went.
local function is_chance(row, calls, bad)
  local before, bad_before = calls - row, bad - row
  if before < ENOUGH or bad_before < FLAKY * before then return false end
  return (bad_before / before) ^ row * calls >= RARE
end

local gone, word, wait = {}, '', 0
-- A probe may take longer than the next one waits for it: any since the breaker opened counts.
local is_probe = f.state == 'open' and tonumber(ARGV[6])
  and tonumber(ARGV[6]) > (tonumber(f.since) or 0)
local function open()
  put('state', 'open')
  if f.state ~= 'open' then put('down_at', ms(now)) end
  put('shut_at', ms(now))
  put('retry_at', ms(now + open_ms))
  put('fence', (tonumber(f.fence) or 0) + 1)
  put('since', (tonumber(f.fence) or 0) + 1)
  put('row', 0)
  gone = {'probe', 'probe_until'}
  wait = open_ms
end
if is_probe and failed > 0 then
  word = 'open'
  open()
elseif is_probe then
  word = 'closed'
  put('row', 0)
  gone = {'state', 'shut_at', 'retry_at', 'probe', 'probe_until', 'down_at'}
  -- What failed before says nothing any more.
  for n = 0, SLOTS - 1 do
    if 'slot' .. n ~= place then gone[#gone + 1] = 'slot' .. n end
  end
  put(place, string.format('%d %d 0 %.0f', slot, answered, took))
elseif f.state == 'open' then
  word, wait = 'open', math.max(1, tonumber(f.retry_at) - now)
else
  local row = (answered > 0 and 0 or tonumber(f.row) or 0) + failed
  local all_ok, all_bad = 0, 0
  for n = 0, SLOTS - 1 do
    local of_slot, of_slot_bad = counts('slot' .. n)
    all_ok, all_bad = all_ok + of_slot, all_bad + of_slot_bad
  end
  local calls = all_ok + all_bad
  put('row', row)
  local is_down = row >= most and not is_chance(row, calls, all_bad)
  if most > 0 and failed > 0 and (is_down or calls >= ENOUGH and all_bad >= share * calls) then
    word = 'opened'
    open()
  end
end
redis.call('HSET', KEYS[1], unpack(words))
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
redis.call('PEXPIRE', KEYS[1], KEPT_MS)
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - KEPT_MS)
redis.call('PEXPIRE', KEYS[2], KEPT_MS)
if word == 'opened' or word == 'closed' then
  -- Who waits may go, or go elsewhere.
  local provider = string.match(ARGV[2], '^[^/]*/')
  each_waiting_queue(function(queue, pool)
    if string.sub(pool, 1, #provider) == provider then
      index.reopen({queue .. ' ' .. pool})
      wake_workers(queue)
    end
  end)
end
return {word, math.ceil(wait)}
