-- Purpose: puts messages of new jobs at the end of one queue, once each, and wakes a worker.
-- KEYS: 1 queue, 2 wake, 3 present.
-- ARGV: job id and message, in turns.
-- Result: how many were put; a job that the broker knows already is not put again.
-- Sent twice: the second call finds the ids present and puts nothing.
local put = {}
for i = 1, #ARGV, 2 do
  if redis.call('SADD', KEYS[3], ARGV[i]) == 1 then put[#put + 1] = ARGV[i + 1] end
end
for first = 1, #put, 1000 do
  redis.call('LPUSH', KEYS[1], unpack(put, first, math.min(first + 999, #put)))
end
if #put > 0 then
  redis.call('RPUSH', KEYS[2], '1')
  redis.call('LTRIM', KEYS[2], 0, 0)
end
return #put
