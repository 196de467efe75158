-- Purpose: hands out the jobs of the waiting queues that may start now, the most urgent first, until
--   the worker has enough or no token is left for the next one.
-- KEYS and ARGV: those of the fetch script. Result: none; it defines functions.
--
-- A waiting queue that takes part has besides: `rank` of its first job (nil: nobody may run),
-- `only_user` (who has all jobs there, or nil), `debt` (tokens that are charged by `pay`), and where one
-- user is alone, `next`: tenant, user and member of the next job. A candidate is a job that is looked at: `waiting`
-- (its queue), `tenant`, `user`, `member` (of its user queue), `id`, `ticket`.
-- @include lib/hold
-- @include lib/by_rank
-- @include lib/intake
-- Returns the function that serves waiting queues. Most calls find none: the functions within are only
-- made for those that do.
local function server()
  local SAMPLE = 64 -- jobs that are looked at behind others that have to wait
  local LOOK_MS = 5000 -- a job whose model is down is looked at again after this
  local TRIES = 64 -- candidates that are looked at in one call, over those that are granted
  local lease, not_before, is_full = round_trip.lease, round_trip.not_before, round_trip.is_full
  local fresh = intake.fresh
  -- Pools that have no token: the ms until they surely have, and until they may have. Pools whose only
  -- model is down.
  local shut, may_open, broken = {}, {}, {}

  -- The job leaves its waiting queue; `tokens` are charged to its user and its tenant.
  local function step_out(job, tokens)
    local waiting, weight = job.waiting, 1
    if tokens > 0 then weight = config_of('tenant/' .. job.tenant, 'tenant/*').weight or 1 end
    local debt = waiting.only_user and waiting.debt or nil
    local member, rank = leave(waiting, job.tenant, job.user, job.member, tokens, weight, debt)
    waiting.next = nil
    if waiting.only_user and rank then
      -- The only user here: who is next is known.
      waiting.next, waiting.rank = {job.tenant, job.user, member}, rank
    elseif waiting.only_user then
      waiting.rank = nil
    else
      look_at(waiting)
    end
  end

  -- What is asked of each job that is served is asked for a page at once.
  local held_elsewhere = {}
  on_page = function(page)
    if #page == 2 then return end
    local ids, tickets = {}, {}
    for i = 1, #page, 2 do
      local id, ticket = id_and_ticket(page[i])
      if ticket and not fresh[id] then
        ids[#ids + 1] = id
        tickets[#tickets + 1] = ticket
      end
    end
    if #ids == 0 then return end
    for n, owner in ipairs(redis.call('HMGET', KEY.owners, unpack(ids))) do
      held_elsewhere[ids[n]] = owner ~= false
    end
    intake.look_up(tickets)
  end

  -- A worker that was silent past its lease may have taken the job again: then it runs there, and has
  -- no place here.
  local function is_running(job)
    if fresh[job.id] then return false end
    local is_held = held_elsewhere[job.id]
    if is_held == nil then is_held = redis.call('HEXISTS', KEY.owners, job.id) == 1 end
    if not is_held then return false end
    step_out(job, 0)
    return true
  end

  -- Gives the job to the worker. Returns whether its message was there.
  local function hand_out(job, grant, tokens)
    local id = job.id
    local stored = fresh[id] or redis.call('HGET', KEY.messages, id)
    step_out(job, tokens)
    if stored and stored ~= '' then
      lease(id, grant, stored)
      return true
    end
    save() -- its hold, if it has one, so that it ends
    release({id}, {[id] = 0})
    redis.call('SREM', KEY.present, id)
    return false
  end

  local function follow(job)
    step_out(job, 0)
    flights.follow(job.id, string.match(job.member, '|(.*)$'), job.ticket)
  end

  -- Why a job need not wait on: its deadline is over, or will be before its pool has a token for it;
  -- or its model is down, and another may answer. Else nil.
  local function way_out(ticket, wait)
    if ticket.deadline <= now then return 'late' end
    if has_flag(ticket, 'r') then
      if broken[ticket.pool] then return 'broken' end
      if ticket.deadline <= now + wait then return 'elsewhere' end
    end
    return nil
  end

  -- The job ends here, or goes to another model: then equal ones follow its call there, too.
  local function let_out(job, kind)
    local leads = kind == 'broken' or kind == 'elsewhere'
    if leads and flights.under_way(job.id, job.ticket) then return follow(job) end
    local is_out = hand_out(job, grant_without_hold(kind, job.ticket), 0)
    if is_out and leads then flights.lead(job.id, job.ticket) end
  end

  -- A job whose model is down must not hold up those of other models in its pool: it returns to its
  -- place when a probe may go or the breaker may have closed. Those put off return one each ms.
  local function put_off(job, wait)
    step_out(job, 0)
    local ms = math.min(wait, LOOK_MS) + redis.call('ZCARD', KEY.due)
    local left_ms = math.max(1, job.ticket.deadline - now)
    redis.call('ZADD', KEY.due, whole_ms + math.ceil(math.min(ms, left_ms)), job.id)
  end

  -- Jobs that stand behind others and need not wait on: some by chance in each call. A sorted set of
  -- all deadlines would cost every job what few need.
  local function let_out_within(waiting, wait)
    local who = redis.call('ZRANDMEMBER', waiting.ages)
    if not who then return end
    local tenant, user = string.match(who, '^([^|]*)|(.*)$')
    save_user_queues()
    local user_queue = user_queue_of(waiting, tenant, user)
    for _, member in ipairs(redis.call('ZRANDMEMBER', user_queue, SAMPLE)) do
      if is_full() then return end
      local id, ticket = id_and_ticket(member)
      local kind = ticket and way_out(ticket, wait)
      local job = kind and {waiting = waiting, tenant = tenant, user = user, member = member,
        id = id, ticket = ticket}
      if job and not is_running(job) then
        let_out(job, kind)
        round_trip.more, waiting.is_let_out = true, true
      end
    end
  end

  -- The job of the lowest rank of a waiting queue, whoever's turn it is; nil where there is none.
  local function oldest_job(waiting)
    local oldest = redis.call('ZRANGE', waiting.ages, 0, 0)[1]
    if not oldest then return nil end
    local tenant, user = string.match(oldest, '^([^|]*)|(.*)$')
    local member = first_of(user_queue_of(waiting, tenant, user))
    if not member then return nil end
    local id, ticket = id_and_ticket(member)
    if not ticket then return nil end
    return {waiting = waiting, tenant = tenant, user = user, member = member, id = id, ticket = ticket}
  end

  -- Hands out the first jobs of a waiting queue that need not wait on, while there are any. `wait`: ms
  -- until its pool surely has a token.
  local function let_out_first(waiting, wait)
    pay(waiting)
    while not is_full() do
      local job = oldest_job(waiting)
      if not job then return end
      local kind = way_out(job.ticket, wait) or intake.ready_answer(job.ticket)
      if not kind then
        not_before(job.ticket.deadline - now)
        if wait > 0 then let_out_within(waiting, wait) end
        return
      end
      if not is_running(job) then let_out(job, kind) end
    end
  end

  local function set_aside(waiting, tenant, user, at)
    pay(waiting)
    park(waiting, tenant, user, at)
    waiting.next = nil
  end

  -- The job whose turn it is; or nil and whether the waiting queue is to be looked at again.
  local function candidate(waiting)
    local tenant, user, member
    if waiting.next then
      tenant, user, member = unpack(waiting.next)
    else
      tenant = redis.call('ZRANGE', waiting.tenants, 0, 0)[1]
    end
    if not tenant then
      let_out_first(waiting, 0)
      local parked = redis.call('ZRANGE', waiting.parked, 0, 0, 'WITHSCORES')
      if parked[2] then not_before(math.max(1, tonumber(parked[2]) - now)) end
      return nil, false
    end
    if paused['tenant/' .. tenant] then
      set_aside(waiting, tenant, nil, '+inf')
      return nil, true
    end
    user = user or waiting.only_user or redis.call('ZRANGE', users_of(waiting, tenant), 0, 0)[1]
    member = member or user and first_of(user_queue_of(waiting, tenant, user))
    if not member then
      -- Nobody stands there: keys that were removed by hand.
      redis.call('ZREM', waiting.tenants, tenant)
      return nil, true
    end
    local id, ticket = id_and_ticket(member)
    return {waiting = waiting, tenant = tenant, user = user, member = member, id = id, ticket = ticket}
  end

  -- Whether the job leaves without a token: it is late, its answer is there, or it joins a flight.
  local function needs_none(job)
    local ticket, kind = job.ticket, nil
    if ticket.deadline <= now then
      kind = 'late'
    elseif not fresh[job.id] then
      kind = intake.ready_answer(ticket)
    end
    if kind then
      hand_out(job, grant_without_hold(kind, ticket), 0)
      return true
    end
    if not flights.under_way(job.id, ticket) then return false end
    follow(job)
    return true
  end

  -- The pool keeps the job from starting. Returns whether the waiting queue is to be looked at again.
  local function meet_pool(job, why, wait, far)
    local ticket, pool = job.ticket, job.waiting.pool
    if why == 'large' then
      hand_out(job, grant_without_hold('too large', ticket), 0)
      return true
    end
    if ticket.pinned_key then -- its key is not free, and others may be
      put_off(job, math.max(1, wait))
      return true
    end
    if why == 'broken' then
      if has_flag(ticket, 'r') then
        let_out(job, 'broken')
        return true
      end
      if (config_of('models/' .. without_flex(pool)).n or 1) > 1 then
        put_off(job, wait)
        return true
      end
      broken[pool] = true
    end
    shut[pool] = far
    may_open[pool] = math.max(1, math.min(wait, ticket.deadline - now))
    not_before(wait)
    return false
  end

  -- One job of the waiting queue, or why not: false when nobody of it may run now.
  local function serve_one(waiting)
    local job, again = candidate(waiting)
    if not job then return again end
    if is_running(job) or needs_none(job) then return true end
    local ticket = job.ticket
    local amounts = amounts_of(ticket)
    local why, wait = blocked_by(caller_scopes(ticket), amounts)
    if not why then why, wait = money.blocked(ticket) end
    if why == 'over' or why == 'cheaper' then
      hand_out(job, money.grant(why == 'over' and 'over budget' or why, ticket), 0)
      return true
    end
    if why == 'tenant' or why == 'user' then
      set_aside(waiting, job.tenant, why == 'user' and job.user or nil, now + wait)
      return true
    end
    local key, far
    if not why then
      why, key, far = find_key(ticket, amounts)
      wait = key
    end
    if why then return meet_pool(job, why, wait, far) end
    local grant = take(job.id, ticket, amounts, key)
    if hand_out(job, grant, math.max(1, amounts.tpm)) then flights.lead(job.id, ticket) end
    return true
  end

  -- The moment at which somebody here who was passed over takes part again, or `huge`.
  local function next_unparked(waiting)
    local first = redis.call('ZRANGE', waiting.parked, 0, 0, 'WITHSCORES')
    return tonumber(first[2]) or math.huge
  end

  -- The moment at which something here changes by itself: somebody takes part again, or is late.
  local function next_change(waiting)
    local oldest = oldest_job(waiting)
    return math.min(next_unparked(waiting), oldest and oldest.ticket.deadline or math.huge)
  end

  -- It could go on here: this worker is full, or the call was long enough.
  local function go_on(queue)
    round_trip.more = true
    wake_workers(queue)
  end

  -- Whether others share the limits of the pool: what ends there may open it, and nobody says so.
  local function shares_limits(pool)
    return pool ~= without_flex(pool) or #vendor_scopes(pool, 'key0') > 1
  end

  -- The jobs of a shut pool that need not wait leave it. It is looked at again when the first of its
  -- waiting queues may change by itself.
  local function leave_shut(pool, of_pool)
    local again, stays_ready = now + may_open[pool], shares_limits(pool)
    for _, waiting in ipairs(of_pool) do
      if waiting.rank then let_out_first(waiting, shut[pool]) end
      stays_ready = stays_ready or is_full() or waiting.is_let_out
      again = math.min(again, next_change(waiting))
    end
    for _, waiting in ipairs(of_pool) do
      look_at(waiting)
      if waiting.rank and not stays_ready then
        by_rank.shut_until(waiting, again)
      else
        by_rank.keep(waiting)
      end
    end
  end

  -- Tells the index of all that were looked at, and wakes others for what could go on.
  local function leave_all(queues)
    local by_pool = {}
    if next(shut) then by_rank.look_at_pools(queues, shut) end
    for _, waiting in ipairs(by_rank.looked) do
      local pool = waiting.pool
      if shut[pool] then
        by_pool[pool] = by_pool[pool] or {}
        table.insert(by_pool[pool], waiting)
      elseif waiting.rank then
        go_on(waiting.queue)
        by_rank.keep(waiting)
      elseif waiting.is_passed_over then
        by_rank.shut_until(waiting, next_change(waiting))
      else
        by_rank.keep(waiting)
      end
    end
    for pool, of_pool in pairs(by_pool) do leave_shut(pool, of_pool) end
  end

  return function(queues)
    local tries = round_trip.taken() + asked.want + TRIES
    -- Who has just come back is counted besides: if all of them are passed over again, the others
    -- still come nearer.
    while not is_full() and tries + by_rank.back > 0 do
      tries = tries - 1
      local best = by_rank.first(shut)
      if not best then break end
      if not serve_one(best) and not shut[best.pool] then
        best.rank, best.is_passed_over = nil, true
      end
    end
    if is_full() or tries + by_rank.back <= 0 then by_rank.each_left(go_on) end
    save_user_queues()
    for _, waiting in ipairs(by_rank.looked) do pay(waiting) end
    leave_all(queues)
    save_user_queues()
    by_rank.save()
  end
end

-- From the waiting queues of these queues to this worker.
local function serve(queues)
  if asked.want == 0 and not next(counts) then return end
  local new = {}
  for name in pairs(counts) do new[#new + 1] = name end
  index.heal(new, queues)
  index.open_due(queues)
  round_trip.not_before(index.next_look() or math.huge)
  by_rank.begin(queues)
  if redis.call('EXISTS', KEY.ready_queues) == 1 then server()(queues) end
end
