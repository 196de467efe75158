-- Purpose: what every longer script begins with. KEYS and ARGV: those of the script that follows, which
--   sets `prefix` and `now`. Result: none; it defines functions.
local prefix, now = '', 0 -- now: ms of the server's clock, with fractions

-- The workers of a queue look again.
local function wake_workers(queue)
  local wake = prefix .. 'headgate:wake:' .. queue
  redis.call('RPUSH', wake, '1')
  redis.call('LTRIM', wake, 0, 0)
end
