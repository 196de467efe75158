-- Purpose: the gate of a pool: whether its provider may be asked with a key now, and how fast.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
-- @include lib/bucket
-- @include lib/breaker
--
-- The hash of a gate: `until` (server ms before which nobody may ask), `why` (`limited`, `slow`,
-- `flex`, `money`), `pace` and `pace_at` (a lowered rate of tokens), `ceiling`, `ceiling_from` and
-- `ceiling_at` (fewer calls at once). A gate that one request tests before others may ask has besides
-- `probe_at` (from which the next test may go), `shut_at`, and where its provider asked for a longer
-- wait than ours, `asked` (the moment that it named).
local gates = {}
local function gate_of(pool, key)
  local name = pool .. '#' .. key
  local gate = gates[name]
  if gate then return gate end
  gate = {stored_at = KEY.gate(pool, key)}
  local fields = redis.call('HGETALL', gate.stored_at)
  for i = 1, #fields, 2 do gate[fields[i]] = tonumber(fields[i + 1]) or fields[i + 1] end
  gate.pace_now = 1
  if gate.pace then
    local quarters = math.max(0, now - (gate.pace_at or now)) / FIGURES.PACE_MS
    local grown = FIGURES.PACE_GROWTH ^ math.min(96, quarters)
    gate.pace_now = math.min(1, gate.pace * grown)
  end
  if gate.ceiling then
    local missing = math.max(1, gate.ceiling_from - gate.ceiling)
    local since_s = math.max(0, now - gate.ceiling_at) / 1000
    local grown = since_s * math.max(1, missing / FIGURES.CEILING_S)
    if grown < 2 * missing then gate.ceiling_now = gate.ceiling + math.floor(grown) end
  end
  gates[name] = gate
  return gate
end

-- The limits that bind all who ask a provider with this key: of the pool (the first), of the
-- provider, and of the whole installation. `gate`: that of the pool.
local vendors = {}
local function vendor_scopes(pool, key)
  local of_pool = vendors[pool]
  if not of_pool then
    of_pool = {}
    vendors[pool] = of_pool
  end
  local scopes = of_pool[key]
  if scopes then return scopes end
  local gate = gate_of(pool, key)
  scopes = {gate = gate}
  local function add(scope, of_key, vendor)
    scopes[#scopes + 1] = scope_of({kind = 'pool', config = config_of(scope), vendor = vendor,
      pace = vendor and gate.pace_now or 1, bucket = bucket_of(scope, of_key)})
  end
  add('pool/' .. without_flex(pool), key, true)
  local provider = 'provider/' .. provider_of(pool)
  if next(config_of(provider)) then add(provider, key, true) end
  if next(config_of('global')) then add('global', '', false) end
  of_pool[key] = scopes
  return scopes
end

-- Whether one request tests the gate before all others may ask: of a pool that is out of money, or
-- whose provider asked for too long a wait.
local function is_tested_gate(gate)
  local last = gate.asked or gate['until']
  return last and now < last and (gate.asked or gate.why == 'money') and true or false
end

local function open_gate(gate)
  redis.call('HDEL', gate.stored_at, 'until', 'why', 'probe_at', 'shut_at', 'asked')
  gate['until'], gate.why, gate.probe_at, gate.shut_at, gate.asked = nil, nil, nil, nil, nil
end

-- What keeps the gate of these scopes shut, the ms to wait, and the ms until it opens in any case;
-- or nil. The test of a gate may go through before that.
local function shut_for(scopes)
  local gate = scopes.gate
  if is_tested_gate(gate) then
    if now >= (gate.probe_at or 0) then return nil end
    local wait = (gate.asked or gate['until']) - now
    return 'pool', math.ceil(math.min(wait, gate.probe_at - now)), wait
  elseif gate['until'] and now < gate['until'] then
    local wait = gate['until'] - now
    return 'pool', math.ceil(wait), wait
  end
  if gate.ceiling_now and scopes[1].bucket.running >= gate.ceiling_now then return 'pool', 1000 end
  return nil
end

-- What keeps a job from being granted with this key: nil, or kind, ms to wait, ms until it surely
-- ends. `large`: this key never serves it.
local function blocked_at(ticket, amounts, key)
  local scopes = vendor_scopes(ticket.pool, key)
  local why, wait, far = shut_for(scopes)
  local broken = breaker.shut(ticket, key)
  if broken and not why then why, wait, far = 'broken', broken, broken end
  local lacks, ms = blocked_by(scopes, amounts)
  if lacks == 'large' or not (why or lacks) then return lacks, 0, 0 end
  if not why then why, wait = lacks, ms end
  return why, wait, far or wait
end

-- Nil and the key that serves this job now; or what blocks it: kind, ms, ms until it surely ends.
-- `broken`: its model is down on every key that could serve it. `large`: no key ever serves it, which
-- is answered also while their gates are shut. A pinned job is served by its own key alone.
local turn = 0
local function find_key(ticket, amounts)
  if ticket.pinned_key then
    local why, wait, far = blocked_at(ticket, amounts, ticket.pinned_key)
    if not why then return nil, ticket.pinned_key end
    return why, wait or 0, far or 0
  end
  local count = keys_of(ticket.pool)
  local kind, shortest, nearest = 'large', nil, nil
  turn = turn + 1
  for n = 1, count do
    local key = 'key' .. (whole_ms + turn + n) % count
    local why, wait, far = blocked_at(ticket, amounts, key)
    if not why then return nil, key end
    if why ~= 'large' then
      if not shortest or kind == 'broken' and why ~= 'broken' or wait < shortest and why ~= 'broken' then
        kind, shortest = why, wait
      end
      if not nearest or far < nearest then nearest = far end
    end
  end
  return kind, shortest or 0, nearest or 0
end
