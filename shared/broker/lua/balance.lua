-- Purpose: what the record says was spent counts at least, and sums of a period count as read.
--   This stands after `money`.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 how many sums, then for each its scope, its period and
--   pico-USD; then for each scope that says a budget and whose sums were read: period, scope.
-- Result: none. Sent twice: changes nothing more.
local time = redis.call('TIME')
prefix, now = ARGV[1], time[1] * 1000 + time[2] / 1000
local last = 2 + 3 * tonumber(ARGV[2])
for i = 3, last, 3 do money.at_least(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])) end
money.save()
for i = last + 1, #ARGV, 2 do
  local key = prefix .. 'headgate:budget:read:' .. ARGV[i]
  redis.call('HSET', key, ARGV[i + 1], '1')
  redis.call('PEXPIRE', key, 40 * 86400000)
end
return 0
