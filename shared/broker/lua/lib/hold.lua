-- Purpose: holds: what an attempt has taken of all its buckets and budgets, until it ends.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions. What they
--   change is written by `save`.
--
-- A grant is a text of words joined by `|`: 1 `held`, 2 pool, 3 model, 4 key, 5 rule, 6 whether tokens
-- are settled (1, 0), 7 input and 8 output tokens, 9 tenant, 10 user, 11 tier, 12 flags, 13 ms of the
-- server's clock, 14 to 17 totals granted of the pool (rpm, tpm, input_tpm, output_tpm), 18 money held
-- in budgets, 19 name of the attempt, 20 buckets in which a call runs.
-- @include lib/gate
-- @include lib/money
local MONEY_TEST_MS, TEST_MS = 300000, 60000 -- until the next test of a gate

-- Pool, model, key, flags, money and buckets of a grant. Release 0.1 wrote no money: it finds nothing there.
local HELD = '^[^|]*|([^|]*)|([^|]*)|([^|]*)|' .. string.rep('[^|]*|', 7) .. '([^|]*)|'
  .. string.rep('[^|]*|', 5) .. '([^|]*)|[^|]*|([^|]*)$'
local CALLER = '^' .. string.rep('[^|]*|', 8) .. '([^|]*)|([^|]*)'

local granted_at = string.format('%.0f', whole_ms)

-- Holds that were taken in this call: id and grant, in turns.
local holds = {}
local function save()
  put_in_chunks('HSET', KEY.holds, holds)
  holds = {}
  money.save()
  save_buckets()
end

local function end_hold(id, grant, cost)
  local pool, model, key, flags, held, running = string.match(grant, HELD)
  local of_caller = false
  for name in string.gmatch(running or string.match(grant, '[^|]*$'), '[^,]+') do
    local bucket = buckets[name] or bucket_of(string.match(name, '^(.+)#([^#]*)$'))
    bucket.running = math.max(0, bucket.running - 1)
    bucket.changed = true
    of_caller = of_caller or bucket.of_caller
  end
  if flags and flags ~= '' then breaker.release(id, pool, model, key, flags) end
  if held and held ~= '' then money.release(held, cost) end
  if not of_caller then return end
  -- A caller that had as many calls as it may have has one fewer: it is tried again.
  local tenant, user = string.match(grant, CALLER)
  try_parked('t|' .. tenant, 'u|' .. tenant .. '|' .. user)
  local gateway_key = gateway_key_of(flags)
  if gateway_key then try_parked('u|' .. tenant .. '|' .. user .. '@' .. gateway_key) end
end

-- These holds of these jobs have ended: what they took stays spent, the calls that run are fewer.
-- `costs`: what each has cost in pico-USD, by job; below 0 or nil: its upper bound stays spent.
-- Returns whether there were any. Their pools are looked at again: they may have more now.
local function end_holds(ids, grants, costs)
  local any, pools = false, {}
  local done = {} -- an id may be named twice
  for i, grant in ipairs(grants) do
    local id = ids[i]
    if grant and not done[id] then
      any, done[id] = true, true
      local cost = costs and costs[id] or -1
      end_hold(id, grant, cost >= 0 and cost or nil)
      pools[without_flex(string.match(grant, '^[^|]*|([^|]*)'))] = true
    end
  end
  if any then
    redis.call('HDEL', KEY.holds, unpack(ids))
    index.reopen_pools(pools)
  end
  return any
end

-- The holds of these jobs have ended, if they have any.
local function release(ids, costs)
  return end_holds(ids, redis.call('HMGET', KEY.holds, unpack(ids)), costs)
end

-- A request goes through a gate that it tests: the next one waits.
local function test_gate(gate)
  if not is_tested_gate(gate) then return end
  gate.probe_at = now + (gate.asked and TEST_MS or MONEY_TEST_MS)
  redis.call('HSET', gate.stored_at, 'probe_at', string.format('%.0f', gate.probe_at))
end

-- What a pool has granted of this measure so far, as a word of a grant.
local function total_of(bucket, measure)
  local state = bucket.measures[measure]
  return state and state.total or ''
end

-- The job holds these amounts in all its buckets; returns its grant. An attempt that a worker asks for
-- after its lease has ended holds nothing, since nobody would end its hold: what it takes is spent.
local function take(id, ticket, amounts, key, attempt)
  if attempt then release({id}) end
  local is_held = not attempt or redis.call('HEXISTS', KEY.owners, id) == 1
  local vendor = vendor_scopes(ticket.pool, key)
  local of_pool = vendor[1].bucket
  local running, settles = {}, '0'
  for _, scopes in ipairs({vendor, caller_scopes(ticket)}) do
    for _, scope in ipairs(scopes) do
      local any_tokens = take_from(scope, amounts, 1)
      if any_tokens and (ticket.rule == 'a' or not scope.vendor) then settles = '1' end
      if is_held and (scope.bucket == of_pool or scope.config.concurrent) then
        scope.bucket.running = scope.bucket.running + 1
        running[#running + 1] = scope.bucket.name
      end
      scope.bucket.changed = true
    end
  end
  test_gate(vendor.gate)
  local flags = (has_flag(ticket, 'p') and 'p' or '') .. (has_flag(ticket, 'w') and 'w' or '')
    .. (ticket.base and string.match(ticket.flags, '~[0-9A-F]+') or '')
    .. (ticket.gateway_key and string.match(ticket.flags, '@[0-9A-F]+') or '')
  local grant = table.concat({'held', ticket.pool, ticket.model, key, ticket.rule, settles,
    amounts.input_tpm, amounts.output_tpm, ticket.tenant, ticket.user, ticket.tier,
    flags .. breaker.take(id, ticket, key), granted_at, total_of(of_pool, 'rpm'),
    total_of(of_pool, 'tpm'), total_of(of_pool, 'input_tpm'), total_of(of_pool, 'output_tpm'),
    money.take(id, ticket, is_held), attempt or '', table.concat(running, ',')}, '|')
  if is_held then
    holds[#holds + 1] = id
    holds[#holds + 1] = grant
  end
  return grant
end
