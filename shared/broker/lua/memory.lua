-- Purpose: tells how many bytes some keys take: those named, and a sample of all.
-- KEYS: those to measure. ARGV: 1 how many others to look at, at least.
-- Result: {how many keys there are, bytes of each of KEYS, then name and bytes of each other one}. What
--   SCAN finds first is a fair sample: it follows the order of hashes.
-- Sent twice: measures again; it changes nothing.
local found, known, most = {redis.call('DBSIZE')}, {}, tonumber(ARGV[1])
-- 0 for a key that the user may not look at.
local function bytes_of(key)
  local bytes = redis.pcall('MEMORY', 'USAGE', key)
  return type(bytes) == 'number' and bytes or 0
end
for _, key in ipairs(KEYS) do
  found[#found + 1] = bytes_of(key)
  known[key] = true
end
local cursor, looked_at = '0', 0
repeat
  local page = redis.call('SCAN', cursor, 'COUNT', 100)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    looked_at = looked_at + 1
    if not known[key] then
      found[#found + 1] = key
      found[#found + 1] = bytes_of(key)
    end
  end
until cursor == '0' or looked_at >= most
return found
