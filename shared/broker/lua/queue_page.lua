-- Purpose: lists the ids of the messages in a part of a queue, without their content.
-- KEYS: 1 queue. ARGV: 1 the first place, counted from the next message to run.
-- Result: {the place to go on at, or -1 at the end, then the ids}. It ends early after 1 MB of
--   messages. A key that is no list has none.
local first, found, bytes = tonumber(ARGV[1]), {-1}, 0
for at = first, first + 990, 10 do
  local page = redis.pcall('LRANGE', KEYS[1], -at - 10, -at - 1)
  if page.err or #page == 0 then return found end
  for _, message in ipairs(page) do
    bytes = bytes + #message
    local id = string.match(message, '^{"hg":"([%w-]+)') or string.match(message, '"id": ?"([%w-]+)"')
    if id then found[#found + 1] = id end
  end
  if #page < 10 then return found end
  found[1] = at + 10
  if bytes > 1048576 then return found end
end
return found
