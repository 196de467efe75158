-- Purpose: makes the message of a leased job a dead letter, and ends its lease, in one step.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 id and 3 owner of the lease, 4 the reason, without a line break,
--   5 the id under which Celery looks for the result, 6 the record that it finds there, or '' for
--   none, 7 its lifetime in seconds, 8 the group of tasks that the message belongs to, or ''.
-- Result: {id of the letter, bytes of the message, its queue}; empty when the worker no longer
--   holds the job or its message is lost.
-- Sent twice: the second call finds no lease and does nothing.
-- @include lib/dead_letter
-- @include lib/hold
-- @include lib/flights
-- @include lib/refusal
local id = ARGV[2]
if redis.call('HGET', KEY.owners, id) ~= ARGV[3] then return {} end
local letter = {}
local queue, message = split_stored(redis.call('HGET', KEY.messages, id))
if queue then
  letter = {write_letter(queue, ARGV[4], id, message), #message, queue}
  answer_refused(ARGV[5], ARGV[6], ARGV[7], ARGV[8])
end
redis.call('ZREM', KEY.leases, id)
redis.call('HDEL', KEY.owners, id)
release({id})
flights.land({id})
save()
redis.call('HDEL', KEY.tickets, id)
redis.call('HDEL', KEY.messages, id)
redis.call('SREM', KEY.present, id)
redis.call('HDEL', KEY.crashes, id)
redis.call('ZREM', KEY.cancels, id)
return letter
