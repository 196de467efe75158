-- Purpose: all who were passed over are tried again at once: after an operator let something go on,
--   or limits have changed. Opens the gates of a pool that is out of money.
-- KEYS: 1 paused, 2 rooms, 3 limits. ARGV: 1 prefix of all keys, 2 what goes on: `pool/NAME`,
--   `tenant/NAME`, `queue/NAME`, or '' when limits have changed.
-- Result: {1 if that was paused, how many gates were opened}.
-- Sent twice: changes nothing more.
local prefix, member = ARGV[1], ARGV[2]
local was_paused = redis.call('SREM', KEYS[1], member)
local kind, name = string.match(member, '^(%a+)/(.*)$')

local function wake_up(queue)
  local wake = prefix .. 'headgate:wake:' .. queue
  redis.call('RPUSH', wake, '1')
  redis.call('LTRIM', wake, 0, 0)
end

local opened = 0
if kind == 'pool' then
  local keys = redis.call('HGET', KEYS[3], 'keys/' .. string.match(name, '^[^/]*')) or ''
  local count = math.max(1, tonumber(string.match(keys, 'n=(%d+)') or 1))
  for _, pool in ipairs({name, name .. '~flex'}) do
    for n = 0, count - 1 do
      local gate = prefix .. 'headgate:gate:' .. pool .. '#key' .. n
      if redis.call('HGET', gate, 'why') == 'money' then
        redis.call('HDEL', gate, 'until', 'why', 'probe_at', 'shut_at')
        opened = opened + 1
      end
    end
  end
end

local woken = {}
if kind == 'queue' then woken[name] = true end
for _, room in ipairs(redis.call('HKEYS', KEYS[2])) do
  local parked = prefix .. 'headgate:room:' .. room .. ':parked'
  -- All moments become 0. Who is paused still is parked again when it is tried.
  if redis.call('EXISTS', parked) == 1 then
    redis.call('ZINTERSTORE', parked, 1, parked, 'WEIGHTS', 0)
  end
  woken[string.match(room, '^[^ ]*')] = true
end
for queue in pairs(woken) do wake_up(queue) end
return {was_paused, opened}
