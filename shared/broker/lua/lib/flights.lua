-- Purpose: one call for equal requests; this stands before `buckets`.
-- KEYS and ARGV: those of the script that follows. Result: none; it defines functions.
--
-- The first of some equal requests that is granted a call leads a flight: those that come to their
-- turn while its call runs follow it, without a lease and without a hold. The flight ends with the
-- leader's lease, however that ends; whoever followed goes back to the head of its queue, and meets
-- the answer there, or leads the next flight. Leadership is given with the grant and not before, so
-- that an urgent job never waits for a bulk one that waits itself.
local flights = {led = {}, leads = {}}
local LEADERS = 'headgate:leaders'
-- Jobs that one call sends back at most: the others are in the flight of no name until the next.
local LANDED = ''
local LANDINGS = 500

local function flight_of(name) return prefix .. 'headgate:flight:' .. name end
local function all_flights() return prefix .. 'headgate:flights' end
local function followers() return prefix .. 'headgate:followers' end

local function may_share(ticket)
  return ticket.cached_as ~= '' and not string.find(ticket.flags, 'n', 1, true)
end

-- Whether the call of an equal job runs, so that this one has to wait for it. `asked`: it was asked
-- before in this script, so that only what was granted since then can be new.
function flights.under_way(id, ticket, asked)
  if not may_share(ticket) or ticket.deadline <= now then return false end
  local leader = flights.led[ticket.cached_as]
  if not leader and not asked then
    leader = redis.call('HGET', all_flights(), ticket.cached_as)
    if leader and leader ~= id and flights.is_adrift(ticket.cached_as, leader) then return false end
  end
  return leader and leader ~= id
end

function flights.follow(id, text, ticket)
  redis.call('ZADD', flight_of(ticket.cached_as), ticket.deadline, id)
  redis.call('ZADD', followers(), ticket.deadline, id)
  if string.find(ticket.flags, 'f', 1, true) then return end
  redis.call('HSET', prefix .. 'headgate:tickets', id, text .. 'f')
end

-- The job has been granted its call, and leads its flight if there is none.
function flights.lead(id, ticket)
  if not may_share(ticket) then return end
  flights.led[ticket.cached_as] = id
  flights.leads[#flights.leads + 1] = id
  flights.leads[#flights.leads + 1] = ticket.cached_as
end

function flights.save()
  local leads = flights.leads
  for first = 1, #leads, 1000 do
    local by_name = {}
    for i = first, math.min(first + 999, #leads), 2 do
      by_name[#by_name + 1] = leads[i + 1]
      by_name[#by_name + 1] = leads[i]
    end
    redis.call('HSET', prefix .. LEADERS, unpack(leads, first, math.min(first + 999, #leads)))
    redis.call('HSET', all_flights(), unpack(by_name))
  end
  flights.led, flights.leads = {}, {}
end

local function send_back(id)
  local messages = prefix .. 'headgate:messages'
  -- A worker that was silent past its lease may have taken it again: then it runs there.
  if redis.call('HEXISTS', prefix .. 'headgate:owners', id) == 1 then return end
  local stored = redis.call('HGET', messages, id)
  local cut = stored and string.find(stored, '\n', 1, true)
  if not cut then
    redis.call('HDEL', messages, id)
    redis.call('SREM', prefix .. 'headgate:present', id)
    return
  end
  local queue = string.sub(stored, 1, cut - 1)
  local pushed = redis.pcall('RPUSH', prefix .. queue, string.sub(stored, cut + 1))
  if type(pushed) == 'table' then -- somebody made the queue something else than a list
    redis.call('ZADD', prefix .. 'headgate:due', math.floor(now) + 5000, id)
    return
  end
  redis.call('HDEL', messages, id)
  wake_workers(queue)
end

-- Some of those whose flight has ended are in their queues again; returns whether there are more.
function flights.disembark()
  local landed = redis.call('ZPOPMIN', flight_of(LANDED), LANDINGS)
  for i = #landed - 1, 1, -2 do
    redis.call('ZREM', followers(), landed[i])
    send_back(landed[i])
  end
  return #landed == 2 * LANDINGS
end

local function end_flights(names)
  redis.call('HDEL', all_flights(), unpack(names))
  if redis.call('EXISTS', followers()) == 0 then return end
  local any = false
  for _, name in ipairs(names) do
    if redis.call('EXISTS', flight_of(name)) == 1 then
      redis.call('ZUNIONSTORE', flight_of(LANDED), 2, flight_of(LANDED), flight_of(name))
      redis.call('DEL', flight_of(name))
      any = true
    end
  end
  if any then flights.disembark() end
end

-- Whether the flight had a leader that holds no lease; then it has ended. A worker of the release
-- before ends leases, those of dead workers among them, and knows of no flights.
function flights.is_adrift(name, leader)
  if redis.call('HEXISTS', prefix .. 'headgate:owners', leader) == 1 then return false end
  redis.call('HDEL', prefix .. LEADERS, leader)
  end_flights({name})
  return true
end

-- The leases of these jobs have ended, and with them the flights that they led.
function flights.land(ids)
  local names = redis.call('HMGET', prefix .. LEADERS, unpack(ids))
  local led, known, ended = {}, {}, {}
  for i, name in ipairs(names) do
    if name then
      led[#led + 1] = ids[i]
      known[#known + 1] = name
    end
  end
  if #led == 0 then return end
  redis.call('HDEL', prefix .. LEADERS, unpack(led))
  for i, leader in ipairs(redis.call('HMGET', all_flights(), unpack(known))) do
    if leader == led[i] then ended[#ended + 1] = known[i] end
  end
  if #ended > 0 then end_flights(ended) end
end

-- The job follows no flight any more; returns whether it did. `text`: its ticket.
function flights.quit(id, text)
  if redis.call('ZREM', followers(), id) == 0 then return false end
  local ticket = read_ticket(text or redis.call('HGET', prefix .. 'headgate:tickets', id) or '')
  if ticket then redis.call('ZREM', flight_of(ticket.cached_as), id) end
  redis.call('ZREM', flight_of(LANDED), id)
  return true
end

-- Those whose deadline has come while they followed go back to their queues, to end there. One
-- flight in each call is looked at whether it is led.
function flights.expire()
  if redis.call('EXISTS', followers()) == 0 then return end
  local one = redis.call('HRANDFIELD', all_flights(), 1, 'WITHVALUES')
  if one[2] then flights.is_adrift(one[1], one[2]) end
  local late = redis.call('ZRANGEBYSCORE', followers(), '-inf', now, 'LIMIT', 0, 100)
  for i = #late, 1, -1 do
    flights.quit(late[i])
    send_back(late[i])
  end
end

-- The ms until the next deadline of a follower, or nil.
function flights.next_late()
  local first = redis.call('ZRANGE', followers(), 0, 0, 'WITHSCORES')
  return first[2] and math.max(1, tonumber(first[2]) - now)
end
