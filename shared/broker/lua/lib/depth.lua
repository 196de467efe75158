-- Purpose: how deep a provider's bucket is, and whether it fills continuously or at the end of fixed
--   windows, as its headers have shown.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- Fields of a measure that `limits_observe` writes: `top` (the largest amount that was left in this
-- half hour, since `top_at`), `before` (in the one before), `sum` and `sum_high` (the least and the
-- largest of what was left and what the reset said was missing: of a continuous bucket both are its
-- depth), `floor` (what stays unused: requests were refused with that much left, or `burst_s`, kept
-- in `floor_of`, says so), `told_at` (the last headers), `fixed` (how often in a row a window ended when it was expected to), `window_at` (the end
-- of some window), `share` and `share_at` (of the rate that is used after refusals).
-- @include generated/figures
-- @include lib/prelude
local depth = {}
do
  -- What the provider's bucket holds when it is full, or nil where headers have not told lately.
  function depth.full(state)
    if not state.told_at then return nil end
    local full = math.max(state.top or 0, state.before or 0)
    if depth.is_fixed(state) then
      full = depth.window_ms(state) / 60000 * state.limit
    else
      full = math.max(full, math.min(state.sum or 0, state.limit))
    end
    full = math.min(full, state.limit)
    if full < 1 or now - state.told_at > FIGURES.TOLD_MS + full / state.limit * 60000 then return nil end
    return full
  end

  -- The part of it that may be used.
  function depth.usable(state)
    local full = depth.full(state)
    if not full then return nil end
    local second = math.min(full, state.limit / 60)
    return math.max(second, full - (state.floor or 0))
  end

  function depth.is_fixed(state)
    return (state.fixed or 0) >= FIGURES.SURE and state.window_at ~= nil
  end

  -- How long a window lasts: as long as the rate needs for what it lets through, and a usual length
  -- where one is near: some of what it lets through may never have been seen as left.
  function depth.window_ms(state)
    local top = math.max(1, state.top or 0, state.before or 0)
    local needs = math.min(60000, top / state.limit * 60000)
    for _, usual in ipairs(FIGURES.USUAL_WINDOWS_MS) do
      if needs > 0.75 * usual and needs <= 1.02 * usual then return usual end
    end
    return needs
  end

  -- The number of the window in which a moment lies.
  function depth.window_of(state, at)
    return math.floor((at - state.window_at - FIGURES.WINDOW_GUARD_MS) / depth.window_ms(state))
  end

  -- Ms until the next window.
  function depth.window_ends(state)
    local next_one = depth.window_of(state, now) + 1
    return state.window_at + FIGURES.WINDOW_GUARD_MS + next_one * depth.window_ms(state) - now
  end
end
