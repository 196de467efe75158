-- Purpose: answers are thrown away: those named, and what has expired or is over the bound.
-- KEYS: none; `cached` stands before it and names them.
-- ARGV: 1 prefix, 2 bound in bytes (-1: only the named), then fingerprints.
-- Result: {how many there were of the named, 1 if there is more to shed}.
-- Sent twice: finds them gone.
prefix = ARGV[1]
by_clock()
local gone, more = 0, false
for i = 3, #ARGV do
  local there = redis.call('DEL', entry_of(ARGV[i])) == 1
  if cached.strike(ARGV[i]) or there then gone = gone + 1 end
end
if tonumber(ARGV[2]) >= 0 then more = cached.shed(tonumber(ARGV[2])) end
return {gone, more and 1 or 0}
