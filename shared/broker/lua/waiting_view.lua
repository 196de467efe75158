-- Purpose: shows where jobs wait and the state of their pools, in one moment.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 how many jobs are asked for, then their ids, then pools.
-- Result: {now ms, {each job that is in a waiting queue}, {each pool: those named, and of the jobs}}.
--   A job: {id, queue, ticket, jobs before it in its user queue, users of its tenant that take turns,
--   1 if its pool, its tenant or its queue is paused, moments at which its user and its tenant are
--   tried again, or ''}.
--   A pool: {name, {limits of pool, provider and global: catalog's, operator's, in turns, or ''},
--   {bucket of global}, {each key: {name, {bucket of the pool}, {bucket of the provider}, {gate}}},
--   {each waiting queue: {queue, waiting, lowest rank or -1, tenants that take turns, {first tickets
--   of some user queues and the output that is learned for each}}}}.
-- Sent twice: reads only.
-- @include lib/prelude
local SAMPLED = 16 -- user queues of a waiting queue whose first tickets are shown

local jobs, pools, wanted = {}, {}, {}
local function want(pool)
  if not wanted[pool] then
    wanted[pool] = true
    pools[#pools + 1] = pool
  end
end
local last = 2 + tonumber(ARGV[2])
for i = last + 1, #ARGV do want(ARGV[i]) end

local function place_of(id)
  if redis.call('HEXISTS', KEY.owners, id) == 1 then return end
  local stored = redis.call('HGET', KEY.messages, id)
  local cut = stored and string.find(stored, '\n', 1, true)
  if not cut then return end
  local queue = string.sub(stored, 1, cut - 1)
  local ticket = redis.call('HGET', KEY.tickets, id)
    or string.match(stored, '^{"hg":"[%w-]+","at":"([^"\\]*)"', cut + 1)
  if not ticket then return end
  local pool, tenant, user = string.match(ticket, '^([^|]*)|[^|]*|[^|]*|([^|]*)|([^|]*)|')
  if not pool then return end
  local user_queue = KEY.user_queue(queue, pool, tenant, user)
  local before = redis.call('ZRANK', user_queue, id .. '|' .. ticket)
  if not before then return end
  want(pool)
  local users = redis.call('ZCARD', KEY.users(queue, pool, tenant))
  local parked = redis.call('ZMSCORE', KEY.waiting_queue(queue, pool, 'parked'),
    'u|' .. tenant .. '|' .. user, 't|' .. tenant)
  local paused = redis.call('SMISMEMBER', KEY.paused, 'queue/' .. queue, 'tenant/' .. tenant,
    'pool/' .. string.gsub(pool, '~flex$', ''))
  jobs[#jobs + 1] = {id, queue, ticket, before, users, math.max(unpack(paused)), parked[1] or '',
    parked[2] or ''}
end
if redis.call('EXISTS', KEY.waiting_queues) == 1 then
  for i = 3, last do place_of(ARGV[i]) end
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
local states = {}
for i, pool in ipairs(pools) do
  local plain = string.gsub(pool, '~flex$', '')
  local provider = string.match(plain, '^[^/]*')
  local scopes = {'pool/' .. plain, 'provider/' .. provider, 'global'}
  local given = redis.call('HMGET', KEY.limits, 'keys/' .. provider, unpack(scopes))
  local set = redis.call('HMGET', KEY.overrides, unpack(scopes))
  local limits = {}
  for n = 1, 3 do
    limits[#limits + 1] = given[n + 1] or ''
    limits[#limits + 1] = set[n] or ''
  end
  local count = tonumber(string.match(given[1] or '', 'n=(%d+)') or 1)
  local keys = {}
  for n = 0, math.max(1, count) - 1 do
    local key = 'key' .. n
    keys[n + 1] = {key, bucket(scopes[1], key), bucket(scopes[2], key),
      redis.call('HGETALL', KEY.gate(pool, key))}
  end
  states[i] = {pool, limits, bucket('global', ''), keys, waiting_queues[pool] or {}}
end
return {whole_ms, jobs, states}
