-- Purpose: one call for equal requests.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- The first of some equal requests that is granted a call leads a flight. Those whose turn comes while
-- its call runs follow it, without a lease and without a hold. The flight ends with the leader's
-- lease, however that ends. Its followers return to the head of their queues, and find the answer
-- there, or lead the next flight. Leadership is given with the grant and not before, so that an
-- urgent job never waits for a bulk one that waits itself.
-- @include lib/job_table
-- @include lib/ticket
-- @include lib/return_job
local flights = {led = {}, leads = {}, known = {}}
do
  -- Followers whose call has ended are in the flight of no name; one call returns so many of them.
  local LANDED = ''
  local LANDINGS = 500
  -- Whether any job follows: most calls of the fetch script find none.
  local any_followers = false

  local function may_share(ticket)
    return ticket.cached_as ~= '' and not has_flag(ticket, 'n')
  end

  -- Asks at once who leads the flights of these names, so that nobody asks for each.
  function flights.look_up(names)
    for n, leader in ipairs(redis.call('HMGET', KEY.flights, unpack(names))) do
      flights.known[names[n]] = leader
    end
  end

  -- Whether the call of an equal job runs, so that this one has to wait for it.
  function flights.under_way(id, ticket)
    if not may_share(ticket) or ticket.deadline <= now then return false end
    local name = ticket.cached_as
    local leader = flights.led[name]
    if not leader then
      leader = flights.known[name]
      if leader == nil then
        leader = redis.call('HGET', KEY.flights, name)
        flights.known[name] = leader
      end
      if leader and leader ~= id and flights.is_adrift(name, leader) then
        flights.known[name] = false
        return false
      end
    end
    return leader and leader ~= id
  end

  function flights.follow(id, text, ticket)
    redis.call('ZADD', KEY.flight(ticket.cached_as), ticket.deadline, id)
    redis.call('ZADD', KEY.followers, ticket.deadline, id)
    any_followers = true
    if has_flag(ticket, 'f') then return end
    redis.call('HSET', KEY.tickets, id, text .. 'f')
  end

  -- The job has been granted its call, and leads its flight if there is none.
  function flights.lead(id, ticket)
    if not may_share(ticket) then return end
    flights.led[ticket.cached_as] = id
    flights.leads[#flights.leads + 1] = id
    flights.leads[#flights.leads + 1] = ticket.cached_as
  end

  function flights.save()
    local leads, by_name = flights.leads, {}
    for i = 1, #leads, 2 do
      by_name[i], by_name[i + 1] = leads[i + 1], leads[i]
    end
    put_in_table(KEY.leaders, leads)
    put_in_table(KEY.flights, by_name)
    flights.led, flights.leads = {}, {}
  end

  -- A worker that was silent past its lease may have taken the job again: then it runs there.
  local function send_back(id)
    if redis.call('HEXISTS', KEY.owners, id) == 0 then return_job(id) end
  end

  -- Returns some of those whose flight has ended to their queues, and whether there are more.
  local function disembark()
    local landed = redis.call('ZPOPMIN', KEY.flight(LANDED), LANDINGS)
    for i = #landed - 1, 1, -2 do
      redis.call('ZREM', KEY.followers, landed[i])
      send_back(landed[i])
    end
    return #landed == 2 * LANDINGS
  end

  local function end_flights(names)
    redis.call('HDEL', KEY.flights, unpack(names))
    if redis.call('EXISTS', KEY.followers) == 0 then return end
    local any = false
    local landed = KEY.flight(LANDED)
    for _, name in ipairs(names) do
      local flight = KEY.flight(name)
      if redis.call('EXISTS', flight) == 1 then
        redis.call('ZUNIONSTORE', landed, 2, landed, flight)
        redis.call('DEL', flight)
        any = true
      end
    end
    if any then disembark() end
  end

  -- Whether the flight had a leader that holds no lease; then it has ended. A worker of the release
  -- before ends leases, those of dead workers among them, and knows of no flights.
  function flights.is_adrift(name, leader)
    if redis.call('HEXISTS', KEY.owners, leader) == 1 then return false end
    redis.call('HDEL', KEY.leaders, leader)
    end_flights({name})
    return true
  end

  -- The leases of these jobs have ended, and with them the flights that they led.
  function flights.land(ids)
    local names = redis.call('HMGET', KEY.leaders, unpack(ids))
    local led, known, ended = {}, {}, {}
    for i, name in ipairs(names) do
      if name then
        led[#led + 1] = ids[i]
        known[#known + 1] = name
      end
    end
    if #led == 0 then return end
    redis.call('HDEL', KEY.leaders, unpack(led))
    for i, leader in ipairs(redis.call('HMGET', KEY.flights, unpack(known))) do
      if leader == led[i] then ended[#ended + 1] = known[i] end
    end
    if #ended > 0 then end_flights(ended) end
  end

  -- The job follows no flight any more; returns whether it did.
  function flights.quit(id)
    if redis.call('ZREM', KEY.followers, id) == 0 then return false end
    local ticket = read_ticket(redis.call('HGET', KEY.tickets, id) or '')
    if ticket then redis.call('ZREM', KEY.flight(ticket.cached_as), id) end
    redis.call('ZREM', KEY.flight(LANDED), id)
    return true
  end

  -- Followers whose deadline has come return to their queues, to end there. Each call looks whether
  -- one flight, chosen by chance, is still led.
  local function expire()
    local one = redis.call('HRANDFIELD', KEY.flights, 1, 'WITHVALUES')
    if one[2] then flights.is_adrift(one[1], one[2]) end
    local late = redis.call('ZRANGEBYSCORE', KEY.followers, '-inf', now, 'LIMIT', 0, 100)
    for i = #late, 1, -1 do
      flights.quit(late[i])
      send_back(late[i])
    end
  end

  -- Followers whose flight has ended or whose deadline has come return to their queues. Returns
  -- whether there are more of them.
  function flights.return_followers()
    any_followers = redis.call('EXISTS', KEY.followers) == 1
    if not any_followers then return false end
    local more = disembark()
    expire()
    return more
  end

  -- The ms until the next deadline of a follower, or nil.
  function flights.next_late()
    if not any_followers then return nil end
    local first = redis.call('ZRANGE', KEY.followers, 0, 0, 'WITHSCORES')
    return first[2] and math.max(1, tonumber(first[2]) - now)
  end
end
