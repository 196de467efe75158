-- Purpose: counts the jobs that wait in some user queues of a waiting queue.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 queue, 3 pool, 4 the first user queue, counted by age,
--   5 how many.
-- Result: {the place to go on at, or -1 at the end, then tenant, user, waiting jobs and the first
--   ticket or '' of each user queue}.
-- @include generated/keys
local queue, pool, first, most = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local found = redis.call('ZRANGE', KEY.waiting_queue(queue, pool, 'ages'), first, first + most - 1)
local reply = {#found == most and first + most or -1}
for _, who in ipairs(found) do
  local tenant, user = string.match(who, '^([^|]*)|(.*)$')
  if tenant then
    local user_queue = KEY.user_queue(queue, pool, tenant, user)
    local member = redis.call('ZRANGE', user_queue, 0, 0)[1] or ''
    reply[#reply + 1] = tenant
    reply[#reply + 1] = user
    reply[#reply + 1] = redis.call('ZCARD', user_queue)
    reply[#reply + 1] = string.match(member, '^[^|]*|(.*)$') or ''
  end
end
return reply
