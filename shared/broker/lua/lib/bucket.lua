-- Purpose: buckets: how much of each measure a scope has left, and how long a job has to wait for it.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions. What they
--   change is written by `save_buckets`, once for each bucket.
--
-- A bucket holds its capacity at most and fills by its rate. An amount over the capacity is taken
-- when the bucket is full, and leaves a debt. Our bucket of a provider is a little smaller than the
-- provider's own, so that delays between grant and arrival meet no refusal. The provider's own is a
-- second deep where nothing else is known, and as deep as its headers show where they do
-- (`lib/depth`). How a bucket fills is decided in `filled`; producer/waits/levels.py shows the same
-- figures, and a test compares the two.
-- @include lib/depth
-- @include lib/full
-- @include lib/limits
-- @include lib/ticket
local KEPT_MS = 2 * FIGURES.DAY_MS
local RAMPED = {}
for _, measure in ipairs(FIGURES.RAMPED) do RAMPED[measure] = true end

local OF_CALLER = {tenant = true, user = true, tier = true, key = true}

-- A bucket is named `scope#key` in grants; `key` is empty where the scope is no provider's.
local buckets = {}
local function bucket_of(scope, key)
  local name = scope .. '#' .. key
  local bucket = buckets[name]
  if bucket then return bucket end
  bucket = {name = name, stored_at = KEY.bucket(scope, key), measures = {},
    of_caller = OF_CALLER[string.match(scope, '^%a+')]}
  local running = 0
  local fields = redis.call('HGETALL', bucket.stored_at)
  for i = 1, #fields, 2 do
    if fields[i] == 'running' then
      running = tonumber(fields[i + 1])
    else
      local measure, field = string.match(fields[i], '^([%w_]+)%.([%w_]+)$')
      if measure then
        local state = bucket.measures[measure] or {}
        state[field] = tonumber(fields[i + 1])
        bucket.measures[measure] = state
      end
    end
  end
  bucket.running = math.max(0, running)
  buckets[name] = bucket
  return bucket
end

local FIELDS = {'level', 'at', 'total', 'use', 'day', 'used', 'mark', 'mark_at', 'step', 'wave',
  'wave_at', 'proven'}
-- Written where a provider has told of its limits.
local TOLD = {'seen', 'top', 'top_at', 'before', 'sum', 'sum_high', 'floor', 'told_at', 'fixed',
  'window_at', 'share', 'share_at', 'left', 'left_at', 'floor_of'}
local function save_buckets()
  for _, bucket in pairs(buckets) do
    if bucket.changed then
      local words = {'running', bucket.running}
      local function write(measure, state, fields)
        for _, field in ipairs(fields) do
          if state[field] then
            words[#words + 1] = measure .. '.' .. field
            words[#words + 1] = string.format('%.3f', state[field])
          end
        end
      end
      for measure, state in pairs(bucket.measures) do
        write(measure, state, FIELDS)
        if state.learned then write(measure, state, TOLD) end
      end
      redis.call('HSET', bucket.stored_at, unpack(words))
      redis.call('PEXPIRE', bucket.stored_at, KEPT_MS)
    end
  end
end

-- Adds to a scope which of its measures are limited, by its limits or as its provider has told.
local function scope_of(scope)
  local limited = {}
  for _, measure in ipairs(MEASURES) do
    if scope.config[measure] or scope.bucket.measures[measure] then limited[#limited + 1] = measure end
  end
  scope.limited = limited
  return scope
end

local function lower(a, b)
  if a and b then return math.min(a, b) end
  return a or b
end

-- What the vendors' rule of growth allows of a large limit now, where the operator asks for it.
local function ramped(scope, measure, state)
  local from = scope.config.ramp_from
  if not from or not RAMPED[measure] or state.limit <= from then return state.limit end
  local fades = math.exp(-math.max(0, now - (state.at or now)) / FIGURES.RAMP_MS)
  state.use = math.max((state.use or 0) * fades, from / FIGURES.RAMP_GROWTH) -- it grows from there
  return math.min(state.limit, math.max(from, FIGURES.RAMP_GROWTH * state.use))
end

-- The share of the rate, or of a window, that is used: less after a refusal, and more with time.
local function share_of(state)
  local most = state.is_fixed and 1 or FIGURES.RATE
  if not state.share then return most end
  return math.min(most, state.share + math.max(0, now - (state.share_at or now)) / FIGURES.SHARE_MS)
end

-- A burst goes in waves, each larger than the one before: a provider that cuts bursts,
-- whatever its headers show, refuses some of a wave at once and not all of the burst. What has passed
-- is proven, and may go at once the next time.
local function wave_of(state)
  local full = not state.burst_s and depth.full(state)
  if not full then return nil end
  local proven = math.max(state.proven or 0, state.rate * 1000 * FIGURES.BURST)
  if not state.wave_at or now - state.wave_at >= FIGURES.WAVE_MS or now < state.wave_at then
    if (state.wave or 0) >= FIGURES.WAVE_USED * proven then
      proven = math.min(full, proven * FIGURES.WAVE_GROWTH)
    end
    state.wave, state.wave_at = 0, now
  end
  state.proven = proven
  return state.wave
end

-- Ms until the next wave where this one has gone, or 0.
local function wait_for_wave(scope, state, amount)
  local wave = wave_of(state)
  if not wave or wave == 0 or wave + amount <= state.proven then return 0 end
  return math.max(1, math.ceil(state.wave_at + FIGURES.WAVE_MS - now))
end

-- The seconds of the rate that may go at once, or nil: as many as the provider's bucket holds. A limit
-- below the provider's own is a share of it, and the provider's bucket belongs to others, too.
local function burst_of(scope, measure, state)
  if scope.config.burst_s then return scope.config.burst_s end
  local own = scope.config[measure]
  return own and state.seen and own < FIGURES.SHARED * state.seen and 1 or nil
end

-- What our bucket of a provider holds at most: the provider's own less what may be late.
local function vendor_capacity(state, allowed)
  local second = allowed / 60
  local least = second * (state.burst_s or 1) * FIGURES.BURST
  -- While growth is slowed down nothing comes at once.
  local usable = not state.is_slowed and depth.usable(state)
  if not usable then return least end
  if state.is_fixed then return usable * share_of(state) end
  local own = usable - math.min(second, usable) * FIGURES.BURST
  return state.burst_s and math.min(least, own) or own
end

-- The bucket of a provider of fixed windows is whole at the end of each.
local function refilled(state)
  if state.is_fixed then
    local before = depth.window_of(state, state.at or now)
    local passed = math.max(0, depth.window_of(state, now) - before)
    return math.min(state.capacity, state.level + passed * state.capacity)
  end
  local since_ms = math.max(0, now - (state.at or now))
  return math.min(state.capacity, state.level + since_ms * state.rate)
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
  if scope.vendor then
    local paced = measure == 'rpm' and 1 or scope.pace
    local allowed = ramped(scope, measure, state) * paced
    state.is_slowed = allowed < limit
    state.burst_s = burst_of(scope, measure, state)
    state.is_fixed = not (state.is_slowed or state.burst_s) and depth.full(state)
      and depth.is_fixed(state)
    state.rate = allowed * share_of(state) / 60000
    state.capacity = math.max(1, vendor_capacity(state, allowed))
  else
    state.rate = limit / 60000
    state.capacity = math.max(1, limit / 60 * (scope.config.burst_s or FIGURES.OWN_BURST_S))
  end
  if not state.level then
    -- A provider's bucket that is new here may be empty there: it begins with the first request.
    state.level = scope.vendor and math.min(state.capacity, amount) or state.capacity
  else
    state.level = refilled(state)
  end
  state.at = now
  return state
end

local function today() return math.floor(now / FIGURES.DAY_MS) end

local function wait_for_day(scope)
  local state = scope.bucket.measures.rpd
  local limit = scope.config.rpd
  if scope.vendor and state then limit = lower(limit, state.seen) end
  if limit and state and state.day == today() and (state.used or 0) + 1 > limit then
    return (today() + 1) * FIGURES.DAY_MS - now
  end
  return 0
end

-- 0, the ms until this much is there, or -1 when it never will be.
local function wait_for(scope, measure, amount)
  if measure == 'rpd' then return wait_for_day(scope) end
  local state = filled(scope, measure, amount)
  if not state or amount <= 0 then return 0 end
  if amount > state.limit then return -1 end
  local needed = math.min(amount, state.capacity)
  -- A grain of tolerance: floats must not make a full bucket wait for 1e-13 of a token.
  if state.level >= needed - 1e-6 then
    return scope.vendor and wait_for_wave(scope, state, amount) or 0
  end
  local missing = needed - state.level
  if state.is_fixed then
    local more = (math.ceil(missing / state.capacity) - 1) * depth.window_ms(state)
    return math.max(1, math.ceil(depth.window_ends(state) + more))
  end
  return math.max(1, math.ceil(missing / state.rate))
end

-- What keeps a job from being granted among these scopes: nil, or the kind of the scope and the ms;
-- `large`: it takes more than the bucket ever gets in a minute.
local function blocked_by(scopes, amounts)
  local kind, longest
  for _, scope in ipairs(scopes) do
    for _, measure in ipairs(scope.limited) do
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

-- One request more (`sign` 1) or fewer (-1) counts in this day.
local function count_of_day(scope, sign)
  local state = scope.bucket.measures.rpd or {}
  if not (scope.config.rpd or state.seen) then return end
  if state.day ~= today() then state.day, state.used = today(), 0 end
  state.used = math.max(0, (state.used or 0) + sign)
  scope.bucket.measures.rpd = state
end

-- Keeps in `step` how much was granted within a second lately: so much may be on its way.
local function mark(state)
  local total = state.total or 0
  local since_s = (now - (state.mark_at or 0)) / 1000
  if since_s < 1 and since_s >= 0 then return end
  local granted = total - (state.mark or total)
  state.step = math.max((state.step or 0) * FIGURES.STEP_FADES ^ math.min(60, math.abs(since_s)), granted)
  state.mark, state.mark_at = total, now
end

-- Takes these amounts from the buckets of a scope; with `sign` -1 gives them back. Returns whether
-- tokens are limited there.
local function take_from(scope, amounts, sign)
  local any_tokens = false
  for _, measure in ipairs(scope.limited) do
    local amount = amounts[measure]
    local state = measure ~= 'rpd' and filled(scope, measure, amount)
    if measure == 'rpd' then
      count_of_day(scope, sign)
    elseif state then
      state.level = math.min(state.capacity, state.level - sign * amount)
      if scope.vendor then
        mark(state)
        if sign > 0 and wave_of(state) then state.wave = state.wave + amount end
      end
      state.total = (state.total or 0) + sign * amount
      if state.use then state.use = state.use + sign * amount * 60000 / FIGURES.RAMP_MS end
      any_tokens = any_tokens or measure ~= 'rpm'
    end
  end
  return any_tokens
end

-- The limits that bind a caller: of its tenant, and where they were not charged when the job was let
-- in, of its user, its tier and its gateway key.
local callers = {}
local function caller_scopes(ticket)
  if ticket.scopes then return ticket.scopes end
  local paid = has_flag(ticket, 'p')
  local name = ticket.tenant .. '|' .. ticket.user .. '|' .. ticket.tier .. '|' .. (paid and 'p' or ticket.model)
    .. '|' .. (ticket.gateway_key or '')
  local scopes = callers[name]
  ticket.scopes = scopes
  if scopes then return scopes end
  scopes = {}
  local function add(kind, scope, bucket, fallback)
    local config = config_of(scope, fallback)
    if next(config) then
      scopes[#scopes + 1] = scope_of({kind = kind, config = config, pace = 1, bucket = bucket_of(bucket, '')})
    end
  end
  add('tenant', 'tenant/' .. ticket.tenant, 'tenant/' .. ticket.tenant, 'tenant/*')
  local key = ticket.gateway_key and 'key/' .. ticket.gateway_key
  if key and not paid then add('user', key, key) end
  if not paid then
    local who = ticket.tenant .. '/' .. ticket.user
    if ticket.user ~= '' then add('user', 'user/' .. who, 'user/' .. who) end
    if ticket.tier ~= '' then
      local tier = 'tier/' .. ticket.tier
      add('user', tier, tier .. '/' .. who)
      add('user', tier .. '/' .. ticket.model, tier .. '/' .. who .. '/' .. ticket.model)
      if ticket.base then
        add('user', tier .. '/' .. ticket.base, tier .. '/' .. who .. '/' .. ticket.base)
      end
    end
  end
  callers[name], ticket.scopes = scopes, scopes
  return scopes
end

-- What a ticket takes of each measure, by what was learned of such answers.
local learned = {}
local function amounts_of(ticket)
  local known = learned[ticket.model .. '|' .. ticket.tenant]
  if not known then
    local out = 'out|' .. ticket.model .. '|'
    local found = redis.call('HMGET', KEY.learned, out .. ticket.tenant .. '|', out .. '*|',
      'in|' .. ticket.model)
    known = {output = tonumber(found[1] or found[2] or FIGURES.DEFAULT_OUTPUT),
      ratio = tonumber(found[3] or 1)}
    learned[ticket.model .. '|' .. ticket.tenant] = known
  end
  local input = math.ceil(ticket.input * known.ratio)
  local output = ticket.output
  if ticket.rule == 'a' then output = math.min(output, known.output) end
  return {rpm = 1, tpm = input + output, input_tpm = input, output_tpm = output, rpd = 1}
end
