-- Purpose: the circuit breaker of each model and provider key: who may call while it is open.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- The hash of a breaker: `state` (`open`, or missing: closed), `row` of failures, `retry_at` (server
-- ms from which one probe may go), `shut_at`, `probe` (its job) and `probe_until`, `fence` (grows with
-- each opening and each probe), `since` (the fence of the last opening), `down_at` (when it opened
-- first), `fault` (code and message of the last failure), `fault_at`, `healthy_at`, `slot0` to `slot5`
-- (`number answers failures ms`), `hour` (`answers ms at`, fading). The script `breaker_report` writes
-- most of it.
-- @include lib/wake
local breaker = {}
do
  -- A probe without news for so long counts as none. That of a dead worker ends with its hold.
  local PROBE_MS = 60000

  local function key_of(pool, model, key)
    return KEY.breaker(string.match(pool, '^[^/]*') .. '/' .. model, key)
  end

  local known = {}
  local function read(pool, model, key)
    local found = known[model .. '#' .. key]
    if not found then
      local fields = redis.call('HMGET', key_of(pool, model, key), 'state', 'retry_at', 'shut_at',
        'probe', 'probe_until')
      found = {open = fields[1] == 'open', retry_at = tonumber(fields[2] or 0),
        shut_at = tonumber(fields[3] or 0), probe = fields[4], probe_until = tonumber(fields[5] or 0)}
      known[model .. '#' .. key] = found
    end
    return found
  end

  -- Nil when a call to the ticket's model may go with this key; else the ms until a probe may.
  function breaker.shut(ticket, key)
    local found = read(ticket.pool, ticket.model, key)
    if not found.open then return nil end
    if now < found.shut_at - 1000 then return nil end -- the server's clock was set back
    if now < found.retry_at then return math.max(1, math.ceil(found.retry_at - now)) end
    if found.probe and now < found.probe_until then
      return math.max(1, math.ceil(found.probe_until - now))
    end
    return nil
  end

  -- The job has been granted a call. Returns the word that marks its grant as the probe's, or ''.
  function breaker.take(id, ticket, key)
    local found = read(ticket.pool, ticket.model, key)
    if not found.open then return '' end
    found.probe, found.probe_until = id, now + PROBE_MS
    local name = key_of(ticket.pool, ticket.model, key)
    local fence = redis.call('HINCRBY', name, 'fence', 1)
    redis.call('HSET', name, 'probe', id, 'probe_until', string.format('%.0f', found.probe_until))
    return 'b' .. fence
  end

  -- The hold of the job has ended, or its worker has died. If it was the probe and nobody has
  -- reported how it went, another may go at once. `mark`: what `take` returned, among other letters.
  function breaker.release(id, pool, model, key, mark)
    local fence = string.match(mark, 'b(%d+)')
    if not fence then return end
    local name = key_of(pool, model, key)
    local held = redis.call('HMGET', name, 'fence', 'probe')
    if held[1] ~= fence or held[2] ~= id then return end
    redis.call('HDEL', name, 'probe', 'probe_until')
    known[model .. '#' .. key] = nil
    wake_pool(pool)
  end
end
