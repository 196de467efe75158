-- Purpose: answers which jobs are neither leased nor deferred nor in a waiting queue.
-- KEYS: 1 messages. ARGV: job ids.
-- Result: the ids of those that have no message there.
local absent = {}
for _, id in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1], id) == 0 then absent[#absent + 1] = id end
end
return absent
