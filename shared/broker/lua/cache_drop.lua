-- Purpose: throws answers away: those named, and what has expired or is over the bound.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 bound in bytes (-1: only the named), then fingerprints.
-- Result: {how many there were of the named, 1 if there is more to evict}.
-- Sent twice: finds them gone.
-- @include lib/cache
local gone, more = 0, false
for i = 3, #ARGV do
  local there = redis.call('DEL', KEY.cache(ARGV[i])) == 1
  if cached.remove(ARGV[i]) or there then gone = gone + 1 end
end
if tonumber(ARGV[2]) >= 0 then more = cached.evict(tonumber(ARGV[2])) end
return {gone, more and 1 or 0}
