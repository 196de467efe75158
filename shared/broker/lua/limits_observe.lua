-- Purpose: applies what a provider said of its limits, in the headers of an answer or in a refusal.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 pool, 3 key, 4 kind (ok, limited, slow, overloaded,
--   money, flex), 5 ms to wait before the next request or -1 (money: Unix ms of the reset date or
--   -1), 6 ms of the server's clock when the request was granted, 7 ms that the provider asked for,
--   where that is more than we wait, or -1: after the wait one request tests the pool. Then for each
--   measure: its name, the limit (a minute, rpd: a day), what remains, the rounding of that, the
--   total that was granted when the request was or -1, what the request takes, the ms until all of
--   it is there again or -1, the rounding of that, and whether these ms count from the answer (1) or
--   from the request (0).
-- Result: 1. Sent twice: says the same again; a pace, a ceiling or a share is lowered once a second
--   at most.
-- @include lib/gate
-- @include lib/told
local PROBE_MS = 300000 -- until the first probe of a gate that is out of money
local pool, key, kind, wait = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local granted_at, asked_ms = tonumber(ARGV[6]), tonumber(ARGV[7])
local scopes = vendor_scopes(pool, key)
local scope, gate = scopes[1], scopes.gate
local FLEX_MS = 30000
local NEVER_MS = 4102444800000 -- the year 2100: until an operator opens it

local told_of = {}
for i = 8, #ARGV, 9 do
  local measure = ARGV[i]
  told_of[#told_of + 1] = {measure = measure, limit = tonumber(ARGV[i + 1]),
    remaining = tonumber(ARGV[i + 2]), grain = tonumber(ARGV[i + 3]), total = tonumber(ARGV[i + 4]),
    asked = tonumber(ARGV[i + 5]), reset = tonumber(ARGV[i + 6]), reset_grain = tonumber(ARGV[i + 7]),
    of_answer = ARGV[i + 8] == '1'}
end
local any_more = told.apply(scope, told_of, kind, granted_at)

local words = {}
local function note(name, value)
  words[#words + 1] = name
  words[#words + 1] = type(value) == 'number' and string.format('%.3f', value) or value
end
local function shut_until(moment, why)
  if moment <= (gate['until'] or 0) and why ~= 'money' then return false end
  note('until', moment)
  note('why', why)
  return true
end
-- What is said of a request that was granted after a gate was shut is said of its test.
local is_tested = is_tested_gate(gate)
local is_of_test = is_tested and granted_at >= (gate.shut_at or 0)
-- The gate is shut for less than the provider asked us to wait.
local function shut_for_a_test()
  local asked = math.min(NEVER_MS, now + asked_ms)
  if not shut_until(now + wait, kind) or gate.why == 'money' then return end
  note('asked', asked)
  note('probe_at', now + wait)
  if not gate.shut_at or not is_tested then note('shut_at', now) end
end
if kind == 'ok' then
  if is_of_test then
    open_gate(gate)
    any_more = true
  end
elseif kind == 'money' then
  if gate.asked then open_gate(gate) end
  shut_until(wait > now and wait or NEVER_MS, 'money')
  note('probe_at', now + PROBE_MS)
  -- Later refusals of those that were on their way do not make an answer to the probe an old one.
  if gate.why ~= 'money' or gate['until'] <= now then note('shut_at', now) end
else
  if kind == 'flex' and wait < 0 then wait = FLEX_MS end
  -- The provider has changed its mind: what it says now holds.
  if is_of_test and gate.asked and kind ~= 'overloaded' then open_gate(gate) end
  -- Too much load there says nothing of our share: calls at once are lowered, the rest goes on.
  if wait >= 0 and kind ~= 'overloaded' then
    if asked_ms >= 0 then shut_for_a_test() else shut_until(now + wait, kind) end
  end
  if kind == 'limited' then
    told.refused(scope, told_of)
    if wait < 0 then shut_until(now + 250, kind) end
  elseif kind == 'slow' and now - (gate.pace_at or 0) > 1000 then
    note('pace', math.max(FIGURES.LEAST_PACE, math.min(gate.pace_now, told.used(scope)) / 2))
    note('pace_at', now)
    told.slowed(scope)
  elseif kind == 'overloaded' and now - (gate.ceiling_at or 0) > 1000 then
    local running = math.max(1, scope.bucket.running)
    note('ceiling', math.max(1, math.floor(math.min(gate.ceiling_now or running, running) * 0.7)))
    note('ceiling_from', math.max(running, gate.ceiling_now or 0))
    note('ceiling_at', now)
  end
end
if #words > 0 then
  redis.call('HSET', gate.stored_at, unpack(words))
  redis.call('PEXPIRE', gate.stored_at, KEPT_MS)
end
save_buckets()
if any_more then
  wake_pool(pool)
else
  index.reopen_pools({[without_flex(pool)] = true})
end
return 1
