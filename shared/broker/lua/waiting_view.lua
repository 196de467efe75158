-- Purpose: shows what jobs wait for, and the state of their pools and callers, in one moment.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 how many jobs are asked for, then their ids, then pools.
-- Result: {now ms, day, month, {each job that the broker has}, {each pool: those named, and of the
--   jobs}, {each scope of their callers}, {each bucket of theirs}, {sums of their budgets}, {budgets
--   whose sums were read}, {breakers}, {signs of living workers}, {what is paused}, {pauses}}.
--   A job: {id, `leased`} or {id, `listed`: in its queue} or {id, kind, queue, ticket or '', ...}: of
--   kind `due` with the moment, `follows` with the job that is followed or '', `waits` with the jobs
--   before it in its user queue, the users of its tenant that take turns, and the moments at which its
--   user and its tenant are tried again, or ''.
--   A pool: {name, {limits of pool, provider and global: catalog's, operator's, in turns, or ''},
--   {bucket of global}, {each key: {name, {bucket of the pool}, {bucket of the provider}, {gate}}},
--   {each waiting queue: {queue, waiting, lowest rank or -1, tenants that take turns, {first tickets
--   of some user queues and the output that is learned for each}}}}.
--   A scope: {name, limits of the catalog, of the operator, budget of the catalog}. A bucket: {name,
--   fields}. A sum: {scope, period, spent, held}. A read budget: {period, scope}. A breaker: {model,
--   key, fields}.
-- Sent twice: reads only.
-- @include lib/periods
-- @include lib/signs
-- @include lib/ticket
local SAMPLED = 16 -- user queues of a waiting queue whose first tickets are shown

local function without_flex(pool) return (string.gsub(pool, '~flex$', '')) end

local jobs, pools, wanted = {}, {}, {}
local function want(pool)
  if not wanted[pool] then
    wanted[pool] = true
    pools[#pools + 1] = pool
  end
end
local last = 2 + tonumber(ARGV[2])
for i = last + 1, #ARGV do want(ARGV[i]) end

-- Scopes that bind the callers of the jobs, the names of their buckets, and models, each once.
local scopes, buckets, models = {names = {}}, {names = {}}, {names = {}}
local function note(all, name, value)
  if all[name] then return end
  all[name] = value or true
  all.names[#all.names + 1] = name
end
local function note_caller(ticket)
  local who = ticket.tenant .. '/' .. ticket.user
  note(scopes, 'global')
  note(scopes, 'tenant/*')
  local function add(scope, of_caller)
    note(scopes, scope)
    note(buckets, of_caller, scope)
  end
  add('tenant/' .. ticket.tenant, 'tenant/' .. ticket.tenant)
  if ticket.user ~= '' then add('user/' .. who, 'user/' .. who) end
  if ticket.tier ~= '' then
    local tier = 'tier/' .. ticket.tier
    add(tier, tier .. '/' .. who)
    for _, model in ipairs({ticket.model, ticket.base}) do
      add(tier .. '/' .. model, tier .. '/' .. who .. '/' .. model)
    end
  end
  if ticket.gateway_key then add('key/' .. ticket.gateway_key, 'key/' .. ticket.gateway_key) end
  note(models, string.match(ticket.pool, '^[^/]*') .. '/' .. ticket.model, ticket.pool)
  want(ticket.pool)
end

local function waits(id, queue, text, ticket)
  local pool, tenant, user = ticket.pool, ticket.tenant, turn_of(ticket)
  local before = redis.call('ZRANK', KEY.user_queue(queue, pool, tenant, user), id .. '|' .. text)
  if not before then return {id, 'listed'} end
  note_caller(ticket)
  local parked = redis.call('ZMSCORE', KEY.waiting_queue(queue, pool, 'parked'),
    'u|' .. tenant .. '|' .. user, 't|' .. tenant)
  return {id, 'waits', queue, text, before, redis.call('ZCARD', KEY.users(queue, pool, tenant)),
    parked[1] or '', parked[2] or ''}
end

local function place_of(id)
  if redis.call('HEXISTS', KEY.owners, id) == 1 then return {id, 'leased'} end
  local stored = redis.call('HGET', KEY.messages, id)
  local cut = stored and string.find(stored, '\n', 1, true)
  if not cut then
    return redis.call('SISMEMBER', KEY.present, id) == 1 and {id, 'listed'} or nil
  end
  local queue = string.sub(stored, 1, cut - 1)
  local text = redis.call('HGET', KEY.tickets, id)
    or string.match(stored, '^{"hg":"[%w-]+","at":"([^"\\]*)"', cut + 1)
  local ticket = text and read_ticket(text)
  local due = redis.call('ZSCORE', KEY.due, id)
  if due then
    if ticket then note_caller(ticket) end
    return {id, 'due', queue, text or '', due}
  end
  if not ticket then return {id, 'listed'} end
  if redis.call('ZSCORE', KEY.followers, id) then
    return {id, 'follows', queue, text, redis.call('HGET', KEY.flights, ticket.cached_as) or ''}
  end
  return waits(id, queue, text, ticket)
end
for i = 3, last do
  local place = place_of(ARGV[i])
  if place then jobs[#jobs + 1] = place end
end

local waiting_queues = {}
local function read_waiting_queue(queue, pool, waiting)
  local ages = KEY.waiting_queue(queue, pool, 'ages')
  local heads = redis.call('ZRANGE', ages, 0, SAMPLED - 1, 'WITHSCORES')
  local sample = {}
  for i = 1, #heads, 2 do
    local of_tenant, user = string.match(heads[i], '^([^|]*)|(.*)$')
    local member = user and redis.call('ZRANGE', KEY.user_queue(queue, pool, of_tenant, user), 0, 0)[1]
    local ticket = member and string.match(member, '^[^|]*|(.*)$')
    local model, tenant = string.match(ticket or '', '^[^|]*|([^|]*)|[^|]*|([^|]*)|')
    if model then
      local out = 'out|' .. model .. '|'
      local found = redis.call('HMGET', KEY.learned, out .. tenant .. '|', out .. '*|')
      sample[#sample + 1] = ticket
      sample[#sample + 1] = found[1] or found[2] or ''
    end
  end
  local tenants = redis.call('ZCARD', KEY.waiting_queue(queue, pool, 'tenants'))
  return {queue, waiting, heads[2] or '-1', tenants, sample}
end
if #pools > 0 then
  local counts = redis.call('HGETALL', KEY.waiting_queues)
  for i = 1, #counts, 2 do
    local queue, pool = string.match(counts[i], '^([^ ]*) (.*)$')
    if wanted[pool] then
      waiting_queues[pool] = waiting_queues[pool] or {}
      table.insert(waiting_queues[pool], read_waiting_queue(queue, pool, counts[i + 1]))
    end
  end
end

local function bucket(scope, key) return redis.call('HGETALL', KEY.bucket(scope, key)) end
local function keys_of(pool)
  local given = redis.call('HGET', KEY.limits, 'keys/' .. string.match(pool, '^[^/]*'))
  return math.max(1, tonumber(string.match(given or '', 'n=(%d+)') or 1))
end
local states = {}
for i, pool in ipairs(pools) do
  local plain = without_flex(pool)
  local named = {'pool/' .. plain, 'provider/' .. string.match(plain, '^[^/]*'), 'global'}
  local given = redis.call('HMGET', KEY.limits, unpack(named))
  local set = redis.call('HMGET', KEY.overrides, unpack(named))
  local limits = {}
  for n = 1, 3 do
    limits[#limits + 1] = given[n] or ''
    limits[#limits + 1] = set[n] or ''
  end
  local keys = {}
  for n = 0, keys_of(plain) - 1 do
    local key = 'key' .. n
    keys[n + 1] = {key, bucket(named[1], key), bucket(named[2], key),
      redis.call('HGETALL', KEY.gate(pool, key))}
  end
  states[i] = {pool, limits, bucket('global', ''), keys, waiting_queues[pool] or {}}
end

local texts, levels, sums, read = {}, {}, {}, {}
local times = periods()

-- The fields of a hash by name; an empty hash is not asked.
local function all_of(key, names)
  local found = {}
  if redis.call('EXISTS', key) == 0 then return found end
  for first = 1, #names, 500 do
    local last_of = math.min(first + 499, #names)
    for n, value in ipairs(redis.call('HMGET', key, unpack(names, first, last_of))) do
      found[names[first + n - 1]] = value or nil
    end
  end
  return found
end
local given, set = all_of(KEY.limits, scopes.names), all_of(KEY.overrides, scopes.names)
local money = all_of(KEY.budgets, scopes.names)

local function has_budget(name)
  return money[name] or string.find(set[name] or '', 'usd_per', 1, true)
end
local function read_sums(name)
  for _, period in ipairs({times.day, times.month}) do
    local found = redis.call('HMGET', KEY.budget(name, period), 'spent', 'held')
    if found[1] or found[2] then
      sums[#sums + 1] = {name, period, found[1] or '0', found[2] or '0'}
    end
    if redis.call('HEXISTS', KEY.sums_read(period), name) == 1 then
      read[#read + 1] = {period, name}
    end
  end
end
for _, name in ipairs(scopes.names) do
  local is_tenant = string.find(name, '^tenant/')
  if given[name] or set[name] or money[name] then
    texts[#texts + 1] = {name, given[name] or '', set[name] or '', money[name] or ''}
  end
  if has_budget(name) or is_tenant and has_budget('tenant/*') then read_sums(name) end
end
for _, name in ipairs(buckets.names) do
  local scope = buckets[name]
  local of_every = string.find(scope, '^tenant/') and (given['tenant/*'] or set['tenant/*'])
  local fields = (given[scope] or set[scope] or of_every) and bucket(name, '') or {}
  if #fields > 0 then levels[#levels + 1] = {name, fields} end
end

local breakers = {}
for _, model in ipairs(models.names) do
  for n = 0, keys_of(models[model]) - 1 do
    local fields = redis.call('HGETALL', KEY.breaker(model, 'key' .. n))
    breakers[#breakers + 1] = {model, 'key' .. n, fields}
  end
end

return {whole_ms, times.day, times.month, jobs, states, texts, levels, sums, read, breakers, signs(),
  redis.call('SMEMBERS', KEY.paused), redis.call('HGETALL', KEY.pauses)}
