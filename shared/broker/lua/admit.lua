-- Purpose: lets requests in whose callers would rather be refused than wait. What a request will take
--   is taken from the buckets of its user and tier, or the request is refused. The bucket of its
--   tenant is only looked at, since it is charged when the job starts. Refusals are counted, and lock
--   a user out.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 name of this call, 3 `each`, `together` (all or none),
--   `back` (what calls before have taken for these is given back) or `look` (nothing is taken,
--   counted or kept), then for each request: its
--   ticket, ms of its tier's first lockout (0: none), refusals within a minute that start it.
-- Result: for each request {0} let in; {1, ms, bucket, measure, limit} refused; {2, 0, bucket,
--   measure, limit} takes more than the bucket ever gets in a minute; {3, ms} locked out before;
--   {4, ms, bucket, measure, limit, n} refused and locked out by that, for the n-th time in a day.
--   With `together` the list ends at the first refusal, and nothing was taken. Nil: the server
--   does not know any limits, and the catalog's have to be written first.
-- Sent twice: the answer of the first call again.
-- @include lib/bucket
local MINUTE_MS, DAY_MS = 60000, FIGURES.DAY_MS
local done = KEY.admitted(ARGV[2])
local before = redis.call('GET', done)
if before then return cjson.decode(before) end
if redis.call('EXISTS', KEY.limits) == 0 then return false end
local together, back, look = ARGV[3] == 'together', ARGV[3] == 'back', ARGV[3] == 'look'

local locks = {}
local function lock_of(ticket)
  local name = KEY.lockout(ticket.tenant, ticket.user)
  if not locks[name] then
    local found = redis.call('HMGET', name, 'until', 'count', 'refused')
    locks[name] = {name = name, over = tonumber(found[1] or 0), count = tonumber(found[2] or 0),
      refused = found[3] or ''}
  end
  return locks[name]
end

-- Records one more refusal; returns the ms of a lockout that it starts, or nil.
local function refuse(lock, first_ms, most)
  local last = {}
  for ms in string.gmatch(lock.refused, '%d+') do
    if tonumber(ms) > now - MINUTE_MS then last[#last + 1] = ms end
  end
  last[#last + 1] = string.format('%.0f', now)
  if #last < most then
    lock.refused = table.concat(last, ',')
    redis.call('HSET', lock.name, 'refused', lock.refused)
    if lock.count == 0 then redis.call('PEXPIRE', lock.name, MINUTE_MS) end
    return nil
  end
  lock.count, lock.refused = lock.count + 1, ''
  local span = math.min(DAY_MS, first_ms * 2 ^ (lock.count - 1))
  lock.over = now + span
  redis.call('HSET', lock.name, 'until', string.format('%.0f', lock.over), 'count', lock.count,
    'refused', '')
  redis.call('PEXPIRE', lock.name, math.ceil(span + DAY_MS))
  return math.ceil(span)
end

-- The longest wait in any bucket of the caller: ms (-1: for ever), its scope and measure.
local function longest_wait(scopes, amounts)
  local longest, where, what = 0, nil, nil
  for _, scope in ipairs(scopes) do
    for _, measure in ipairs(MEASURES) do
      local wait = wait_for(scope, measure, amounts[measure])
      if wait < 0 then return wait, scope, measure end
      if wait > longest then longest, where, what = wait, scope, measure end
    end
  end
  return longest, where, what
end

-- The bucket of a tenant is not written: within this call it only counts what this call lets in.
local function take_from_all(scopes, amounts, sign)
  for _, scope in ipairs(scopes) do
    take_from(scope, amounts, sign)
    if scope.kind == 'user' then scope.bucket.changed = true end
  end
end

local function answer_to(ticket, first_ms, most)
  local scopes, amounts = caller_scopes(ticket), amounts_of(ticket)
  if back then
    take_from_all(scopes, amounts, -1)
    return {0}
  end
  local lock = first_ms > 0 and lock_of(ticket)
  if lock and lock.over > now then return {3, math.ceil(lock.over - now)} end
  local wait, where, what = longest_wait(scopes, amounts)
  if wait == 0 then
    if not look then take_from_all(scopes, amounts, 1) end
    return {0}
  end
  local name, limit = where.bucket.name, where.config[what]
  if wait < 0 then return {2, 0, name, what, limit} end
  -- A lockout is for what a user does, not for what others of the tenant or the key do.
  local is_of_user = where.kind == 'user' and string.sub(name, 1, 4) ~= 'key/'
  local span = lock and not look and is_of_user and refuse(lock, first_ms, most)
  if span then return {4, math.max(span, wait), name, what, limit, lock.count} end
  return {1, math.ceil(wait), name, what, limit}
end

local answers, refused = {}, false
for i = 4, #ARGV, 3 do
  local ticket = read_ticket(ARGV[i])
  if not ticket then return redis.error_reply('the ticket cannot be read') end
  local answer = answer_to(ticket, tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))
  answers[#answers + 1] = answer
  if answer[1] ~= 0 then
    refused = true
    if together then break end
  end
end
if look then return answers end
if not (together and refused) then save_buckets() end
redis.call('SET', done, cjson.encode(answers), 'PX', MINUTE_MS)
return answers
