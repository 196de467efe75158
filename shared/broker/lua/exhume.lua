-- Purpose: removes a dead letter; its message returns to a queue, if one is given.
-- KEYS: 1 dead, 2 letters, 3 the letter's message, then to send it back: 4 queue, 5 wake,
--   6 present, 7 crashes.
-- ARGV: 1 the head of the letter, 2 id of its job or empty, 3 the message to send, empty: its own.
-- Result: 1 when it was done, 0 when the letter is gone already, -1 when the broker has the job:
--   then nothing was done.
-- Sent twice: the second call finds no letter and answers 0.
if #KEYS > 3 and ARGV[2] ~= '' and redis.call('SISMEMBER', KEYS[6], ARGV[2]) == 1 then return -1 end
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
local message = ARGV[3]
local stored = redis.call('GET', KEYS[3])
if stored then
  redis.call('HINCRBY', KEYS[2], 'bytes', -#stored)
  redis.call('DEL', KEYS[3])
end
if #KEYS == 3 then return 1 end
if message == '' then message = stored or '' end
if ARGV[2] ~= '' then
  redis.call('SADD', KEYS[6], ARGV[2])
  redis.call('HDEL', KEYS[7], ARGV[2])
end
redis.call('LPUSH', KEYS[4], message)
redis.call('RPUSH', KEYS[5], '1')
redis.call('LTRIM', KEYS[5], 0, 0)
return 1
