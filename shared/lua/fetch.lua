-- Purpose: the one call of a worker's round trip. Acknowledges finished jobs, returns the jobs of
--   dead workers and the deferred ones that are due to their queues, then takes messages from the
--   queues in the order given and writes their leases in the same step.
-- KEYS: 1 leases, 2 owners, 3 messages, 4 due, 5 present, 6 crashes, 7 dead, 8 pulse, 9 cancels,
--   10 letters, then for each queue its list and its wake list.
-- ARGV: 1 owner of the new leases (another one in each call, so that the end of an old lease
--   never ends a new one), 2 lease ms, 3 how many to take, 4 largest message in bytes, 5 bytes
--   after which no more is taken, 6 prefix of all keys, 7 how many acks, then for each ack the id
--   and the owner of its lease, then the name of each queue.
-- Result: {now ms, ms until the next deferred job or -1, more (1: a queue holds more),
--   {letter, bytes, queue of each message that was too large}, {keys that are no lists},
--   then id, queue, crashes, message for each job taken}.
-- Sent twice: acks count once; jobs leased by a reply that was lost come back when it lapses.
local leases, owners, messages, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local present, crashes, dead, pulse = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local owner, lease_ms, want = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_bytes, budget, prefix = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local acks = tonumber(ARGV[7])
local last_ack = 7 + 2 * acks
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

for first = 8, last_ack, 1000 do
  local ids = {}
  for i = first, math.min(first + 998, last_ack), 2 do
    if redis.call('HGET', owners, ARGV[i]) == ARGV[i + 1] then ids[#ids + 1] = ARGV[i] end
  end
  if #ids > 0 then
    redis.call('ZREM', leases, unpack(ids))
    redis.call('HDEL', owners, unpack(ids))
    redis.call('HDEL', messages, unpack(ids))
    redis.call('HDEL', crashes, unpack(ids))
    redis.call('SREM', present, unpack(ids))
    redis.call('ZREM', KEYS[9], unpack(ids))
  end
end

-- A key that somebody made something else than a list must not stop the other queues.
local wrong, told = {}, {}
local function on_list(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then
    return redis.call(command, key, ...)
  end
  if not told[key] then wrong[#wrong + 1] = key end
  told[key] = true
  return nil
end
local function wake_up(wake)
  if on_list('RPUSH', wake, '1') then on_list('LTRIM', wake, 0, 0) end
end

local function back_to_queue(id)
  local stored = redis.call('HGET', messages, id)
  local cut = stored and string.find(stored, '\n', 1, true)
  if not cut then
    redis.call('HDEL', messages, id)
    redis.call('SREM', present, id)
    return
  end
  local queue = string.sub(stored, 1, cut - 1)
  if not on_list('RPUSH', prefix .. queue, string.sub(stored, cut + 1)) then
    redis.call('ZADD', due, now + 5000, id)
    return
  end
  redis.call('HDEL', messages, id)
  wake_up(prefix .. 'headgate:wake:' .. queue)
end

-- A server that was down or frozen must not take its workers' silence for their death: after a
-- gap between two calls nobody loses a lease until everyone had one lease time to renew.
local last = tonumber(redis.call('HGET', pulse, 'last') or '0')
local grace = tonumber(redis.call('HGET', pulse, 'grace') or '0')
if now < last then
  -- The server's clock was set back: what was to come in a minute must not come in an hour. All
  -- ids of both sets are in the set `present`, where each counts 1.
  redis.call('ZINTERSTORE', leases, 2, leases, present, 'WEIGHTS', 1, now - last)
  redis.call('ZINTERSTORE', due, 2, due, present, 'WEIGHTS', 1, now - last)
end
if now - last > lease_ms / 3 or now < last then
  grace = now + lease_ms
  redis.call('HSET', pulse, 'last', now, 'grace', grace)
elseif now - last >= math.min(200, lease_ms / 20) then
  redis.call('HSET', pulse, 'last', now)
end
if now >= grace then
  local lapsed = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)
  for i = #lapsed, 1, -1 do
    redis.call('ZREM', leases, lapsed[i])
    redis.call('HDEL', owners, lapsed[i])
    redis.call('HINCRBY', crashes, lapsed[i], 1)
    back_to_queue(lapsed[i])
  end
end
local ready = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 200)
for i = #ready, 1, -1 do
  redis.call('ZREM', due, ready[i])
  back_to_queue(ready[i])
end

local function id_of(message, n)
  local id = string.match(message, '^{"hg":"([%w-]+)')
  if id then return id end
  local ok, fields = pcall(cjson.decode, message)
  if ok and type(fields) == 'table' and type(fields.headers) == 'table' then
    id = fields.headers.id
    if type(id) == 'string' and #id > 0 and #id <= 128 then return id end
  end
  return '!' .. owner .. ':' .. n
end

local large = {}
local reply = {now, -1, 0, large, wrong}
local taken, bytes, moved = 0, 0, 0
-- How many are popped at a time: few until they prove to be small, since all that is popped is
-- copied, and a reply must stay so small that it arrives in time.
local step = 1
local function is_full()
  return taken >= want or bytes >= budget or moved >= 4
end

local function bury(queue, message)
  local id = string.match(message, '^{"hg":"([%w-]+)') or ''
  local letter = write_letter(prefix, dead, KEYS[10], now, queue,
    'over ' .. max_bytes .. ' bytes', id, message)
  if id ~= '' and not redis.call('HGET', owners, id) and not redis.call('ZSCORE', due, id) then
    redis.call('SREM', present, id)
  end
  large[#large + 1] = letter
  large[#large + 1] = #message
  large[#large + 1] = queue
  moved = moved + 1
end

local function lease(queue, message)
  local id = id_of(message, taken)
  if redis.call('HGET', owners, id) then
    -- A second copy of a running job. It only stays where the lease has lost its message.
    if redis.call('HGET', messages, id) == '' then
      redis.call('HSET', messages, id, queue .. '\n' .. message)
    end
    return
  end
  if redis.call('ZSCORE', due, id) then return end
  redis.call('ZADD', leases, now + lease_ms, id)
  redis.call('HSET', owners, id, owner)
  redis.call('HSET', messages, id, queue .. '\n' .. message)
  redis.call('SADD', present, id)
  reply[#reply + 1] = id
  reply[#reply + 1] = queue
  reply[#reply + 1] = tonumber(redis.call('HGET', crashes, id) or '0')
  reply[#reply + 1] = message
  taken = taken + 1
  bytes = bytes + #message
end

for k = 11, #KEYS, 2 do
  local queue = ARGV[last_ack + 1 + (k - 11) / 2]
  while not is_full() do
    local popped = on_list('RPOP', KEYS[k], math.min(want - taken, step))
    if not popped or #popped == 0 then break end
    step = math.min(64, step * 4)
    for place, message in ipairs(popped) do
      if is_full() then
        for i = #popped, place, -1 do redis.call('RPUSH', KEYS[k], popped[i]) end
        break
      end
      if #message > 65536 then step = 1 end
      if #message > max_bytes then bury(queue, message) else lease(queue, message) end
    end
  end
  if is_full() and (on_list('LLEN', KEYS[k]) or 0) > 0 then
    reply[3] = 1
    wake_up(KEYS[k + 1])
  end
end
local next_due = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if next_due[2] then reply[2] = math.max(0, next_due[2] - now) end
return reply
