-- Purpose: the signs of living workers.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines a function.
-- @include lib/prelude
local MOST_WORKERS = 1000

-- The texts of all signs that have not expired.
local function signs()
  local found = {}
  for _, name in ipairs(redis.call('ZRANGE', KEY.workers, 0, MOST_WORKERS - 1)) do
    local sign = redis.call('GET', KEY.worker(name))
    if sign then found[#found + 1] = sign end
  end
  return found
end
