-- Purpose: what a provider's headers and refusals say of the buckets of a pool.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- What a provider has left was true when it took the request in. Since then its bucket has filled,
-- and what was granted after the request is on its way. What was granted shortly before may be on its
-- way, too: a level is only raised by what is left after all of that. (Without that: 47 refusals per
-- 100 with workers that lag by a second.) Where only so many seconds of the rate may go at once
-- (`burst_s`), a level is never raised.
-- @include lib/bucket
local told = {}
do
  -- Seconds of the rate by which the provider may know of more than we do: requests overtake others.
  local SLACK_S = 0.25
  local TOP_MS = 1800000 -- a top counts in its half hour and in the next
  local LATE_MS = 60 -- a request that is granted so long after the end of a window is in the next
  local DRIFT = 0.002 -- how far an estimate follows one that is to be trusted less
  -- What is forgotten when the provider names another limit.
  local LEARNED = {'top', 'before', 'top_at', 'sum', 'sum_high', 'floor', 'fixed', 'window_at',
    'share', 'proven', 'left'}
  local SHARE_STEP, LEAST_SHARE = 0.01, 0.95

  local function learn_top(state, seen)
    local left = math.min(state.limit, seen.remaining + seen.asked)
    if seen.grain > 1 then left = math.max(seen.remaining, left - seen.grain) end
    if not state.top_at or now - state.top_at >= TOP_MS then
      state.before = state.top_at and now - state.top_at < 2 * TOP_MS and state.top or 0
      state.top_at = now
      -- Who uses windows up never sees one that is whole.
      if not depth.is_fixed(state) then state.top, state.sum, state.sum_high = left, nil, nil end
    end
    state.top = math.max(state.top, left)
  end

  -- Two ends of windows are as far apart as so many ms, less whole windows.
  local function off_by(state, ends_at)
    local window = depth.window_ms(state)
    local off = (ends_at - state.window_at) % window
    return off > window / 2 and off - window or off
  end

  -- A window has ended at this moment, as far as one estimate goes. `nearer`: whether it is to be
  -- trusted more than those before.
  local function window_ended(state, at, unsure, nearer)
    if not state.window_at then state.window_at = at end
    local off = off_by(state, at)
    if math.abs(off) <= unsure + math.min(250, depth.window_ms(state) / 4) then
      state.fixed = math.min(9, (state.fixed or 0) + 1)
      -- What was refused while nobody knew of the windows says nothing of what they let through.
      if state.fixed == FIGURES.SURE then state.share = 1 end
      state.window_at = state.window_at + off * (nearer(off) and 1 or DRIFT)
    else
      state.fixed = math.max(0, (state.fixed or 0) - 2)
      if state.fixed == 0 then state.window_at = at end
    end
  end

  -- What is left cannot grow by half of the bucket in a third of the time that its rate needs for
  -- that: between two such requests a window has ended.
  local function learn_jump(state, seen, granted_at)
    local before, since = state.left, granted_at - (state.left_at or granted_at)
    if since < 0 then return end
    state.left, state.left_at = seen.remaining, granted_at
    local grown = seen.remaining - (before or seen.remaining) - seen.grain
    if grown > state.top / 2 and since < depth.window_ms(state) / 6 then
      window_ended(state, granted_at + LATE_MS, 0, function() return false end)
    end
  end

  -- Of a continuous bucket what is left and what the reset says is missing are its depth together.
  -- Of a fixed window the sum changes, and the end of the window stays.
  local function learn_kind(state, seen, granted_at)
    if seen.reset < 0 or depth.window_ms(state) < 2 * seen.reset_grain then
      return learn_jump(state, seen, granted_at)
    end
    local since = math.max(0, now - granted_at)
    local reset = seen.of_answer and seen.reset + since or seen.reset
    local rate = state.limit / 60000
    local sum, unsure = seen.remaining + rate * reset, seen.grain + rate * seen.reset_grain
    state.sum = math.max(1, math.min(state.sum or math.huge, sum - unsure))
    state.sum_high = math.max(state.sum_high or 0, sum)
    if state.sum_high - state.sum < 0.3 * state.top + 2 * unsure then
      state.fixed = 0
      return
    end
    -- A request is granted before it arrives, and a moment is rounded up: the estimate nearest to
    -- the truth is the latest of the former and the soonest of the latter.
    local soonest = seen.of_answer
    window_ended(state, (soonest and now or granted_at) + seen.reset, seen.reset_grain * 1.1,
      function(off) return soonest == (off < 0) end)
  end

  -- What is never used: a request was refused with that much left. One that is let in with less
  -- shows that it can be used.
  -- An operator who sets `burst_s` says the same of all but so many seconds.
  local function learn_floor(scope, state, seen, kind)
    local left, burst_s = seen.remaining, scope.config.burst_s or 0
    if not state.floor or (state.floor_of or 0) ~= burst_s then
      local full = burst_s > 0 and depth.full(state) or 0
      state.floor, state.floor_of = math.max(0, full - state.limit / 60 * burst_s), burst_s
    end
    if kind == 'limited' and seen.is_blamed and left - seen.grain / 2 > seen.asked then
      state.floor = math.max(state.floor, left - seen.asked)
    elseif kind == 'ok' then
      state.floor = math.min(state.floor, left + seen.grain / 2)
    end
  end

  -- The level is at most what is left there, as far as that is known.
  local function mirror(state, seen, kind, granted_at)
    local full = depth.full(state)
    local usable = depth.usable(state)
    if not full then return false end
    local since = math.max(0, now - granted_at)
    local on_its_way = seen.total >= 0 and math.max(0, (state.total or 0) - seen.total) or 0
    -- Of what was granted within a second some may have overtaken this request.
    local lately = math.max(state.step or 0, (state.total or 0) - (state.mark or 0))
    if state.is_fixed then
      if depth.window_of(state, granted_at) == depth.window_of(state, now) then
        local left = seen.remaining + seen.grain / 2 - (full - usable)
        state.level = math.min(state.level, left - math.max(0, on_its_way - lately))
      end
      return false
    end
    local missing = math.max(0, full - seen.remaining)
    if seen.reset >= 0 then
      local reset = seen.of_answer and seen.reset + since or seen.reset
      missing = math.min(missing, state.limit / 60000 * reset)
    end
    local second = state.rate * 1000
    local whole = usable - math.min(second, usable) * FIGURES.BURST
    local refilled_by = since * state.rate - missing
    local slack = math.max(SLACK_S * second, seen.grain)
    -- A bucket so small that its reset says nothing may be a window, which ends empty.
    if seen.reset_grain * state.rate > full then slack = math.max(slack, full / 2) end
    state.level = math.min(state.level, whole + refilled_by - on_its_way + slack)
    if kind ~= 'ok' or state.burst_s or state.is_slowed or seen.total < 0 then
      return false
    end
    -- It does not fill over its brim while little is used, and some that was granted may be late.
    local late = math.max(2 * second, lately)
    local there = whole + math.min(0, refilled_by) - on_its_way - late - seen.grain / 2
    local level = math.min(state.capacity, there)
    if level <= state.level then return false end
    state.level = level
    return true
  end

  -- Marks the measures for which a request may have been refused: those that have too little left
  -- for it. Where none has, some provider's word is not the whole truth, and all are marked.
  local function blame(seen_all)
    local any = false
    for _, seen in ipairs(seen_all) do
      seen.is_blamed = seen.measure ~= 'rpd' and seen.remaining - seen.grain / 2 <= seen.asked
      any = any or seen.is_blamed
    end
    for _, seen in ipairs(seen_all) do
      seen.is_blamed = seen.measure ~= 'rpd' and (seen.is_blamed or not any)
    end
  end

  local function apply_day(state, seen)
    state.seen, state.learned = seen.limit, true
    if state.day ~= today() then state.day, state.used = today(), 0 end
    state.used = math.max(state.used or 0, seen.limit - seen.remaining)
  end

  local function apply_minute(scope, state, seen, kind, granted_at)
    if state.seen and state.seen ~= seen.limit then
      for _, field in ipairs(LEARNED) do
        state[field] = nil
        redis.call('HDEL', scope.bucket.stored_at, seen.measure .. '.' .. field)
      end
    end
    state.seen, state.learned = seen.limit, true
    state.filled = nil
    state = filled(scope, seen.measure, 0)
    learn_top(state, seen)
    learn_kind(state, seen, granted_at)
    state.told_at = now
    learn_floor(scope, state, seen, kind)
    state.filled = nil
    state = filled(scope, seen.measure, 0)
    return mirror(state, seen, kind, granted_at)
  end

  -- All that the headers of one answer say. Returns whether there is more now than was known.
  function told.apply(scope, seen_all, kind, granted_at)
    local any_more = false
    if kind == 'limited' then blame(seen_all) end
    for _, seen in ipairs(seen_all) do
      local state = scope.bucket.measures[seen.measure] or {}
      scope.bucket.measures[seen.measure] = state
      scope.bucket.changed = true
      if seen.measure == 'rpd' then
        apply_day(state, seen)
      elseif apply_minute(scope, state, seen, kind, granted_at) then
        any_more = true
      end
    end
    return any_more
  end

  -- The provider's bucket is empty: those who wait come at its rate, not at once.
  function told.refused(scope, seen_all)
    local is_spared = {}
    for _, seen in ipairs(seen_all) do is_spared[seen.measure] = not seen.is_blamed end
    is_spared.rpd = true
    for _, measure in ipairs(MEASURES) do
      local state = not is_spared[measure] and filled(scope, measure, 0)
      if state then
        state.level, state.proven, state.wave = math.min(state.level, 0), 0, 0
        -- Of a continuous bucket headers say all, and the rate is what it is.
        local is_known = state.sum and not state.is_fixed and depth.full(state)
        if not is_known and now - (state.share_at or 0) > 1000 then
          -- The ends of windows may have moved.
          if state.is_fixed then state.fixed = state.fixed - 2 end
          state.share = math.max(LEAST_SHARE, share_of(state) - SHARE_STEP)
          state.share_at = now
        end
        state.learned, scope.bucket.changed = true, true
      end
    end
  end

  -- Growth was refused: what is there comes at the lowered rate, not at once.
  function told.slowed(scope)
    for _, measure in ipairs(FIGURES.RAMPED) do
      local state = filled(scope, measure, 0)
      if state then
        state.level, state.proven, state.wave = math.min(state.level, 0), 0, 0
        scope.bucket.changed = true
      end
    end
  end

  -- The largest share of a limit of tokens that was used lately.
  function told.used(scope)
    local most = 0
    for _, measure in ipairs(MEASURES) do
      local state = measure ~= 'rpm' and measure ~= 'rpd' and filled(scope, measure, 0)
      if state and state.step then most = math.max(most, state.step * 60 / state.limit) end
    end
    return most > 0 and math.min(1, most) or 1
  end
end
