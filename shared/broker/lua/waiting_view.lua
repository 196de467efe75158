-- Purpose: what the governor knows, in one moment: where jobs wait, and the state of their pools.
-- KEYS: 1 messages, 2 owners, 3 tickets, 4 rooms, 5 limits, 6 overrides, 7 learned,
--   8 paused.
-- ARGV: 1 prefix of all keys, 2 how many jobs are asked for, then their ids, then pools.
-- Result: {now ms, {each of the jobs that waits in a room: {id, queue, ticket, jobs before it in its
--   line, users of its tenant that take turns, 1 if its pool, its tenant or its queue is paused,
--   moments at which its user and its tenant are tried again, or ''}}, {each of the pools, and of those of the jobs: {pool, {limits of pool, provider and
--   global: catalog's, operator's, in turns, or ''}, {bucket of global}, {each key: {name, {bucket of
--   the pool}, {bucket of the provider}, {gate}}}, {each room: {queue, waiting, lowest rank or -1,
--   tenants that take turns, {first tickets of some lines and the output that is learned for each}}}}}}.
-- Sent twice: reads only.
local prefix = ARGV[1]
local SAMPLED = 16
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function room_of(room, part) return prefix .. 'headgate:room:' .. room .. ':' .. part end
local function line_of(room, who)
  return prefix .. 'headgate:line:' .. room .. ':' .. string.gsub(who, '|', ':', 1)
end

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
  if redis.call('HEXISTS', KEYS[2], id) == 1 then return end
  local stored = redis.call('HGET', KEYS[1], id)
  local cut = stored and string.find(stored, '\n', 1, true)
  if not cut then return end
  local queue = string.sub(stored, 1, cut - 1)
  local ticket = redis.call('HGET', KEYS[3], id)
    or string.match(stored, '^{"hg":"[%w-]+","at":"([^"\\]*)"', cut + 1)
  if not ticket then return end
  local pool, tenant, user = string.match(ticket, '^([^|]*)|[^|]*|[^|]*|([^|]*)|([^|]*)|')
  if not pool then return end
  local room = queue .. ' ' .. pool
  local before = redis.call('ZRANK', line_of(room, tenant .. '|' .. user), id .. '|' .. ticket)
  if not before then return end
  want(pool)
  local users = redis.call('ZCARD', prefix .. 'headgate:users:' .. room .. ':' .. tenant)
  local parked = redis.call('ZMSCORE', room_of(room, 'parked'), 'u|' .. tenant .. '|' .. user, 't|' .. tenant)
  local paused = redis.call('SMISMEMBER', KEYS[8], 'queue/' .. queue, 'tenant/' .. tenant,
    'pool/' .. string.gsub(pool, '~flex$', ''))
  jobs[#jobs + 1] = {id, queue, ticket, before, users, math.max(unpack(paused)), parked[1] or '',
    parked[2] or ''}
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  for i = 3, last do place_of(ARGV[i]) end
end

local rooms = {}
local function read_room(queue, pool, waiting)
  local room = queue .. ' ' .. pool
  local heads = redis.call('ZRANGE', room_of(room, 'ages'), 0, SAMPLED - 1, 'WITHSCORES')
  local sample = {}
  for i = 1, #heads, 2 do
    local member = redis.call('ZRANGE', line_of(room, heads[i]), 0, 0)[1]
    local ticket = member and string.match(member, '^[^|]*|(.*)$')
    local model, tenant = string.match(ticket or '', '^[^|]*|([^|]*)|[^|]*|([^|]*)|')
    if model then
      local out = 'out|' .. model .. '|'
      local found = redis.call('HMGET', KEYS[7], out .. tenant .. '|', out .. '*|')
      sample[#sample + 1] = ticket
      sample[#sample + 1] = found[1] or found[2] or ''
    end
  end
  return {queue, waiting, heads[2] or '-1', redis.call('ZCARD', room_of(room, 'tenants')), sample}
end
if #pools > 0 then
  local counts = redis.call('HGETALL', KEYS[4])
  for i = 1, #counts, 2 do
    local queue, pool = string.match(counts[i], '^([^ ]*) (.*)$')
    if wanted[pool] then
      rooms[pool] = rooms[pool] or {}
      table.insert(rooms[pool], read_room(queue, pool, counts[i + 1]))
    end
  end
end

local function bucket(name) return redis.call('HGETALL', prefix .. 'headgate:bucket:' .. name) end
local states = {}
for i, pool in ipairs(pools) do
  local plain = string.gsub(pool, '~flex$', '')
  local provider = string.match(plain, '^[^/]*')
  local scopes = {'pool/' .. plain, 'provider/' .. provider, 'global'}
  local given = redis.call('HMGET', KEYS[5], 'keys/' .. provider, unpack(scopes))
  local set = redis.call('HMGET', KEYS[6], unpack(scopes))
  local limits = {}
  for n = 1, 3 do
    limits[#limits + 1] = given[n + 1] or ''
    limits[#limits + 1] = set[n] or ''
  end
  local count = tonumber(string.match(given[1] or '', 'n=(%d+)') or 1)
  local keys = {}
  for n = 0, math.max(1, count) - 1 do
    local key = '#key' .. n
    keys[n + 1] = {'key' .. n, bucket(scopes[1] .. key), bucket(scopes[2] .. key),
      redis.call('HGETALL', prefix .. 'headgate:gate:' .. pool .. key)}
  end
  states[i] = {pool, limits, bucket('global#'), keys, rooms[pool] or {}}
end
return {now, jobs, states}
