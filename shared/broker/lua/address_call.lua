-- Purpose: counts one call of an address to the gateway, over all gateways, if its limit lets it in.
--   A minute of the limit may come at once; the mark grows by the time that one call is worth.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 the address, 3 calls a minute.
-- Result: 0, or the ms after which the next call is let in; then nothing was counted.
-- Sent twice: the call counts twice.
-- @include lib/prelude
local MINUTE_MS = 60000
local key = KEY.address_calls(ARGV[2])
local mark = math.max(now, tonumber(redis.call('GET', key) or 0)) + MINUTE_MS / tonumber(ARGV[3])
local over_ms = mark - now - MINUTE_MS
if over_ms > 0.001 then return math.ceil(over_ms) end
redis.call('SET', key, string.format('%.3f', mark), 'PX', math.ceil(mark - now))
return 0
