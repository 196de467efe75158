-- Purpose: ends a hold: gives back to the buckets what was held over what was used, or takes the rest.
-- KEYS: 1 hold, then the buckets in the order of the reservation.
-- ARGV: for each bucket: capacity, amount used.
-- Result: 1 when settled, 0 when there was no hold (settled before, or lapsed as spent).
-- Sent twice: the second call finds no hold and does nothing.
local held = redis.call('GET', KEYS[1])
if not held then return 0 end
redis.call('DEL', KEYS[1])
local k = 2
for amount in string.gmatch(held, '%S+') do
  local level = redis.call('HGET', KEYS[k], 'level')
  if level then
    local settled = tonumber(level) + tonumber(amount) - tonumber(ARGV[2 * k - 2])
    redis.call('HSET', KEYS[k], 'level',
      string.format('%.6f', math.min(tonumber(ARGV[2 * k - 3]), settled)))
  end
  k = k + 1
end
return 1
