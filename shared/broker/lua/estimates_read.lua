-- Purpose: reads the counts of groups, which estimates_learn.lua packs.
-- KEYS: STRING counts of each group. ARGV: none.
-- Result: for each group the JSON of its counts, or nothing when it has gone.
local reply = {}
for n, key in ipairs(KEYS) do
  local packed = redis.call('GET', key)
  reply[n] = packed and cjson.encode(cmsgpack.unpack(packed)) or ''
end
return reply
