-- Purpose: what every longer script begins with. KEYS and ARGV: those of the script that follows, which
--   sets `prefix` and `now`. Result: none; it defines functions.
local prefix, now = '', 0 -- now: ms of the server's clock, with fractions

-- The workers of a queue look again.
local function wake_workers(queue)
  local wake = prefix .. 'headgate:wake:' .. queue
  redis.call('RPUSH', wake, '1')
  redis.call('LTRIM', wake, 0, 0)
end

local TICKET = '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)$'
local function read_ticket(text)
  local t = {}
  t.pool, t.model, t.priority, t.tenant, t.user, t.tier, t.rule, t.input, t.output, t.arrival,
    t.deadline, t.cached_as, t.flags = string.match(text, TICKET)
  if not t.pool then return nil end
  t.input, t.output = tonumber(t.input), tonumber(t.output)
  t.arrival, t.deadline = tonumber(t.arrival), tonumber(t.deadline)
  t.worst = tonumber(string.match(t.flags, '%$(%d+)'))
  return t
end
