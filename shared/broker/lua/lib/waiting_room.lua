-- Purpose: the waiting rooms of the pools; this stands after `buckets` and before `fetch`.
-- KEYS and ARGV: those of the script that follows. Result: none; it defines functions.
--
-- A room is what waits in one queue for one pool. In it tenants take turns by virtual time (tokens
-- served, divided by their weight, so that all get alike), in a tenant its users, and in a user's
-- line the lowest rank comes first. A rank is the moment from which a job counts as urgent.
local head_start = {i = 0, s = 0, b = 0}
-- A job ranks as urgent this long before its deadline, whatever its priority.
local DEADLINE_MS = 60000

local counts = {}
local function count(room, by)
  counts[room] = (counts[room] or 0) + by
end
local function save_counts()
  for room, by in pairs(counts) do
    if by ~= 0 and redis.call('HINCRBY', prefix .. 'headgate:rooms', room, by) <= 0 then
      redis.call('HDEL', prefix .. 'headgate:rooms', room)
    end
  end
end

local function part(room, name)
  return prefix .. 'headgate:room:' .. room .. ':' .. name
end
local function users_of(room, tenant)
  return prefix .. 'headgate:users:' .. room .. ':' .. tenant
end
local function line_of(room, tenant, user)
  return prefix .. 'headgate:line:' .. room .. ':' .. tenant .. ':' .. user
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
-- Has nothing here any more; where it stood is kept while others are not past it.
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

-- Tickets of members of lines that were read in this call.
local read_already = {}
local function id_and_ticket(member)
  local ticket = read_already[member]
  if ticket then return string.match(member, '^[^|]*'), ticket end
  local id, text = string.match(member, '^([^|]*)|(.*)$')
  return id, read_ticket(text)
end

local seen_lines = {}
local function enter(id, queue, text, ticket)
  local room = queue .. ' ' .. ticket.pool
  local line = line_of(room, ticket.tenant, ticket.user)
  local arrival = math.min(ticket.arrival, now) -- a producer's clock may be ahead
  local rank = math.min(arrival + (head_start[ticket.priority] or 0), ticket.deadline - DEADLINE_MS)
  local member = id .. '|' .. text
  if redis.call('ZADD', line, rank, member) == 0 then return end
  read_already[member] = ticket
  count(room, 1)
  local first = seen_lines[line]
  if first and rank >= first then return end
  local who = ticket.tenant .. '|' .. ticket.user
  redis.call('ZADD', part(room, 'ages'), 'LT', rank, who)
  if not first and redis.call('ZCARD', line) == 1 then
    local parked = redis.call('ZMSCORE', part(room, 'parked'), 't|' .. ticket.tenant, 'u|' .. who)
    if not parked[2] then
      local users = users_of(room, ticket.tenant)
      join(users, users .. '|served', ticket.user)
      if not parked[1] then join(part(room, 'tenants'), part(room, 'served'), ticket.tenant) end
    end
  end
  seen_lines[line] = rank
end

-- Those whose time has come take part in the turns again, a few in each call. Returns how many.
local function unpark(room)
  local parked = part(room, 'parked')
  local ready = redis.call('ZRANGEBYSCORE', parked, '-inf', now, 'LIMIT', 0, 64)
  for _, member in ipairs(ready) do
    redis.call('ZREM', parked, member)
    local kind, tenant, user = string.match(member, '^(%a)|([^|]*)|?(.*)$')
    local users = users_of(room, tenant)
    if kind == 'u' and redis.call('EXISTS', line_of(room, tenant, user)) == 1 then
      join(users, users .. '|served', user)
    end
    if redis.call('EXISTS', users) == 1 and not redis.call('ZSCORE', parked, 't|' .. tenant) then
      join(part(room, 'tenants'), part(room, 'served'), tenant)
    end
  end
  return #ready
end

-- A user, or with user nil a whole tenant, takes no part until then.
local function park(room, tenant, user, at)
  local tenants, parked = part(room, 'tenants'), part(room, 'parked')
  if user then
    local users = users_of(room, tenant)
    quit(users, users .. '|served', user)
    redis.call('ZADD', parked, at, 'u|' .. tenant .. '|' .. user)
    if redis.call('EXISTS', users) == 1 then return end
  else
    redis.call('ZADD', parked, at, 't|' .. tenant)
  end
  quit(tenants, part(room, 'served'), tenant)
end

-- A job leaves its room, the first of its line or any other; `tokens` are charged to its user and
-- its tenant: at once, or with `debt` (a table) by `pay`, where nobody else waits in the room.
-- Returns who is first in that line now, and its rank.
local function leave(room, tenant, user, member, tokens, weight, debt)
  local line, users, tenants = line_of(room, tenant, user), users_of(room, tenant), part(room, 'tenants')
  local who = tenant .. '|' .. user
  redis.call('ZREM', line, member)
  count(room, -1)
  local first = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
  local stays = first[2] ~= nil
  seen_lines[line] = nil
  if debt then
    debt.tokens, debt.weighed = (debt.tokens or 0) + tokens, (debt.weighed or 0) + tokens / weight
    if stays then
      debt.users, debt.user, debt.tenants, debt.tenant = users, user, tenants, tenant
      debt.ages, debt.rank, debt.who = part(room, 'ages'), first[2], who
      return first[1], tonumber(first[2])
    end
    tokens, weight = debt.tokens, debt.tokens > 0 and debt.tokens / debt.weighed or 1
    debt.users = nil
  end
  if tokens > 0 then
    redis.call('ZADD', users, 'XX', 'INCR', tokens, user)
    redis.call('ZADD', tenants, 'XX', 'INCR', tokens / weight, tenant)
  end
  if stays then
    redis.call('ZADD', part(room, 'ages'), first[2], who)
    return first[1], tonumber(first[2])
  end
  redis.call('ZREM', part(room, 'ages'), who)
  redis.call('ZREM', part(room, 'parked'), 'u|' .. who)
  -- Nobody waits here any more; a tenant that was passed over is tried anew when it comes again.
  if redis.call('EXISTS', part(room, 'ages')) == 0 then redis.call('DEL', part(room, 'parked')) end
  quit(users, users .. '|served', user)
  if redis.call('EXISTS', users) == 0 then quit(tenants, part(room, 'served'), tenant) end
end

-- What was served in a room with a single line is charged, and its age is right again.
local function pay(debt)
  if not debt.users then return end
  if debt.tokens > 0 then
    redis.call('ZADD', debt.users, 'XX', 'INCR', debt.tokens, debt.user)
    redis.call('ZADD', debt.tenants, 'XX', 'INCR', debt.weighed, debt.tenant)
  end
  redis.call('ZADD', debt.ages, debt.rank, debt.who)
  debt.users, debt.tokens, debt.weighed = nil, 0, 0
end
