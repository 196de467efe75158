-- Purpose: how many jobs wait in some lines of a waiting room.
-- KEYS: 1 the `ages` of the room. ARGV: 1 beginning of the keys of its lines, 2 the first line,
--   counted by age, 3 how many.
-- Result: {the place to go on at, or -1 at the end, then tenant and waiting jobs of each line}.
local first, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local found = redis.call('ZRANGE', KEYS[1], first, first + most - 1)
local reply = {#found == most and first + most or -1}
for _, who in ipairs(found) do
  local tenant, user = string.match(who, '^([^|]*)|(.*)$')
  if tenant then
    reply[#reply + 1] = tenant
    reply[#reply + 1] = redis.call('ZCARD', ARGV[1] .. tenant .. ':' .. user)
  end
end
return reply
