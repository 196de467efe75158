-- Purpose: ends holds at what was really used. The provider's own buckets are corrected only where
--   the provider corrects its own (Anthropic); those of callers always.
-- KEYS: none. ARGV: 1 prefix of all keys, then for each hold: its job id, the grant, input tokens that
--   count, output tokens; both -1: nothing was sent, and all goes back; what it cost in pico-USD, -1:
--   nobody knows, and its upper bound stays spent.
-- Result: for each 1 when settled, 0 when the job has no such hold (settled before, or lapsed as spent).
-- Sent twice: the second call finds no hold and does nothing.
-- @include lib/hold
local WORDS = 5

-- Gives back to a scope what of this hold was not used.
local function correct(scope, ticket, held, used, is_unsent)
  if scope.vendor and ticket.rule ~= 'a' and not is_unsent then return end
  for _, measure in ipairs(scope.limited) do
    local back = held[measure] - (used[measure] or held[measure])
    local state = back ~= 0 and measure ~= 'rpd' and filled(scope, measure, held[measure])
    if state then
      state.level = math.min(state.capacity, state.level + back)
      state.total = (state.total or 0) - back
      scope.bucket.changed = true
    end
  end
  local daily = scope.bucket.measures.rpd
  if is_unsent and daily and daily.day == today() and daily.used > 0 then
    daily.used = daily.used - 1
    scope.bucket.changed = true
  end
end

-- Pools in which others may go on since a call has ended: they must not wait for the next look.
local freed = {}

local function settle(grant, input, output)
  local is_unsent = input < 0
  local f, n = {}, 0
  for word in string.gmatch(grant .. '|', '([^|]*)|') do n = n + 1; f[n] = word end
  local ticket = {pool = f[2], model = f[3], rule = f[5], tenant = f[9], user = f[10], tier = f[11],
    flags = f[12], base = base_of(f[12]), gateway_key = gateway_key_of(f[12]),
    letters = letters_of(f[12])}
  local held = {rpm = 1, rpd = 1, input_tpm = tonumber(f[7]), output_tpm = tonumber(f[8])}
  held.tpm = held.input_tpm + held.output_tpm
  local used = {rpm = is_unsent and 0 or 1, input_tpm = math.max(0, input), output_tpm = math.max(0, output)}
  used.tpm = used.input_tpm + used.output_tpm
  local vendor = vendor_scopes(ticket.pool, f[4])
  for _, scope in ipairs(vendor) do
    correct(scope, ticket, held, used, is_unsent)
    if scope.config.concurrent then freed[ticket.pool] = true end
  end
  for _, scope in ipairs(caller_scopes(ticket)) do
    correct(scope, ticket, held, used, is_unsent)
    if scope.config.concurrent then freed[ticket.pool] = true end
  end
  if vendor.gate.ceiling_now then freed[ticket.pool] = true end
end

local reply, ids, settled, grants, costs = {}, {}, {}, {}, {}
for i = 2, #ARGV, WORDS do ids[#ids + 1] = ARGV[i] end
for n, grant in ipairs(redis.call('HMGET', KEY.holds, unpack(ids))) do
  local id, at = ids[n], WORDS * n - 3
  local is_held = grant == ARGV[at + 1] and not costs[id]
  reply[n] = is_held and 1 or 0
  if is_held then
    local input, cost = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 4])
    settle(grant, input, tonumber(ARGV[at + 3]))
    settled[#settled + 1], grants[#grants + 1] = id, grant
    costs[id] = input < 0 and 0 or cost
  end
end
if #settled > 0 then end_holds(settled, grants, costs) end
save()
for pool in pairs(freed) do wake_pool(pool) end
return reply
