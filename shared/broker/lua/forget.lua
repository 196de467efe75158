-- Purpose: jobs that ended on record while they waited leave their lines and the due-list at once.
--   This stands after `buckets` and `rooms`.
-- KEYS: none. ARGV: 1 prefix of all keys, then ids of jobs.
-- Result: how many were taken out. One that a worker holds, or that no worker has seen yet, is left:
--   whoever runs it finds that it has ended.
-- Sent twice: the second call finds none of them and changes nothing.
local time = redis.call('TIME')
prefix, now = ARGV[1], time[1] * 1000 + time[2] / 1000
local messages, tickets = prefix .. 'headgate:messages', prefix .. 'headgate:tickets'
local forgotten = 0

-- Whether it was in line; elsewhere its message is not the rooms' business.
local function leave_line(id, stored, cut)
  local text = redis.call('HGET', tickets, id)
    or string.match(stored, '^{"hg":"[%w-]+","at":"([^"\\]*)"', cut + 1)
  local ticket = text and read_ticket(text)
  if not ticket then return false end
  local room, member = string.sub(stored, 1, cut - 1) .. ' ' .. ticket.pool, id .. '|' .. text
  if not redis.call('ZSCORE', line_of(room, ticket.tenant, ticket.user), member) then return false end
  leave(room, ticket.tenant, ticket.user, member, 0, 1)
  return true
end

for i = 2, #ARGV do
  local id = ARGV[i]
  local stored = redis.call('HEXISTS', prefix .. 'headgate:owners', id) == 0
    and redis.call('HGET', messages, id)
  local cut = stored and string.find(stored, '\n', 1, true)
  if cut and (redis.call('ZREM', prefix .. 'headgate:due', id) == 1 or leave_line(id, stored, cut)
    or flights.quit(id)) then
    redis.call('HDEL', messages, id)
    redis.call('HDEL', tickets, id)
    redis.call('HDEL', prefix .. 'headgate:crashes', id)
    redis.call('SREM', prefix .. 'headgate:present', id)
    redis.call('ZREM', prefix .. 'headgate:cancels', id)
    forgotten = forgotten + 1
  end
end
save_counts()
return forgotten
