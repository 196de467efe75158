-- Purpose: the waiting queues of the pools, and who takes turns in them.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- A waiting queue is what waits in one queue for one pool. In it tenants take turns by turn order: by
-- the tokens served, divided by their weight, so that all get alike. In a tenant its users take turns,
-- and in a user's queue the lowest rank comes first. A rank is the moment from which a job counts as
-- urgent: its arrival plus the handicap of its priority.
-- @include generated/figures
-- @include lib/index
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
  waiting = {name = name, queue = queue, pool = pool, user_queues = {},
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
  local of_tenant = waiting.user_queues[tenant]
  if not of_tenant then
    of_tenant = {}
    waiting.user_queues[tenant] = of_tenant
  end
  local key = of_tenant[user]
  if not key then
    key = KEY.user_queue(waiting.queue, waiting.pool, tenant, user)
    of_tenant[user] = key
  end
  return key
end

-- Jobs that have entered (1) and left (-1) in this call, by the name of the waiting queue.
local counts = {}
local function count(waiting, by)
  counts[waiting.name] = (counts[waiting.name] or 0) + by
end
-- Returns the names of those that all jobs have left.
local function save_counts()
  local empty = {}
  for name, by in pairs(counts) do
    if by ~= 0 and redis.call('HINCRBY', KEY.waiting_queues, name, by) <= 0 then
      redis.call('HDEL', KEY.waiting_queues, name)
      empty[#empty + 1] = name
    end
  end
  return empty
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

-- Tickets of members of user queues that were read in this call. They have the `id` of their job.
local read_already = {}
local function id_and_ticket(member)
  local ticket = read_already[member]
  if ticket then return ticket.id, ticket end
  local cut = string.find(member, '|', 1, true)
  local id = string.sub(member, 1, cut - 1)
  ticket = read_ticket(string.sub(member, cut + 1))
  if ticket then
    ticket.id = id
    read_already[member] = ticket
  end
  return id, ticket
end

-- The user queues that jobs have entered in this call: `words` (rank and member of each), and the
-- lowest `rank`. `save_entered` writes them.
local entered, entered_by_key = {}, {}
local function enter(id, queue, text, ticket)
  local waiting, tenant, user = waiting_queue(queue, ticket.pool), ticket.tenant, turn_of(ticket)
  local key = user_queue_of(waiting, tenant, user)
  local arrival = math.min(ticket.arrival, now) -- a producer's clock may be ahead
  local rank = arrival + (handicap_ms[ticket.priority] or 0)
  local step = string.byte(ticket.flags)
  if step and step >= 49 and step <= 57 then rank = rank + (step - 48) * FIGURES.STEP_MS end
  rank = math.min(rank, ticket.deadline - DEADLINE_MS)
  local member = id .. '|' .. text
  ticket.id = id
  read_already[member] = ticket
  local one = entered_by_key[key]
  if not one then
    one = {key = key, waiting = waiting, tenant = tenant, user = user, rank = rank, words = {}}
    entered_by_key[key] = one
    entered[#entered + 1] = one
  end
  local words = one.words
  words[#words + 1] = rank
  words[#words + 1] = member
  if rank < one.rank then one.rank = rank end
end

-- A user has jobs there now, and had none before. Nobody's place in the turns is kept where nobody
-- else has any.
local function take_part(waiting, tenant, user, who)
  local parked = redis.call('ZMSCORE', waiting.parked, 't|' .. tenant, 'u|' .. who)
  if parked[2] then return end
  if redis.call('ZCARD', waiting.ages) == 1 then
    redis.call('ZADD', users_of(waiting, tenant), 0, user)
    if not parked[1] then redis.call('ZADD', waiting.tenants, 0, tenant) end
    return
  end
  join_user(waiting, tenant, user)
  if not parked[1] then join_tenant(waiting, tenant) end
end

-- `queues`: those that this worker serves.
local function save_entered(queues)
  local ranks, pools = {}, {}
  for _, one in ipairs(entered) do
    local waiting, tenant, user = one.waiting, one.tenant, one.user
    local added = put_in_chunks('ZADD', one.key, one.words)
    if added > 0 then
      local who = tenant .. '|' .. user
      count(waiting, added)
      local is_new = redis.call('ZADD', waiting.ages, 'LT', one.rank, who) == 1
      ranks[#ranks + 1] = one.rank
      ranks[#ranks + 1] = waiting.name
      pools[waiting.pool] = true
      if is_new then take_part(waiting, tenant, user, who) end
    end
  end
  if #ranks > 0 then index.entered(ranks, queues, pools) end
  entered, entered_by_key = {}, {}
end

-- User queues that are read in this call, by key: `page` (the first jobs, each with its rank), the
-- place `at` which the first stands that has not left, and those that are `gone` from the page.
local user_queues = {}
-- Called with each page that is read.
local on_page = function() end
local MOST_READ = 64

local function write_gone(key, queue)
  if #queue.gone == 0 then return end
  redis.call('ZREM', key, unpack(queue.gone))
  queue.gone = {}
end

-- All who have left are gone from Redis, too.
local function save_user_queues()
  for key, queue in pairs(user_queues) do write_gone(key, queue) end
end

-- The first job of a user queue and its rank, or nil. The first page has two jobs: no more are needed
-- where a pool is shut, or where many users take turns.
local function first_of(key)
  local queue = user_queues[key]
  if not queue then
    queue = {page = {}, at = 1, gone = {}, size = 2}
    user_queues[key] = queue
  end
  if not queue.page[queue.at] and not queue.is_last then
    write_gone(key, queue)
    local size = queue.size
    queue.page, queue.at = redis.call('ZRANGE', key, 0, size - 1, 'WITHSCORES'), 1
    queue.is_last = #queue.page < 2 * size
    queue.size = math.min(MOST_READ, queue.size * 4)
    on_page(queue.page)
  end
  return queue.page[queue.at], tonumber(queue.page[queue.at + 1])
end

local function remove(key, member)
  local queue = user_queues[key]
  if queue and queue.page[queue.at] == member then
    queue.gone[#queue.gone + 1] = member
    queue.at = queue.at + 2
    return
  end
  if queue then write_gone(key, queue) end
  redis.call('ZREM', key, member)
  user_queues[key] = nil
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
  if redis.call('EXISTS', waiting.ages) == 0 then
    -- Nobody waits here any more: the next ones begin alike, and a tenant that was passed over is tried
    -- anew when it comes again.
    redis.call('DEL', waiting.parked, waiting.tenants, waiting.served, users_of(waiting, tenant),
      served_users_of(waiting, tenant))
    return
  end
  redis.call('ZREM', waiting.parked, 'u|' .. who)
  quit_user(waiting, tenant, user)
  if redis.call('EXISTS', users_of(waiting, tenant)) == 0 then quit_tenant(waiting, tenant) end
end

-- A job leaves its user queue, the first or any other. `tokens` are charged to its user and its
-- tenant: at once, or with `debt` (a table) by `pay`, where nobody else has jobs in the waiting queue.
-- Returns who is first of that user now, and its rank.
local function leave(waiting, tenant, user, member, tokens, weight, debt)
  local user_queue = user_queue_of(waiting, tenant, user)
  remove(user_queue, member)
  count(waiting, -1)
  local first, rank = first_of(user_queue)
  local weighed = tokens / weight
  if debt then
    tokens, weighed = (debt.tokens or 0) + tokens, (debt.weighed or 0) + weighed
    debt.tokens, debt.weighed = tokens, weighed
    debt.tenant, debt.user, debt.rank = tenant, user, rank
    if first then return first, rank end
    user_leaves(waiting, tenant, user)
    debt.rank = nil
    return
  end
  charge(waiting, tenant, user, tokens, weighed)
  if first then
    redis.call('ZADD', waiting.ages, rank, tenant .. '|' .. user)
    return first, rank
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
