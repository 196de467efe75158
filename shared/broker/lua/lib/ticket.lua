-- Purpose: reads tickets (what an attempt will take), and writes the grants that hold nothing.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
local TICKET = '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)$'

-- The model of the catalog of which the ticket's is a snapshot or a fine-tune, or nil. It stands in
-- the flags, behind `~`, in hexadecimal digits.
local function base_of(flags)
  if not flags or not string.find(flags, '~', 1, true) then return nil end
  local digits = string.match(flags, '~([0-9A-F]+)')
  return digits and (string.gsub(digits, '..', function(two) return string.char(tonumber(two, 16)) end))
end

-- The id of the gateway key that the job came with, or nil. Its digits stand in the flags, behind `@`.
local function gateway_key_of(flags)
  if not flags or not string.find(flags, '@', 1, true) then return nil end
  local digits = string.match(flags, '@([0-9A-F]+)')
  return digits and 'hgk_' .. string.lower(digits)
end

-- The only key of the provider that serves the job, or nil. Its number stands behind `%`.
local function pinned_key_of(flags)
  if not flags or not string.find(flags, '%', 1, true) then return nil end
  local number = string.match(flags, '%%(%d+)')
  return number and 'key' .. number
end

-- The letters of flags, as a set; most tickets have the same. Other flags have no small letters.
local sets = {}
local function letters_of(flags)
  local letters = string.gsub(flags, '[^a-z]+', '')
  local set = sets[letters]
  if not set then
    set = {}
    for letter in string.gmatch(letters, '.') do set[letter] = true end
    sets[letters] = set
  end
  return set
end

local function bound_of(flags)
  local at = string.find(flags, '$', 1, true)
  return at and tonumber(string.match(flags, '^%d+', at + 1))
end

-- Nil where the text is no ticket. `upper_bound`: pico-USD that the attempt costs at most, or nil.
-- `id` and `scopes` are filled in by others.
local function read_ticket(text)
  local pool, model, priority, tenant, user, tier, rule, input, output, arrival, deadline, cached_as,
    flags = string.match(text, TICKET)
  if not pool then return nil end
  -- All at once: a table that grows is made anew again and again.
  return {pool = pool, model = model, priority = priority, tenant = tenant, user = user, tier = tier,
    rule = rule, input = tonumber(input), output = tonumber(output), arrival = tonumber(arrival),
    deadline = tonumber(deadline), cached_as = cached_as, flags = flags,
    upper_bound = bound_of(flags), base = base_of(flags), gateway_key = gateway_key_of(flags),
    pinned_key = pinned_key_of(flags),
    letters = letters_of(flags), id = false, scopes = false}
end

-- Who takes turns for this job: its user, and apart from that the user with each gateway key, so that
-- a key that has used up its limits does not hold up others.
local function turn_of(ticket)
  if not ticket.gateway_key then return ticket.user end
  return ticket.user .. '@' .. ticket.gateway_key
end

-- The ticket that the head of a message holds, or nil.
local function text_in(message)
  local from = string.match(message, '^{"hg":"[%w-]+","at":"()')
  local to = from and string.find(message, '"', from, true)
  local text = to and string.sub(message, from, to - 1)
  return text and not string.find(text, '\\', 1, true) and text or nil
end

-- Flags: `r` may go to another model, `f` has followed an equal request, `n` shares no call,
-- `p` its user's limits were charged when it was let in, `w` has waited for a breaker. A digit in
-- front: the priority with which Celery sent it, where that is not 0.
local function has_flag(ticket, flag)
  return ticket.letters[flag] == true
end

-- `kind`: why the job holds nothing. `fact`: what its worker has to know besides, if anything.
local function grant_without_hold(kind, ticket, fact)
  return table.concat({kind, ticket.pool, ticket.model, '', ticket.rule, '0', 0, 0, ticket.tenant,
    ticket.user, ticket.tier, ticket.flags, fact}, '|')
end
