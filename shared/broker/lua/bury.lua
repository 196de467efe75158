-- Purpose: the message of a leased job becomes a dead letter, and its lease ends, in one step.
-- KEYS: 1 leases, 2 owners, 3 messages, 4 present, 5 crashes, 6 cancels, 7 dead, 8 letters.
-- ARGV: 1 prefix of all keys, 2 id and 3 owner of the lease, 4 the reason, without a line break.
-- Result: {id of the letter, bytes of the message, its queue}; empty when the worker no longer
--   holds the job or its message is lost.
-- Sent twice: the second call finds no lease and does nothing.
local id = ARGV[2]
local time = redis.call('TIME')
prefix, now = ARGV[1], time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('HGET', KEYS[2], id) ~= ARGV[3] then return {} end
local stored = redis.call('HGET', KEYS[3], id)
local cut = stored and string.find(stored, '\n', 1, true)
local letter = {}
if cut then
  local queue, message = string.sub(stored, 1, cut - 1), string.sub(stored, cut + 1)
  local made = write_letter(ARGV[1], KEYS[7], KEYS[8], now, queue, ARGV[4], id, message)
  letter = {made, #message, queue}
end
redis.call('ZREM', KEYS[1], id)
redis.call('HDEL', KEYS[2], id)
release({id})
flights.land({id})
save()
redis.call('HDEL', prefix .. 'headgate:tickets', id)
redis.call('HDEL', KEYS[3], id)
redis.call('SREM', KEYS[4], id)
redis.call('HDEL', KEYS[5], id)
redis.call('ZREM', KEYS[6], id)
return letter
