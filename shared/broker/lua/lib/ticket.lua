-- Purpose: reads tickets (what an attempt will take), and writes the grants that hold nothing.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
local TICKET = '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)$'

-- The model of the catalog of which the ticket's is a snapshot or a fine-tune, or nil. It stands in
-- the flags, behind `~`, in hexadecimal digits.
local function base_of(flags)
  local digits = string.match(flags or '', '~([0-9A-F]+)')
  return digits and (string.gsub(digits, '..', function(two) return string.char(tonumber(two, 16)) end))
end

-- Nil where the text is no ticket. `upper_bound`: pico-USD that the attempt costs at most, or nil.
local function read_ticket(text)
  local t = {}
  t.pool, t.model, t.priority, t.tenant, t.user, t.tier, t.rule, t.input, t.output, t.arrival,
    t.deadline, t.cached_as, t.flags = string.match(text, TICKET)
  if not t.pool then return nil end
  t.input, t.output = tonumber(t.input), tonumber(t.output)
  t.arrival, t.deadline = tonumber(t.arrival), tonumber(t.deadline)
  t.upper_bound = tonumber(string.match(t.flags, '%$(%d+)'))
  t.base = base_of(t.flags)
  return t
end

-- Flags: `r` may go to another model, `f` has followed an equal request, `n` shares no call,
-- `p` its user's limits were charged when it was let in, `w` has waited for a breaker. A digit in
-- front: the priority with which Celery sent it, where that is not 0.
local function has_flag(ticket, flag)
  return string.find(ticket.flags, flag, 1, true) ~= nil
end

-- `kind`: why the job holds nothing. `fact`: what its worker has to know besides, if anything.
local function grant_without_hold(kind, ticket, fact)
  return table.concat({kind, ticket.pool, ticket.model, '', ticket.rule, '0', 0, 0, ticket.tenant,
    ticket.user, ticket.tier, ticket.flags, fact}, '|')
end
