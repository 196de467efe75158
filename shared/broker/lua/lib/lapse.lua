-- Purpose: returns the jobs of dead workers, and the deferred ones that are due, to their queues.
-- KEYS and ARGV: those of the fetch script. Result: none; it defines functions.
-- @include lib/hold
-- @include lib/flights
-- @include lib/round_trip
local lapse = {}
do
  local MOST_LAPSED, MOST_DUE = 100, 200 -- in one call

  -- The server's clock was set back: what was to come in a minute must not come in an hour. All ids
  -- of both sets are in the set of jobs that are present, where each counts 1.
  local function follow_clock(ms)
    for _, key in ipairs({KEY.leases, KEY.due}) do
      redis.call('ZINTERSTORE', key, 2, key, KEY.present, 'WEIGHTS', 1, ms)
    end
  end

  -- Whether leases lapse now. A server that was down or frozen must not take its workers' silence for
  -- their death: after a gap between two calls nobody loses a lease until everyone had one lease time
  -- to renew.
  local function may_lapse()
    local lease_ms = asked.lease_ms
    local pulse = redis.call('HMGET', KEY.pulse, 'last', 'grace')
    local last, grace = tonumber(pulse[1] or '0'), tonumber(pulse[2] or '0')
    if whole_ms < last then follow_clock(whole_ms - last) end
    if whole_ms - last > lease_ms / 3 or whole_ms < last then
      grace = whole_ms + lease_ms
      redis.call('HSET', KEY.pulse, 'last', whole_ms, 'grace', grace)
    elseif whole_ms - last >= math.min(200, lease_ms / 20) then
      redis.call('HSET', KEY.pulse, 'last', whole_ms)
    end
    return whole_ms >= grace
  end

  local function end_lapsed()
    local lapsed = redis.call('ZRANGEBYSCORE', KEY.leases, '-inf', whole_ms, 'LIMIT', 0, MOST_LAPSED)
    for i = #lapsed, 1, -1 do
      local id = lapsed[i]
      redis.call('ZREM', KEY.leases, id)
      redis.call('HDEL', KEY.owners, id)
      redis.call('HINCRBY', KEY.crashes, id, 1)
      round_trip.any_released = release({id}) or round_trip.any_released
      flights.land({id})
      return_job(id)
    end
  end

  function lapse.return_jobs()
    if may_lapse() then end_lapsed() end
    local due = redis.call('ZRANGEBYSCORE', KEY.due, '-inf', whole_ms, 'LIMIT', 0, MOST_DUE)
    for i = #due, 1, -1 do
      redis.call('ZREM', KEY.due, due[i])
      return_job(due[i])
    end
    if flights.return_followers() then round_trip.more = true end
  end
end
