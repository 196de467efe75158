-- Purpose: ends a hold at what was really used. The provider's own buckets are corrected only where
--   the provider corrects its own (Anthropic); those of callers always.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 job id, 3 the grant, 4 input tokens that count, 5 output
--   tokens; both -1: nothing was sent, and all goes back; 6 what it cost in pico-USD, -1: nobody
--   knows, and its upper bound stays spent.
-- Result: 1 when settled, 0 when the job has no such hold (settled before, or lapsed as spent).
-- Sent twice: the second call finds no hold and does nothing.
-- @include lib/hold
local id, grant = ARGV[2], ARGV[3]
if redis.call('HGET', KEY.holds, id) ~= grant then return 0 end
local input, output = tonumber(ARGV[4]), tonumber(ARGV[5])
local unsent = input < 0
local f, n = {}, 0
for word in string.gmatch(grant .. '|', '([^|]*)|') do n = n + 1; f[n] = word end
local ticket = {pool = f[2], model = f[3], rule = f[5], tenant = f[9], user = f[10], tier = f[11], flags = f[12],
  base = base_of(f[12])}
local held = {input_tpm = tonumber(f[7]), output_tpm = tonumber(f[8])}
held.rpm, held.rpd, held.tpm = 1, 1, held.input_tpm + held.output_tpm
local used = {rpm = unsent and 0 or 1, input_tpm = math.max(0, input), output_tpm = math.max(0, output)}
used.tpm = used.input_tpm + used.output_tpm

local function correct(scope)
  if scope.vendor and ticket.rule ~= 'a' and not unsent then return end
  for _, measure in ipairs(MEASURES) do
    local back = held[measure] - (used[measure] or held[measure])
    local state = back ~= 0 and measure ~= 'rpd' and filled(scope, measure, held[measure])
    if state then
      state.level = math.min(state.capacity, state.level + back)
      state.total = (state.total or 0) - back
      scope.bucket.changed = true
    end
  end
  local daily = scope.bucket.measures.rpd
  if unsent and daily and daily.day == today() and daily.used > 0 then
    daily.used = daily.used - 1
    scope.bucket.changed = true
  end
end

local vendor, counted = vendor_scopes(ticket.pool, f[4]), false
local function settle(scope)
  correct(scope)
  counted = counted or scope.config.concurrent
end
for _, scope in ipairs(vendor) do settle(scope) end
for _, scope in ipairs(caller_scopes(ticket)) do settle(scope) end
local cost = tonumber(ARGV[6] or -1)
if unsent then cost = 0 end
money.ends_at(cost >= 0 and cost or nil)
release({id})
save()
-- Who waits for a call to end must not wait for the next look.
if counted or vendor.gate.ceiling_now then wake_pool(ticket.pool) end
return 1
