-- Purpose: the one call of a worker's round trip: fetching is admission. Acknowledges finished
--   jobs, returns the jobs of dead workers and the deferred ones that are due to their queues, moves
--   messages from the queues into the waiting rooms of their pools, and hands out the jobs that may
--   start now, in their order, each with its lease and its hold.
-- KEYS: 1 leases, 2 owners, 3 messages, 4 due, 5 present, 6 crashes, 7 dead, 8 pulse, 9 cancels,
--   10 letters, then for each queue its list and its wake list.
-- ARGV: 1 owner of the new leases (another one in each call, so that the end of an old lease
--   never ends a new one), 2 lease ms, 3 how many to take, 4 largest message in bytes, 5 bytes
--   after which no more is taken, 6 prefix of all keys, 7 how many acks, then for each ack the id
--   and the owner of its lease, then the name of each queue, then the head start of standard and of
--   bulk jobs in ms.
-- Result: {now ms, ms until something may change by itself or -1, more (1: call again),
--   {letter, bytes, queue of each message that was too large}, {keys that are no lists},
--   then id, crashes, grant, `queue LF message` for each job taken}. A message without a ticket is
--   handed out at once, without a grant: its worker gives it one.
-- Sent twice: acks count once; jobs leased by a reply that was lost come back when it lapses, and
--   what they held stays spent.
local leases, owners, messages, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local present, crashes, dead, pulse = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local owner, lease_ms, want = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_bytes, budget = tonumber(ARGV[4]), tonumber(ARGV[5])
local acks = tonumber(ARGV[7])
local last_ack = 7 + 2 * acks
local time = redis.call('TIME')
local exact = time[1] * 1000 + time[2] / 1000
-- Whole ms: leases and the due-list are shared with the release before.
local whole = math.floor(exact)
prefix, now = ARGV[6], exact
head_start.s, head_start.b = tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV])
local released, landed = false, {}

for first = 8, last_ack, 1000 do
  local ids = {}
  for i = first, math.min(first + 998, last_ack), 2 do
    if redis.call('HGET', owners, ARGV[i]) == ARGV[i + 1] then ids[#ids + 1] = ARGV[i] end
  end
  if #ids > 0 then
    redis.call('ZREM', leases, unpack(ids))
    redis.call('HDEL', owners, unpack(ids))
    released = release(ids) or released
    landed[#landed + 1] = ids
    redis.call('HDEL', prefix .. 'headgate:tickets', unpack(ids))
    redis.call('HDEL', messages, unpack(ids))
    redis.call('HDEL', crashes, unpack(ids))
    redis.call('SREM', present, unpack(ids))
    redis.call('ZREM', KEYS[9], unpack(ids))
  end
end
for _, ids in ipairs(landed) do flights.land(ids) end

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
local next_ms
local function not_before(wait)
  if not next_ms or wait < next_ms then next_ms = wait end
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
    redis.call('ZADD', due, whole + 5000, id)
    return
  end
  redis.call('HDEL', messages, id)
  wake_up(prefix .. 'headgate:wake:' .. queue)
end

-- A server that was down or frozen must not take its workers' silence for their death: after a
-- gap between two calls nobody loses a lease until everyone had one lease time to renew.
local last = tonumber(redis.call('HGET', pulse, 'last') or '0')
local grace = tonumber(redis.call('HGET', pulse, 'grace') or '0')
if whole < last then
  -- The server's clock was set back: what was to come in a minute must not come in an hour. All
  -- ids of both sets are in the set `present`, where each counts 1.
  redis.call('ZINTERSTORE', leases, 2, leases, present, 'WEIGHTS', 1, whole - last)
  redis.call('ZINTERSTORE', due, 2, due, present, 'WEIGHTS', 1, whole - last)
end
if whole - last > lease_ms / 3 or whole < last then
  grace = whole + lease_ms
  redis.call('HSET', pulse, 'last', whole, 'grace', grace)
elseif whole - last >= math.min(200, lease_ms / 20) then
  redis.call('HSET', pulse, 'last', whole)
end
if whole >= grace then
  local lapsed = redis.call('ZRANGEBYSCORE', leases, '-inf', whole, 'LIMIT', 0, 100)
  for i = #lapsed, 1, -1 do
    redis.call('ZREM', leases, lapsed[i])
    redis.call('HDEL', owners, lapsed[i])
    redis.call('HINCRBY', crashes, lapsed[i], 1)
    released = release({lapsed[i]}) or released
    flights.land({lapsed[i]})
    back_to_queue(lapsed[i])
  end
end
local ready = redis.call('ZRANGEBYSCORE', due, '-inf', whole, 'LIMIT', 0, 200)
for i = #ready, 1, -1 do
  redis.call('ZREM', due, ready[i])
  back_to_queue(ready[i])
end

local landing = flights.disembark()
flights.expire()

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
local reply = {whole, -1, landing and 1 or 0, large, wrong}
local taken, bytes, moved, moved_bytes, buried = 0, 0, 0, 0, 0
local function is_full()
  return taken >= want or bytes >= budget
end

local function bury(queue, message)
  local id = string.match(message, '^{"hg":"([%w-]+)') or ''
  local letter = write_letter(prefix, dead, KEYS[10], whole, queue,
    'over ' .. max_bytes .. ' bytes', id, message)
  if id ~= '' and redis.call('HEXISTS', messages, id) == 0 then
    redis.call('SREM', present, id)
  end
  large[#large + 1] = letter
  large[#large + 1] = #message
  large[#large + 1] = queue
  buried = buried + 1
end

-- The job is this worker's. Its message is in `messages`.
local leased, until_when, owned = {}, {}, {}
local function lease(id, grant, stored)
  leased[#leased + 1] = id
  until_when[#until_when + 1] = whole + lease_ms
  until_when[#until_when + 1] = id
  owned[#owned + 1] = id
  owned[#owned + 1] = owner
  local at = #reply
  reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = id, 0, grant, stored -- crashes: at the end
  taken = taken + 1
  bytes = bytes + #stored
end

local function without(way, ticket)
  return table.concat({way, ticket.pool, ticket.model, '', ticket.rule, '0', 0, 0, ticket.tenant,
    ticket.user, ticket.tier, ticket.flags}, '|')
end
-- Why its answer need not be bought: `cached`, or `shared` where it has followed an equal request;
-- that one's failure is its own, too.
local function is_kept(ticket)
  if ticket.cached_as == '' then return nil end
  local followed = string.find(ticket.flags, 'f', 1, true)
  if redis.call('EXISTS', prefix .. 'headgate:cache:' .. ticket.cached_as) == 1 then
    return followed and 'shared' or 'cached'
  end
  if followed and redis.call('EXISTS', prefix .. 'headgate:failed:' .. ticket.cached_as) == 1 then
    return 'shared'
  end
  return nil
end

-- Messages that were moved in this call.
local fresh, known_now = {}, {}
local any_ticket = redis.call('EXISTS', prefix .. 'headgate:tickets') == 1
-- False when it has no place here now, and has to stay in its queue.
local function move(queue, message)
  if #message > max_bytes then bury(queue, message) return true end
  local id = id_of(message, moved)
  local text = any_ticket and redis.call('HGET', prefix .. 'headgate:tickets', id)
    or string.match(message, '^{"hg":"[%w-]+","at":"([^"\\]*)"')
  local ticket = text and read_ticket(text)
  local kept = ticket and is_kept(ticket)
  if (kept or not ticket) and is_full() then return false end
  local stored = queue .. '\n' .. message
  if redis.call('HSETNX', messages, id, stored) == 0 then
    -- A second copy. It only stays where a lease has lost its message.
    if redis.call('HGET', messages, id) == '' then redis.call('HSET', messages, id, stored) end
    return true
  end
  known_now[#known_now + 1] = id
  moved, moved_bytes = moved + 1, moved_bytes + #message
  if kept then
    lease(id, without(kept, ticket), stored)
  elseif ticket and flights.under_way(id, ticket) then
    flights.follow(id, text, ticket)
  elseif ticket then
    enter(id, queue, text, ticket)
    fresh[id] = stored
  else
    lease(id, '', stored)
  end
  return true
end

local paused = {}
for _, name in ipairs(redis.call('SMEMBERS', prefix .. 'headgate:paused')) do paused[name] = true end

-- From the lists into the rooms: as many that the order is right, as few that the server goes on.
local MOVES, MOVED_BYTES = math.max(128, want), 4194304
local queues, wakes = {}, {}
-- How many are popped at a time: few until they prove to be small, since all that is popped is
-- copied.
local step = 1
for k = 11, #KEYS, 2 do
  local queue = ARGV[last_ack + 1 + (k - 11) / 2]
  queues[queue], wakes[queue] = not paused['queue/' .. queue], KEYS[k + 1]
  local stays = not queues[queue]
  while not stays do
    if moved >= MOVES or moved_bytes >= MOVED_BYTES or buried >= 4 then
      if (on_list('LLEN', KEYS[k]) or 0) > 0 then
        reply[3] = 1
        wake_up(KEYS[k + 1])
      end
      break
    end
    local popped = on_list('RPOP', KEYS[k], math.min(MOVES - moved, step))
    if not popped or #popped == 0 then break end
    step = math.min(64, step * 4)
    for place, message in ipairs(popped) do
      if #message > 65536 then step = 1 end
      if buried >= 4 or moved_bytes >= MOVED_BYTES or not move(queue, message) then
        for i = #popped, place, -1 do redis.call('RPUSH', KEYS[k], popped[i]) end
        stays = true
        reply[3] = 1
        wake_up(KEYS[k + 1])
        break
      end
    end
  end
end

put_in_chunks('SADD', present, known_now)

-- From the rooms to this worker, the most urgent first, until no token is left for the next one.
local rooms, shut, back = {}, {}, 0
local fields = want > 0 and redis.call('HKEYS', prefix .. 'headgate:rooms') or {}
for room in pairs(counts) do fields[#fields + 1] = room end
local known = {}
for _, room in ipairs(fields) do
  local queue, pool = string.match(room, '^(.*) ([^ ]*)$')
  if not known[room] and queues[queue] and not paused['pool/' .. without_flex(pool)] then
    known[room] = true
    back = back + unpark(room)
    local oldest = redis.call('ZRANGE', part(room, 'ages'), 0, 0, 'WITHSCORES')
    if oldest[2] then
      rooms[#rooms + 1] = {name = room, queue = queue, pool = pool, rank = tonumber(oldest[2]),
        lines = redis.call('ZCARD', part(room, 'ages')), debt = {}}
    end
  end
end

local function step_out(room, tenant, user, member, tokens)
  local weight = 1
  if tokens > 0 then weight = config_of('tenant/' .. tenant, 'tenant/*').weight or 1 end
  local debt = room.lines == 1 and room.debt or nil
  local next_member, rank = leave(room.name, tenant, user, member, tokens, weight, debt)
  room.next = nil
  if room.lines == 1 and rank then
    -- The only line here: who is next is known.
    room.next, room.rank = {tenant, user, next_member}, rank
  else
    if not rank then room.lines = room.lines - 1 end
    room.rank = tonumber(redis.call('ZRANGE', part(room.name, 'ages'), 0, 0, 'WITHSCORES')[2])
  end
end

-- A worker that was silent past its lease may have taken it again: then the job runs there, and has
-- no place here.
local function is_running(room, tenant, user, member, id)
  if fresh[id] or redis.call('HEXISTS', owners, id) == 0 then return false end
  step_out(room, tenant, user, member, 0)
  return true
end

-- Returns whether the job was there to be handed out.
local function hand_out(room, tenant, user, member, id, grant, tokens)
  local stored = fresh[id] or redis.call('HGET', messages, id)
  step_out(room, tenant, user, member, tokens)
  if stored and stored ~= '' then
    lease(id, grant, stored)
    return true
  end
  save() -- its hold, if it has one, so that it ends
  money.ends_at(0)
  release({id})
  money.ends_at(nil)
  redis.call('SREM', present, id)
  return false
end

-- Pools whose only model is down.
local broken = {}
-- Why a job need not wait on: its deadline is over, or will be before its pool has room for it; or
-- its model is down, and another may answer.
local function way_out(ticket, wait)
  if ticket.deadline <= now then return 'late' end
  if string.find(ticket.flags, 'r', 1, true) then
    if broken[ticket.pool] then return 'broken' end
    if ticket.deadline <= now + wait then return 'elsewhere' end
  end
  return nil
end

-- The job ends here, or goes to another model: then equal ones follow its call there, too.
local function let_out(room, tenant, user, member, id, ticket, way)
  local leads = way == 'broken' or way == 'elsewhere'
  if leads and flights.under_way(id, ticket) then
    step_out(room, tenant, user, member, 0)
    flights.follow(id, string.match(member, '|(.*)$'), ticket)
    return
  end
  local is_out = hand_out(room, tenant, user, member, id, without(way, ticket), 0)
  if is_out and leads then flights.lead(id, ticket) end
end

-- A job whose model is down must not hold up those of other models in its pool: it comes back to its
-- place when a probe may go or the breaker may have closed. Those put off come one each ms.
local LOOK_MS = 5000
local function put_off(room, tenant, user, member, id, ticket, wait)
  step_out(room, tenant, user, member, 0)
  local ms = math.min(wait, LOOK_MS) + redis.call('ZCARD', due)
  redis.call('ZADD', due, whole + math.ceil(math.min(ms, math.max(1, ticket.deadline - now))), id)
end

-- Those who stand behind others that have to wait: some by chance in each call, as long as any of
-- them may go. A sorted set of all deadlines would cost every job what few need.
local SAMPLE = 64
local function let_go_within(room, wait)
  local who = redis.call('ZRANDMEMBER', part(room.name, 'ages'))
  if not who then return end
  local tenant, user = string.match(who, '^([^|]*)|(.*)$')
  local line = line_of(room.name, tenant, user)
  for _, member in ipairs(redis.call('ZRANDMEMBER', line, SAMPLE)) do
    if is_full() then return end
    local id, ticket = id_and_ticket(member)
    local way = ticket and way_out(ticket, wait)
    if way and not is_running(room, tenant, user, member, id) then
      let_out(room, tenant, user, member, id, ticket, way)
      reply[3] = 1
    end
  end
end

-- The first in line that need not wait on.
local function let_go(room, wait)
  local from = part(room.name, 'ages')
  pay(room.debt)
  while not is_full() do
    local oldest = redis.call('ZRANGE', from, 0, 0)
    if not oldest[1] then return end
    local tenant, user = string.match(oldest[1], '^([^|]*)|(.*)$')
    local member = redis.call('ZRANGE', line_of(room.name, tenant, user), 0, 0)[1]
    if not member then return end
    local id, ticket = id_and_ticket(member)
    if not ticket then return end
    local way = way_out(ticket, wait) or is_kept(ticket)
    if not way then
      not_before(ticket.deadline - now)
      if wait > 0 then let_go_within(room, wait) end
      return
    end
    if not is_running(room, tenant, user, member, id) then
      let_out(room, tenant, user, member, id, ticket, way)
    end
  end
end

-- One job of the room, or why not: false when the room has nobody who may run now.
local function serve(room)
  local tenant, user, member
  if room.next then
    tenant, user, member = unpack(room.next)
  else
    tenant = redis.call('ZRANGE', part(room.name, 'tenants'), 0, 0)[1]
  end
  if not tenant then
    let_go(room, 0)
    local parked = redis.call('ZRANGE', part(room.name, 'parked'), 0, 0, 'WITHSCORES')
    if parked[2] then not_before(math.max(1, tonumber(parked[2]) - now)) end
    return false
  end
  if paused['tenant/' .. tenant] then
    pay(room.debt)
    park(room.name, tenant, nil, '+inf')
    room.next = nil
    return true
  end
  user = user or redis.call('ZRANGE', users_of(room.name, tenant), 0, 0)[1]
  member = member or user and redis.call('ZRANGE', line_of(room.name, tenant, user), 0, 0)[1]
  if not member then
    -- Nobody stands there: keys that were removed by hand.
    redis.call('ZREM', part(room.name, 'tenants'), tenant)
    return true
  end
  local id, ticket = id_and_ticket(member)
  if is_running(room, tenant, user, member, id) then return true end
  local way
  if ticket.deadline <= now then
    way = 'late'
  elseif not fresh[id] then
    way = is_kept(ticket)
  end
  if way then
    hand_out(room, tenant, user, member, id, without(way, ticket), 0)
    return true
  end
  if flights.under_way(id, ticket, fresh[id]) then
    step_out(room, tenant, user, member, 0)
    flights.follow(id, string.match(member, '|(.*)$'), ticket)
    return true
  end
  local amounts = amounts_of(ticket)
  local why, wait = blocked_by(caller_scopes(ticket), amounts)
  if not why then why, wait = money.blocked(ticket) end
  if why == 'over' or why == 'cheaper' then
    way = why == 'over' and 'over budget' or why
    hand_out(room, tenant, user, member, id, money.told(way, ticket), 0)
    return true
  end
  if why == 'tenant' or why == 'user' then
    pay(room.debt)
    park(room.name, tenant, why == 'user' and user or nil, now + wait)
    room.next = nil
    return true
  end
  local key, far
  if not why then
    why, key, far = find_key(ticket, amounts)
    wait = key
  end
  if why == 'large' then
    hand_out(room, tenant, user, member, id, without('too large', ticket), 0)
    return true
  end
  if why == 'broken' then
    if string.find(ticket.flags, 'r', 1, true) then
      let_out(room, tenant, user, member, id, ticket, 'broken')
      return true
    end
    if (config_of('models/' .. without_flex(room.pool)).n or 1) > 1 then
      put_off(room, tenant, user, member, id, ticket, wait)
      return true
    end
    broken[room.pool] = true
  end
  if why then
    shut[room.pool] = far
    not_before(wait)
    return false
  end
  local grant = take(id, ticket, amounts, key)
  if hand_out(room, tenant, user, member, id, grant, math.max(1, amounts.tpm)) then
    flights.lead(id, ticket)
  end
  return true
end

-- Candidates that are looked at in one call, over those that are granted. Who has just come back is
-- counted besides: if all of them are passed over again, the others still come nearer.
local tries = taken + want + 64 + back
while #rooms > 0 and not is_full() and tries > 0 do
  tries = tries - 1
  local best
  for _, room in ipairs(rooms) do
    if room.rank and not shut[room.pool] and (not best or room.rank < best.rank) then best = room end
  end
  if not best then break end
  if not serve(best) and not shut[best.pool] then best.rank = nil end
end
for _, room in ipairs(rooms) do
  if shut[room.pool] then
    if room.rank then let_go(room, shut[room.pool]) end
  elseif room.rank then
    -- It could go on here: this worker is full, or the call was long enough.
    reply[3] = 1
    wake_up(wakes[room.queue])
  end
end
if released and want == 0 then
  for _, room in ipairs(redis.call('HKEYS', prefix .. 'headgate:rooms')) do
    wake_up(prefix .. 'headgate:wake:' .. string.match(room, '^(.*) '))
  end
end
for _, room in ipairs(rooms) do pay(room.debt) end
put_in_chunks('ZADD', leases, until_when)
put_in_chunks('HSET', owners, owned)
for first = 1, #leased, 1000 do
  local died = redis.call('HMGET', crashes, unpack(leased, first, math.min(first + 999, #leased)))
  for i, times in ipairs(died) do
    reply[5 + 4 * (first + i - 2) + 2] = tonumber(times or 0)
  end
end
save()
save_counts()
flights.save()
local next_due = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if next_due[2] then not_before(math.max(0, next_due[2] - whole)) end
not_before(flights.next_late() or math.huge)
if next_ms and next_ms < 1e12 then reply[2] = math.ceil(next_ms) end
return reply
