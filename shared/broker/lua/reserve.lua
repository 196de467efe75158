-- Purpose: the hold of one attempt that follows another in the same run of a job, if nobody waits.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 job id, 3 name of the attempt, 4 its ticket.
-- Result: the grant, or the wait in ms (at least 1): then the job has to go to the waiting room;
--   -1: it takes more than its bucket gets in a minute; below: its model is down, and -1 less the ms
--   until a probe may go. A grant without a hold says that a budget has no money for it.
-- Sent twice: the hold of this attempt is there already, and nothing more is taken.
local time = redis.call('TIME')
prefix, now = ARGV[1], time[1] * 1000 + time[2] / 1000
local id, attempt = ARGV[2], ARGV[3]
local ticket = read_ticket(ARGV[4])
if not ticket then return redis.error_reply('the ticket cannot be read') end
local held = redis.call('HGET', prefix .. HOLDS, id)
if held and string.match(held, '|([^|]*)|[^|]*$') == attempt then return held end
-- A hold of an earlier attempt of the job has ended with it.
if held then release({id}) end
local function answer(value)
  save()
  return value
end
if redis.call('SISMEMBER', prefix .. 'headgate:paused', 'pool/' .. without_flex(ticket.pool)) == 1
  or redis.call('SISMEMBER', prefix .. 'headgate:paused', 'tenant/' .. ticket.tenant) == 1 then
  return answer(1000)
end
local amounts = amounts_of(ticket)
local why, wait = blocked_by(caller_scopes(ticket), amounts)
if not why then why, wait = money.blocked(ticket) end
if why == 'over' then return answer(money.told('over budget', ticket)) end
if why == 'cheaper' then return answer(money.told(why, ticket)) end
local key
if not why then
  why, key = find_key(ticket, amounts)
  wait = key
end
if why == 'large' then return answer(-1) end
if why == 'broken' then return answer(-1 - math.max(1, wait)) end
if why then return answer(math.max(1, wait)) end
local measures = vendor_scopes(ticket.pool, key)[1].bucket.measures
if next(measures) then
  for _, room in ipairs(redis.call('HKEYS', prefix .. 'headgate:rooms')) do
    if string.match(room, '[^ ]*$') == ticket.pool then return answer(1) end
  end
end
return answer(take(id, ticket, amounts, key, attempt))
