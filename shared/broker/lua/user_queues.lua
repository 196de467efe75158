-- Purpose: counts the jobs that wait in some user queues of a waiting queue.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 queue, 3 pool, 4 the first user queue, counted by age,
--   5 how many.
-- Result: {the place to go on at, or -1 at the end, then tenant and waiting jobs of each user queue}.
-- @include generated/keys
local queue, pool, first, most = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local found = redis.call('ZRANGE', KEY.waiting_queue(queue, pool, 'ages'), first, first + most - 1)
local reply = {#found == most and first + most or -1}
for _, who in ipairs(found) do
  local tenant, user = string.match(who, '^([^|]*)|(.*)$')
  if tenant then
    reply[#reply + 1] = tenant
    reply[#reply + 1] = redis.call('ZCARD', KEY.user_queue(queue, pool, tenant, user))
  end
end
return reply
