-- Purpose: the waiting queues of the pools, and who takes turns in them.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- A waiting queue is what waits in one queue for one pool. In it tenants take turns by turn order: by
-- the tokens served, divided by their weight, so that all get alike. In a tenant its users take turns,
-- and in a user's queue the lowest rank comes first. A rank is the moment from which a job counts as
-- urgent: its arrival plus the handicap of its priority.
-- @include generated/figures
-- @include lib/ticket
-- @include lib/prelude
local handicap_ms = {i = 0, s = 0, b = 0}
-- A job ranks as urgent this long before its deadline, whatever its priority.
local DEADLINE_MS = 60000

local waiting_queues = {}
local function waiting_queue(queue, pool)
  local name = queue .. ' ' .. pool
  local waiting = waiting_queues[name]
  if waiting then return waiting end
  waiting = {name = name, queue = queue, pool = pool,
    ages = KEY.waiting_queue(queue, pool, 'ages'), tenants = KEY.waiting_queue(queue, pool, 'tenants'),
    parked = KEY.waiting_queue(queue, pool, 'parked'), served = KEY.waiting_queue(queue, pool, 'served')}
  waiting_queues[name] = waiting
  return waiting
end

local function users_of(waiting, tenant)
  return KEY.users(waiting.queue, waiting.pool, tenant)
end
local function served_users_of(waiting, tenant)
  return KEY.served_users(waiting.queue, waiting.pool, tenant)
end
local function user_queue_of(waiting, tenant, user)
  return KEY.user_queue(waiting.queue, waiting.pool, tenant, user)
end

-- Jobs that have entered (1) and left (-1) in this call, by the name of the waiting queue.
local counts = {}
local function count(waiting, by)
  counts[waiting.name] = (counts[waiting.name] or 0) + by
end
local function save_counts()
  for name, by in pairs(counts) do
    if by ~= 0 and redis.call('HINCRBY', KEY.waiting_queues, name, by) <= 0 then
      redis.call('HDEL', KEY.waiting_queues, name)
    end
  end
end

-- Takes part in the turns again: where it stood when it left, but not before those who stayed.
local function join(turns, served, member)
  local first = redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')
  local from = tonumber(first[2] or 0)
  local before = redis.call('ZSCORE', served, member)
  if before then
    from = math.max(from, tonumber(before))
    redis.call('ZREM', served, member)
  end
  redis.call('ZADD', turns, 'NX', from, member)
end

-- Takes no part in the turns any more. Where it stood is kept until the others are past it.
local function quit(turns, served, member)
  local at = redis.call('ZSCORE', turns, member)
  redis.call('ZREM', turns, member)
  local first = redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')
  if not first[2] then
    -- Nobody stays: the next ones begin alike, but for the one that was served just now.
    redis.call('DEL', served)
  else
    redis.call('ZREMRANGEBYSCORE', served, '-inf', first[2])
  end
  if at and first[2] and tonumber(at) > tonumber(first[2]) then
    redis.call('ZADD', served, at, member)
  end
end

local function join_tenant(waiting, tenant)
  join(waiting.tenants, waiting.served, tenant)
end
local function join_user(waiting, tenant, user)
  join(users_of(waiting, tenant), served_users_of(waiting, tenant), user)
end
local function quit_tenant(waiting, tenant)
  quit(waiting.tenants, waiting.served, tenant)
end
local function quit_user(waiting, tenant, user)
  quit(users_of(waiting, tenant), served_users_of(waiting, tenant), user)
end

-- Tickets of members of user queues that were read in this call.
local read_already = {}
local function id_and_ticket(member)
  local ticket = read_already[member]
  if ticket then return string.match(member, '^[^|]*'), ticket end
  local id, text = string.match(member, '^([^|]*)|(.*)$')
  return id, read_ticket(text)
end

-- The lowest rank of the user queues that were written in this call.
local first_ranks = {}
local function enter(id, queue, text, ticket)
  local waiting, tenant, user = waiting_queue(queue, ticket.pool), ticket.tenant, ticket.user
  local user_queue = user_queue_of(waiting, tenant, user)
  local arrival = math.min(ticket.arrival, now) -- a producer's clock may be ahead
  local rank = arrival + (handicap_ms[ticket.priority] or 0)
  local step = string.byte(ticket.flags)
  if step and step >= 49 and step <= 57 then rank = rank + (step - 48) * FIGURES.STEP_MS end
  rank = math.min(rank, ticket.deadline - DEADLINE_MS)
  local member = id .. '|' .. text
  if redis.call('ZADD', user_queue, rank, member) == 0 then return end
  read_already[member] = ticket
  count(waiting, 1)
  local first = first_ranks[user_queue]
  if first and rank >= first then return end
  local who = tenant .. '|' .. user
  redis.call('ZADD', waiting.ages, 'LT', rank, who)
  if not first and redis.call('ZCARD', user_queue) == 1 then
    local parked = redis.call('ZMSCORE', waiting.parked, 't|' .. tenant, 'u|' .. who)
    if not parked[2] then
      join_user(waiting, tenant, user)
      if not parked[1] then join_tenant(waiting, tenant) end
    end
  end
  first_ranks[user_queue] = rank
end

-- Those whose time has come take part in the turns again, a few in each call. Returns how many.
local function unpark(waiting)
  local ready = redis.call('ZRANGEBYSCORE', waiting.parked, '-inf', now, 'LIMIT', 0, 64)
  for _, member in ipairs(ready) do
    redis.call('ZREM', waiting.parked, member)
    local kind, tenant, user = string.match(member, '^(%a)|([^|]*)|?(.*)$')
    if kind == 'u' and redis.call('EXISTS', user_queue_of(waiting, tenant, user)) == 1 then
      join_user(waiting, tenant, user)
    end
    if redis.call('EXISTS', users_of(waiting, tenant)) == 1
      and not redis.call('ZSCORE', waiting.parked, 't|' .. tenant) then
      join_tenant(waiting, tenant)
    end
  end
  return #ready
end

-- A user, or with user nil a whole tenant, takes no part until then.
local function park(waiting, tenant, user, at)
  if user then
    quit_user(waiting, tenant, user)
    redis.call('ZADD', waiting.parked, at, 'u|' .. tenant .. '|' .. user)
    if redis.call('EXISTS', users_of(waiting, tenant)) == 1 then return end
  else
    redis.call('ZADD', waiting.parked, at, 't|' .. tenant)
  end
  quit_tenant(waiting, tenant)
end

-- Charges tokens to a user and its tenant in the turn order.
local function charge(waiting, tenant, user, tokens, weighed)
  if tokens <= 0 then return end
  redis.call('ZADD', users_of(waiting, tenant), 'XX', 'INCR', tokens, user)
  redis.call('ZADD', waiting.tenants, 'XX', 'INCR', weighed, tenant)
end

-- The last job of a user has left.
local function user_leaves(waiting, tenant, user)
  local who = tenant .. '|' .. user
  redis.call('ZREM', waiting.ages, who)
  redis.call('ZREM', waiting.parked, 'u|' .. who)
  -- Nobody waits here any more; a tenant that was passed over is tried anew when it comes again.
  if redis.call('EXISTS', waiting.ages) == 0 then redis.call('DEL', waiting.parked) end
  quit_user(waiting, tenant, user)
  if redis.call('EXISTS', users_of(waiting, tenant)) == 0 then quit_tenant(waiting, tenant) end
end

-- A job leaves its user queue, the first or any other. `tokens` are charged to its user and its
-- tenant: at once, or with `debt` (a table) by `pay`, where nobody else has jobs in the waiting queue.
-- Returns who is first of that user now, and its rank.
local function leave(waiting, tenant, user, member, tokens, weight, debt)
  local user_queue = user_queue_of(waiting, tenant, user)
  redis.call('ZREM', user_queue, member)
  count(waiting, -1)
  local first = redis.call('ZRANGE', user_queue, 0, 0, 'WITHSCORES')
  local stays = first[2] ~= nil
  local weighed = tokens / weight
  first_ranks[user_queue] = nil
  if debt then
    tokens, weighed = (debt.tokens or 0) + tokens, (debt.weighed or 0) + weighed
    debt.tokens, debt.weighed = tokens, weighed
    debt.tenant, debt.user, debt.rank = tenant, user, first[2]
    if stays then return first[1], tonumber(first[2]) end
  end
  charge(waiting, tenant, user, tokens, weighed)
  if stays then
    redis.call('ZADD', waiting.ages, first[2], tenant .. '|' .. user)
    return first[1], tonumber(first[2])
  end
  user_leaves(waiting, tenant, user)
end

-- What was served in a waiting queue of a single user is charged, and its age is right again.
local function pay(waiting)
  local debt = waiting.debt
  if not debt.rank then return end
  charge(waiting, debt.tenant, debt.user, debt.tokens, debt.weighed)
  redis.call('ZADD', waiting.ages, debt.rank, debt.tenant .. '|' .. debt.user)
  debt.rank, debt.tokens, debt.weighed = nil, 0, 0
end
