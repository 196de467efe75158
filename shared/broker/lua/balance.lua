-- Purpose: corrects budgets by the ledger: what the ledger says was spent counts at least, and the sums
--   of a period count as read.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 how many sums, then for each its scope, its period and
--   pico-USD; then for each scope that says a budget and whose sums were read: period, scope.
-- Result: 0. Sent twice: changes nothing more.
-- @include lib/money
local last = 2 + 3 * tonumber(ARGV[2])
for i = 3, last, 3 do money.at_least(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])) end
money.save()
for i = last + 1, #ARGV, 2 do
  local key = KEY.sums_read(ARGV[i])
  redis.call('HSET', key, ARGV[i + 1], '1')
  redis.call('PEXPIRE', key, 40 * FIGURES.DAY_MS)
end
return 0
