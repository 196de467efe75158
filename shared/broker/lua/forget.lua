-- Purpose: takes jobs that ended on record while they waited out of their waiting queues, flights and
--   the due list at once.
-- KEYS: none. ARGV: 1 prefix of all keys, then ids of jobs.
-- Result: how many were taken out. One that a worker holds, or that no worker has seen yet, is left:
--   whoever runs it finds that it has ended.
-- Sent twice: the second call finds none of them and changes nothing.
-- @include lib/flights
-- @include lib/waiting_queue
local forgotten = 0

-- Whether it was in a waiting queue.
local function leave_queue(id, queue, message)
  local text = redis.call('HGET', KEY.tickets, id) or text_in(message)
  local ticket = text and read_ticket(text)
  if not ticket then return false end
  local waiting, member = waiting_queue(queue, ticket.pool), id .. '|' .. text
  local user = turn_of(ticket)
  if not redis.call('ZSCORE', user_queue_of(waiting, ticket.tenant, user), member) then
    user = ticket.user -- as the release before has it
  end
  if not redis.call('ZSCORE', user_queue_of(waiting, ticket.tenant, user), member) then return false end
  leave(waiting, ticket.tenant, user, member, 0, 1)
  return true
end

for i = 2, #ARGV do
  local id = ARGV[i]
  local stored = redis.call('HEXISTS', KEY.owners, id) == 0 and redis.call('HGET', KEY.messages, id)
  local queue, message = split_stored(stored)
  if queue and (redis.call('ZREM', KEY.due, id) == 1 or leave_queue(id, queue, message)
    or flights.quit(id)) then
    redis.call('HDEL', KEY.messages, id)
    redis.call('HDEL', KEY.tickets, id)
    redis.call('HDEL', KEY.crashes, id)
    redis.call('SREM', KEY.present, id)
    redis.call('ZREM', KEY.cancels, id)
    forgotten = forgotten + 1
  end
end
save_user_queues()
index.drop(save_counts())
return forgotten
