-- Purpose: the result of an ended job is stored, told to all who wait for it, and its answer kept
--   for equal requests, in one step.
-- KEYS: 1 result (also the channel), optionally 2 cache entry.
-- ARGV: 1 record, 2 its lifetime in seconds, optionally 3 entry, 4 its lifetime in seconds.
-- Result: how many were waiting.
-- Sent twice: stores the same again; those who wait may hear it twice.
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4]) end
return redis.call('PUBLISH', KEYS[1], ARGV[1])
