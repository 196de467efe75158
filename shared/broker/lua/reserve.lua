-- Purpose: takes the hold of one attempt that follows another in the same run of a job, if nobody waits.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 job id, 3 name of the attempt, 4 its ticket.
-- Result: the grant, or the wait in ms (at least 1): then the job has to go to the waiting queue;
--   -1: it takes more than its bucket gets in a minute; below: its model is down, and -1 less the ms
--   until a probe may go. A grant without a hold says that a budget has no money for it.
-- Sent twice: the hold of this attempt is there already, and nothing more is taken.
-- @include lib/hold
local PAUSED_MS = 1000
local id, attempt = ARGV[2], ARGV[3]
local ticket = read_ticket(ARGV[4])
if not ticket then return redis.error_reply('the ticket cannot be read') end
local held = redis.call('HGET', KEY.holds, id)
if held and string.match(held, '|([^|]*)|[^|]*$') == attempt then return held end
-- A hold of an earlier attempt of the job has ended with it.
if held then release({id}) end

local function is_anybody_waiting()
  local found = false
  each_waiting_queue(function(_, pool) found = found or pool == ticket.pool end)
  return found
end

local function answer()
  if redis.call('SISMEMBER', KEY.paused, 'pool/' .. without_flex(ticket.pool)) == 1
    or redis.call('SISMEMBER', KEY.paused, 'tenant/' .. ticket.tenant) == 1 then
    return PAUSED_MS
  end
  local amounts = amounts_of(ticket)
  local why, wait = blocked_by(caller_scopes(ticket), amounts)
  if not why then why, wait = money.blocked(ticket) end
  if why == 'over' then return money.grant('over budget', ticket) end
  if why == 'cheaper' then return money.grant(why, ticket) end
  local key
  if not why then
    why, key = find_key(ticket, amounts)
    wait = key
  end
  if why == 'large' then return -1 end
  if why == 'broken' then return -1 - math.max(1, wait) end
  if why then return math.max(1, wait) end
  local is_limited = next(vendor_scopes(ticket.pool, key)[1].bucket.measures)
  if is_limited and is_anybody_waiting() then return 1 end
  return take(id, ticket, amounts, key, attempt)
end

local found = answer()
save()
return found
