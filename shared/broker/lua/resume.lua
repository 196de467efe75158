-- Purpose: tries all again at once who were passed over: after an operator let something go on, or
--   limits have changed. Opens the gates of a pool that are shut, whatever for.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 what goes on: `pool/NAME`, `tenant/NAME`, `queue/NAME`, or
--   '' when limits have changed.
-- Result: {1 if that was paused, {each gate that was opened: {pool, key, why, ms until which it was
--   shut, the moment that its provider had named if that was later, or ''}}}.
-- Sent twice: changes nothing more.
-- @include lib/wake
local was_paused = redis.call('SREM', KEY.paused, ARGV[2])
redis.call('HDEL', KEY.pauses, ARGV[2])
local kind, name = string.match(ARGV[2], '^(%a+)/(.*)$')

local opened = {}
if kind == 'pool' then
  local keys = redis.call('HGET', KEY.limits, 'keys/' .. string.match(name, '^[^/]*')) or ''
  local count = math.max(1, tonumber(string.match(keys, 'n=(%d+)') or 1))
  for _, pool in ipairs({name, name .. '~flex'}) do
    for n = 0, count - 1 do
      local key = 'key' .. n
      local gate = KEY.gate(pool, key)
      local found = redis.call('HMGET', gate, 'until', 'why', 'asked')
      if now < math.max(tonumber(found[1] or 0), tonumber(found[3] or 0)) then
        redis.call('HDEL', gate, 'until', 'why', 'probe_at', 'shut_at', 'asked')
        opened[#opened + 1] = {pool, key, found[2] or '', found[1] or '0', found[3] or ''}
      end
    end
  end
end

index.reopen_pools()
if kind == 'queue' then wake_workers(name) end
each_waiting_queue(function(queue, pool)
  local parked = KEY.waiting_queue(queue, pool, 'parked')
  -- All moments become 0. Who is paused still is parked again when it is tried.
  if redis.call('EXISTS', parked) == 1 then
    redis.call('ZINTERSTORE', parked, 1, parked, 'WEIGHTS', 0)
  end
  wake_workers(queue)
end)
return {was_paused, opened}
