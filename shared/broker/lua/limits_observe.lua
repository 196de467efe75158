-- Purpose: applies what a provider said of its limits, in the headers of an answer or in a refusal.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 pool, 3 key, 4 kind (ok, limited, slow, overloaded,
--   money, flex), 5 ms to wait before the next request or -1 (money: Unix ms of the reset date or
--   -1), 6 ms of the server's clock when the request was granted, then for each measure: its name,
--   the limit (a minute, rpd: a day), what remains, the rounding of that, and the total that was
--   granted when the request was, or -1.
-- Result: 1. Sent twice: says the same again; a pace or a ceiling is lowered once a second at most.
--
-- What a provider has left was true when it took the request in. Since then its bucket has filled by
-- its rate, and what was granted after it is on its way. The difference shows what others use of the
-- same key, estimates that are too low, and a limit that was changed. Levels are only ever lowered:
-- the provider does not know of what is granted and still on its way, so raising a level would hand
-- that out twice (measured: 47 refusals per 100 with workers that lag by a second).
-- @include lib/gate
local PROBE_MS = 300000 -- until the first probe of a gate that is out of money
local pool, key, kind, wait = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local granted_at = tonumber(ARGV[6])
local scopes = vendor_scopes(pool, key)
local scope, gate = scopes[1], scopes.gate
local FLEX_MS = 30000
local NEVER_MS = 4102444800000 -- the year 2100: until an operator opens it
-- Seconds of the rate by which the provider may know of more than we do: requests overtake others.
local SLACK_S = 0.25
-- A provider's bucket holds more than the catalog says when it was that much deeper in debt.
local SPARE = 1.2

for i = 7, #ARGV, 5 do
  local measure = ARGV[i]
  local limit, remaining, grain = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local total = tonumber(ARGV[i + 4])
  local state = scope.bucket.measures[measure] or {}
  scope.bucket.measures[measure] = state
  scope.bucket.changed = true
  if measure == 'rpd' then
    local day = today()
    state.seen = limit
    if state.day ~= day then state.day, state.used = day, 0 end
    state.used = math.max(state.used or 0, limit - remaining)
  else
    state.seen = limit
    state.filled = nil
    state = filled(scope, measure, 0)
    local missing = limit - remaining
    -- As deep in debt as it was and took a request in all the same, it has burst to spare.
    if kind == 'ok' then state.deep = math.max(state.deep or 0, missing) end
    -- Less than the burst that we know of is none to spare: there others may use the same key.
    local deep = state.deep or 0
    if deep <= SPARE * state.rate * 1000 * (scope.config.burst_s or 1) then deep = 0 end
    local slack = math.max(SLACK_S * state.rate * 1000, deep / 2, grain)
    if total >= 0 then missing = missing + math.max(0, (state.total or 0) - total) end
    missing = missing - math.max(0, now - granted_at) * state.rate - slack
    state.level = math.min(state.level, state.capacity - missing)
  end
end

local words = {}
local function note(name, value)
  words[#words + 1] = name
  words[#words + 1] = type(value) == 'number' and string.format('%.3f', value) or value
end
local function shut_until(moment, why)
  if moment > (gate['until'] or 0) or why == 'money' then
    note('until', moment)
    note('why', why)
  end
end
if kind == 'ok' then
  if gate.why == 'money' and granted_at >= (gate.shut_at or 0) then
    redis.call('HDEL', gate.stored_at, 'until', 'why', 'probe_at', 'shut_at')
  end
elseif kind == 'money' then
  shut_until(wait > now and wait or NEVER_MS, 'money')
  note('probe_at', now + PROBE_MS)
  -- Later refusals of those that were on their way do not make an answer to the probe an old one.
  if gate.why ~= 'money' or gate['until'] <= now then note('shut_at', now) end
else
  if kind == 'flex' and wait < 0 then wait = FLEX_MS end
  -- Too much load there says nothing of our share: calls at once are lowered, the rest goes on.
  if wait >= 0 and kind ~= 'overloaded' then shut_until(now + wait, kind) end
  if kind == 'limited' then
    -- The provider's bucket is empty: those who wait come at its rate, not at once.
    for _, measure in ipairs(MEASURES) do
      local state = measure ~= 'rpd' and filled(scope, measure, 0)
      if state then
        state.level = math.min(state.level, 0)
        state.deep = (state.deep or 0) / 2
        scope.bucket.changed = true
      end
    end
    if wait < 0 then shut_until(now + 250, kind) end
  elseif kind == 'slow' and now - (gate.pace_at or 0) > 1000 then
    note('pace', math.max(0.05, gate.pace_now / 2))
    note('pace_at', now)
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
return 1
