-- Purpose: buckets, gates and holds; this stands before the scripts that grant, settle or observe.
-- KEYS and ARGV: those of the script that follows, which sets `prefix` and `now`.
-- Result: none; it defines functions. What they change is written by `save`, once for each bucket.
--
-- A bucket holds its capacity at most and fills by its rate. An amount over the capacity is taken
-- when the bucket is full and leaves a debt. A provider's bucket is told here a little smaller than
-- the provider's own, so that delays between grant and arrival meet no refusal.
-- Share of the provider's rate that is used: what its clock and ours may differ by.
local RATE = 0.998
-- Share of a second's burst that is used: a granted request reaches the provider within the rest.
local BURST = 0.5
-- Seconds of the rate that a caller's own bucket holds.
local OWN_BURST_S = 60
-- OpenAI: above a million input tokens a minute, growth of over 50 % in 15 minutes may be refused.
-- 1.4 times the mean of the last 15 minutes grows by e^0.4 = 1.49 in that time.
local RAMP_FROM, RAMP_GROWTH, RAMP_MS = 1000000, 1.4, 900000
-- A halved pace is whole again after 15 minutes, a lowered ceiling after a minute.
local PACE_MS, CEILING_S = 1800000, 60
local PROBE_MS = 300000
local KEPT_MS = 172800000
local DEFAULT_OUTPUT = 256

local MEASURES = {'rpm', 'tpm', 'input_tpm', 'output_tpm', 'rpd'}
local RAMPED = {tpm = true, input_tpm = true}

-- Limits: measure to number, of a scope; an operator's word is laid over the catalog's.
local configs, any_override = {}, nil
local function laid(config, text)
  for name, amount in string.gmatch(text or '', '([%w_]+)=([%w.]+)') do
    config[name] = tonumber(amount)
  end
end
local function config_of(scope, fallback)
  local config = configs[scope]
  if config then return config end
  config = {}
  local found = redis.call('HMGET', prefix .. 'headgate:limits', scope, fallback or scope)
  laid(config, found[1] or found[2])
  if any_override == nil then
    any_override = redis.call('HLEN', prefix .. 'headgate:limits:set') > 0
  end
  if any_override then
    local set = redis.call('HMGET', prefix .. 'headgate:limits:set', scope, fallback or scope)
    if not found[1] then laid(config, set[2]) end
    laid(config, set[1])
  end
  configs[scope] = config
  return config
end

local buckets = {}
local function bucket_of(name)
  local bucket = buckets[name]
  if bucket then return bucket end
  local running = 0
  bucket = {measures = {}}
  local fields = redis.call('HGETALL', prefix .. 'headgate:bucket:' .. name)
  for i = 1, #fields, 2 do
    if fields[i] == 'running' then
      running = tonumber(fields[i + 1])
    else
      local measure, part = string.match(fields[i], '^([%w_]+)%.(%w+)$')
      if measure then
        local state = bucket.measures[measure] or {}
        state[part] = tonumber(fields[i + 1])
        bucket.measures[measure] = state
      end
    end
  end
  bucket.running = math.max(0, running)
  buckets[name] = bucket
  return bucket
end

-- Holds that were taken in this call: id and grant, in turns.
local holds = {}
local function put_in_chunks(command, key, words)
  for first = 1, #words, 1000 do
    redis.call(command, key, unpack(words, first, math.min(first + 999, #words)))
  end
end

local function save()
  put_in_chunks('HSET', prefix .. 'headgate:holds', holds)
  holds = {}
  money.save()
  for name, bucket in pairs(buckets) do
    if bucket.changed then
      local words = {'running', bucket.running}
      for measure, state in pairs(bucket.measures) do
        for _, part in ipairs({'level', 'at', 'total', 'seen', 'use', 'deep', 'day', 'used'}) do
          if state[part] then
            words[#words + 1] = measure .. '.' .. part
            words[#words + 1] = string.format('%.3f', state[part])
          end
        end
      end
      local key = prefix .. 'headgate:bucket:' .. name
      redis.call('HSET', key, unpack(words))
      redis.call('PEXPIRE', key, KEPT_MS)
    end
  end
end

local gates = {}
local function gate_of(pool, key)
  local name = pool .. '#' .. key
  local gate = gates[name]
  if gate then return gate end
  gate = {}
  local fields = redis.call('HGETALL', prefix .. 'headgate:gate:' .. name)
  for i = 1, #fields, 2 do gate[fields[i]] = tonumber(fields[i + 1]) or fields[i + 1] end
  gate.pace_now = 1
  if gate.pace then
    gate.pace_now = math.min(1, gate.pace + math.max(0, now - gate.pace_at) / PACE_MS)
  end
  if gate.ceiling then
    local missing = math.max(1, gate.ceiling_from - gate.ceiling)
    local grown = math.max(0, now - gate.ceiling_at) / 1000 * math.max(1, missing / CEILING_S)
    if grown < 2 * missing then gate.ceiling_now = gate.ceiling + math.floor(grown) end
  end
  gates[name] = gate
  return gate
end

local function lower(a, b)
  if a and b then return math.min(a, b) end
  return a or b
end

-- The state of a measure with its level of now, or nil where nothing limits it.
local function filled(scope, measure, amount)
  local state = scope.bucket.measures[measure]
  local limit = scope.config[measure]
  if scope.vendor and state then limit = lower(limit, state.seen) end
  if not limit then return nil end
  if not state then
    state = {}
    scope.bucket.measures[measure] = state
  end
  if state.filled == now then return state end
  state.filled, state.limit = now, limit
  local allowed, burst = limit, scope.config.burst_s or OWN_BURST_S
  if scope.vendor then
    burst = (scope.config.burst_s or 1) * BURST
    if RAMPED[measure] then
      local from = scope.config.ramp_from or RAMP_FROM
      if limit > from then
        local use = (state.use or 0) * math.exp(-math.max(0, now - (state.at or now)) / RAMP_MS)
        use = math.max(use, from / RAMP_GROWTH) -- it begins to grow from there
        state.use = use
        allowed = math.min(limit, math.max(from, RAMP_GROWTH * use))
      end
    end
    allowed = allowed * RATE * (measure == 'rpm' and 1 or scope.pace)
  end
  state.rate = allowed / 60000
  state.capacity = math.max(1, allowed / 60 * burst)
  if not state.level then
    -- A provider's bucket that is new here may be empty there: it begins with the first request.
    state.level = scope.vendor and math.min(state.capacity, amount) or state.capacity
  else
    local since = math.max(0, now - (state.at or now))
    state.level = math.min(state.capacity, state.level + since * state.rate)
  end
  state.at = now
  return state
end

local MIDNIGHT_MS = 86400000
-- 0, the ms until this much is there, or -1 when it will never be.
local function wait_for(scope, measure, amount)
  if measure == 'rpd' then
    local limit = scope.config.rpd
    local state = scope.bucket.measures.rpd
    if scope.vendor and state then limit = lower(limit, state.seen) end
    if not limit then return 0 end
    local day = math.floor(now / MIDNIGHT_MS)
    if state and state.day == day and (state.used or 0) + 1 > limit then
      return (day + 1) * MIDNIGHT_MS - now
    end
    return 0
  end
  local state = filled(scope, measure, amount)
  if not state or amount <= 0 then return 0 end
  if amount > state.limit then return -1 end
  local needed = math.min(amount, state.capacity)
  -- A grain of tolerance: floats must not make a full bucket wait for 1e-13 of a token.
  if state.level >= needed - 1e-6 then return 0 end
  return math.max(1, math.ceil((needed - state.level) / state.rate))
end

local function provider_of(pool)
  return string.match(pool, '^[^/]+') or pool
end
local function without_flex(pool)
  return (string.gsub(pool, '~flex$', ''))
end

local callers = {}
local function caller_scopes(ticket)
  local paid = string.find(ticket.flags, 'p', 1, true)
  local name = ticket.tenant .. '|' .. ticket.user .. '|' .. ticket.tier .. '|' .. (paid and 'p' or ticket.model)
  local scopes = callers[name]
  if scopes then return scopes end
  scopes = {}
  local function add(kind, scope, bucket, fallback)
    local config = config_of(scope, fallback)
    if next(config) then
      scopes[#scopes + 1] = {kind = kind, name = bucket .. '#', config = config, pace = 1, bucket = bucket_of(bucket .. '#')}
    end
  end
  add('tenant', 'tenant/' .. ticket.tenant, 'tenant/' .. ticket.tenant, 'tenant/*')
  if not paid then
    local who = ticket.tenant .. '/' .. ticket.user
    if ticket.user ~= '' then add('user', 'user/' .. who, 'user/' .. who) end
    if ticket.tier ~= '' then
      local tier = 'tier/' .. ticket.tier
      add('user', tier, tier .. '/' .. who)
      add('user', tier .. '/' .. ticket.model, tier .. '/' .. who .. '/' .. ticket.model)
    end
  end
  callers[name] = scopes
  return scopes
end

local vendors = {}
local function vendor_scopes(pool, key)
  local scopes = vendors[pool .. '#' .. key]
  if scopes then return scopes end
  local gate = gate_of(pool, key)
  scopes = {gate = gate}
  local function add(scope, name, vendor)
    local bucket = bucket_of(name)
    scopes[#scopes + 1] = {kind = 'pool', name = name, config = config_of(scope), vendor = vendor,
      pace = vendor and gate.pace_now or 1, bucket = bucket}
  end
  local plain = without_flex(pool)
  add('pool/' .. plain, 'pool/' .. plain .. '#' .. key, true)
  local provider = 'provider/' .. provider_of(pool)
  if next(config_of(provider)) then add(provider, provider .. '#' .. key, true) end
  if next(config_of('global')) then add('global', 'global#', false) end
  vendors[pool .. '#' .. key] = scopes
  return scopes
end

local learned = {}
local function amounts_of(ticket)
  local known = learned[ticket.model .. '|' .. ticket.tenant]
  if not known then
    local out = 'out|' .. ticket.model .. '|'
    local found = redis.call('HMGET', prefix .. 'headgate:learned', out .. ticket.tenant .. '|',
      out .. '*|', 'in|' .. ticket.model)
    known = {output = tonumber(found[1] or found[2] or DEFAULT_OUTPUT), ratio = tonumber(found[3] or 1)}
    learned[ticket.model .. '|' .. ticket.tenant] = known
  end
  local input = math.ceil(ticket.input * known.ratio)
  local output = ticket.output
  if ticket.rule == 'a' then output = math.min(output, known.output) end
  return {rpm = 1, tpm = input + output, input_tpm = input, output_tpm = output, rpd = 1}
end

-- What keeps a job from being granted among these scopes: nil, or kind, ms, scope; `large` never.
local function blocked_by(scopes, amounts)
  local kind, longest
  for _, scope in ipairs(scopes) do
    for _, measure in ipairs(MEASURES) do
      local wait = wait_for(scope, measure, amounts[measure])
      if wait < 0 then return 'large', 0 end
      if wait > 0 and (not longest or wait > longest) then kind, longest = scope.kind, wait end
    end
    local most = scope.config.concurrent
    if most and scope.bucket.running >= most and not longest then
      kind, longest = scope.kind, 1000
    end
  end
  return kind, longest
end

-- As above for the gate of a pool, with the ms until it opens in any case. Of one that is out of
-- money a probe may go through before that.
local function shut_for(scopes)
  local gate = scopes.gate
  if gate['until'] and now < gate['until'] then
    local wait = gate['until'] - now
    if gate.why ~= 'money' then return 'pool', math.ceil(wait), wait end
    if now >= (gate.probe_at or 0) then return nil end
    return 'pool', math.ceil(math.min(wait, gate.probe_at - now)), wait
  end
  if gate.ceiling_now and scopes[1].bucket.running >= gate.ceiling_now then return 'pool', 1000 end
  return nil
end

local key_counts = {}
local function keys_of(pool)
  if not key_counts[pool] then
    key_counts[pool] = math.max(1, config_of('keys/' .. provider_of(pool)).n or 1)
  end
  return key_counts[pool]
end

local turn = 0
-- nil and the key that serves this job now; or what blocks it: kind, ms, ms until it surely ends;
-- `broken`: its model is down on every key that could serve it; `large`: no key ever serves it, which is told also while their gates are shut.
local function find_key(ticket, amounts)
  local count = keys_of(ticket.pool)
  local kind, shortest, nearest = 'large', nil, nil
  turn = turn + 1
  for n = 1, count do
    local key = 'key' .. (math.floor(now) + turn + n) % count
    local scopes = vendor_scopes(ticket.pool, key)
    local why, wait, far = shut_for(scopes)
    local broken = breaker.shut(ticket, key)
    if broken and not why then why, wait, far = 'broken', broken, broken end
    local lacks, ms = blocked_by(scopes, amounts)
    if not (why or lacks) then return nil, key end
    if lacks ~= 'large' then
      if not why then why, wait = lacks, ms end
      far = far or wait
      if not shortest or kind == 'broken' and why ~= 'broken' or wait < shortest and why ~= 'broken' then
        kind, shortest = why, wait
      end
      if not nearest or far < nearest then nearest = far end
    end
  end
  return kind, shortest or 0, nearest or 0
end

local HOLDS = 'headgate:holds'
-- Pool, model, key, flags and money of a grant. Release 0.1 wrote no money: it finds nothing there.
local HELD = '^[^|]*|([^|]*)|([^|]*)|([^|]*)|' .. string.rep('[^|]*|', 7) .. '([^|]*)|'
  .. string.rep('[^|]*|', 5) .. '([^|]*)|[^|]*|[^|]*$'

-- A caller that had as many calls as it may have has one fewer: whoever was passed over for that
-- is tried again.
local function try_again(tenant, user)
  for _, room in ipairs(redis.call('HKEYS', prefix .. 'headgate:rooms')) do
    local parked = prefix .. 'headgate:room:' .. room .. ':parked'
    if redis.call('ZADD', parked, 'XX', 'CH', 0, 't|' .. tenant, 0, 'u|' .. tenant .. '|' .. user) > 0 then
      local wake = prefix .. 'headgate:wake:' .. string.match(room, '^(.*) ')
      redis.call('RPUSH', wake, '1')
      redis.call('LTRIM', wake, 0, 0)
    end
  end
end

-- The holds of these jobs have ended: what they took stays spent, the calls that run are fewer.
-- Returns whether there were any.
local function release(ids)
  local any = false
  local grants = redis.call('HMGET', prefix .. HOLDS, unpack(ids))
  local done = {} -- an id may be named twice
  for i, grant in ipairs(grants) do
    if grant and not done[ids[i]] then
      any, done[ids[i]] = true, true
      local of_caller = false
      for name in string.gmatch(string.match(grant, '[^|]*$'), '[^,]+') do
        local bucket = bucket_of(name)
        bucket.running = math.max(0, bucket.running - 1)
        bucket.changed = true
        local kind = string.match(name, '^%a+')
        of_caller = of_caller or kind == 'tenant' or kind == 'user' or kind == 'tier'
      end
      local pool, model, key, flags, spent = string.match(grant, HELD)
      if flags and flags ~= '' then breaker.release(ids[i], pool, model, key, flags) end
      if spent and spent ~= '' then money.release(spent) end
      if of_caller then try_again(string.match(grant, '^' .. string.rep('[^|]*|', 8) .. '([^|]*)|([^|]*)')) end
    end
  end
  if any then redis.call('HDEL', prefix .. HOLDS, unpack(ids)) end
  return any
end

-- The job holds these amounts in all its buckets; returns its grant. Nothing runs for a worker that
-- asks for one more attempt after its lease: what it takes is spent, and nobody would end its hold.
local function take(id, ticket, amounts, key, attempt)
  if attempt then release({id}) end
  local is_held = not attempt or redis.call('HEXISTS', prefix .. 'headgate:owners', id) == 1
  local vendor = vendor_scopes(ticket.pool, key)
  local running, settles = {}, '0'
  local function from(scope)
    for _, measure in ipairs(MEASURES) do
      local amount = amounts[measure]
      if measure == 'rpd' then
        if scope.config.rpd or (scope.bucket.measures.rpd or {}).seen then
          local state = scope.bucket.measures.rpd or {}
          local day = math.floor(now / MIDNIGHT_MS)
          if state.day ~= day then state.day, state.used = day, 0 end
          state.used = (state.used or 0) + 1
          scope.bucket.measures.rpd = state
        end
      else
        local state = filled(scope, measure, amount)
        if state then
          state.level = state.level - amount
          state.total = (state.total or 0) + amount
          if state.use then state.use = state.use + amount * 60000 / RAMP_MS end
          if measure ~= 'rpm' and (ticket.rule == 'a' or not scope.vendor) then settles = '1' end
        end
      end
    end
    if is_held and (scope.name == vendor[1].name or scope.config.concurrent) then
      scope.bucket.running = scope.bucket.running + 1
      running[#running + 1] = scope.name
    end
    scope.bucket.changed = true
  end
  for _, scope in ipairs(vendor) do from(scope) end
  for _, scope in ipairs(caller_scopes(ticket)) do from(scope) end
  local gate = vendor.gate
  if gate.why == 'money' and gate['until'] and now < gate['until'] then
    gate.probe_at = now + PROBE_MS
    redis.call('HSET', prefix .. 'headgate:gate:' .. ticket.pool .. '#' .. key, 'probe_at',
      string.format('%.0f', gate.probe_at))
  end
  local function total(measure)
    local state = vendor[1].bucket.measures[measure]
    return state and state.total or ''
  end
  local paid = string.find(ticket.flags, 'p', 1, true) and 'p' or ''
  if string.find(ticket.flags, 'w', 1, true) then paid = paid .. 'w' end
  paid = paid .. breaker.take(id, ticket, key)
  local grant = table.concat({'held', ticket.pool, ticket.model, key, ticket.rule, settles,
    amounts.input_tpm, amounts.output_tpm, ticket.tenant, ticket.user, ticket.tier, paid,
    math.floor(now), total('rpm'), total('tpm'), total('input_tpm'), total('output_tpm'),
    money.take(id, ticket, is_held), attempt or '', table.concat(running, ',')}, '|')
  if is_held then
    holds[#holds + 1] = id
    holds[#holds + 1] = grant
  end
  return grant
end
