-- Purpose: writes learned values where scripts read them, if their group is still kept.
-- KEYS: 1 ZSET of groups by ms of their last answer, 2 HASH of learned values.
-- ARGV: 1 ms for which values without answers are kept, then for each value: its group, its name,
--   the value.
-- Result: how many were written. Sent twice: writes the same again.
local written = 0
for i = 2, #ARGV, 3 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('HSET', KEYS[2], ARGV[i + 1], ARGV[i + 2])
    written = written + 1
  end
end
if written > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[1]) end
return written
