-- Purpose: budgets in pico-USD (1e-12 USD) per scope and period. A period is a UTC day (`20261121`) or
--   month (`202611`) of the server's clock. The upper bound of what an attempt can cost is held from
--   its grant to its end, and what it did cost is spent then. An attempt whose cost nobody can know
--   (its worker died, its answer was cut off) counts as spent at its upper bound.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions. What they
--   change is written by `money.save`.
--
-- Budgets are texts of `NAME=VALUE`: usd_per_day, usd_per_month, soft and hard (shares at which jobs
-- of low priority and all jobs stop), alerts (shares, with commas), at_soft (`wait`, or the model
-- that is asked in place of more expensive ones).
-- @include generated/figures
-- @include lib/periods
-- @include lib/ticket
-- @include lib/wake
local money = {}
do
  local PICO, DAY_MS = 1e12, FIGURES.DAY_MS
  -- How long jobs wait for the sums of the ledger, for what others hold, and for a new period. Those
  -- who wait for what others hold are woken when there is money.
  local READ_MS, HELD_MS, SOFT_MS = 250, 5000, 60000
  local WITH_KEYS = '2' -- jobs with gateway keys wait for the money, too
  local KEPT_DAYS = {[8] = 3, [6] = 40}
  -- A hard stop is never reached to the cent: a refusal with this share of it spent counts as reaching it.
  local FULL = 0.9
  local MOST_ALERTS, ALERT_MS = 1000, 7 * DAY_MS

  local function pico(amount) return string.format('%.0f', amount) end

  -- How many scopes have a budget: nil when nobody has written them to this server (it is new, or came
  -- back empty), 0 when there are none. One field of the budgets is no scope: it names the catalog.
  local counted
  local function how_many()
    if counted == nil then
      counted = redis.call('HLEN', KEY.budgets) - 1
      if counted == 0 then counted = redis.call('HLEN', KEY.overrides) end
    end
    return counted >= 0 and counted or nil
  end

  local function override(config, text)
    for name, value in string.gmatch(text or '', '([%a_]+)=(%S+)') do
      config[name] = value ~= 'none' and value or nil
    end
  end

  -- The budget of a scope, where an operator overrides the catalog; false where it has none.
  -- `source`: the scope that says it, which may be that of every tenant.
  local configs = {}
  local function budget_of(scope)
    local config = configs[scope]
    if config ~= nil then return config end
    config = {source = scope}
    local fallback = string.match(scope, '^tenant/') and 'tenant/*' or scope
    local found = redis.call('HMGET', KEY.budgets, scope, fallback)
    local set = redis.call('HMGET', KEY.overrides, scope, fallback)
    override(config, found[1] or found[2])
    if not found[1] then override(config, set[2]) end
    override(config, set[1])
    if not (found[1] or string.find(set[1] or '', 'usd_per', 1, true)) then config.source = fallback end
    config.soft, config.hard = tonumber(config.soft or 1), tonumber(config.hard or 1.2)
    config.day = config.usd_per_day and math.floor(tonumber(config.usd_per_day) * PICO + 0.5)
    config.month = config.usd_per_month and math.floor(tonumber(config.usd_per_month) * PICO + 0.5)
    if not (config.day or config.month) then config = false end
    configs[scope] = config
    return config
  end

  -- What is spent and held of a scope in a period, with what this call changes.
  local all_sums = {}
  local function sums_of(scope, period)
    local name = scope .. ':' .. period
    local sums = all_sums[name]
    if sums then return sums end
    local key = KEY.budget(scope, period)
    local found = redis.call('HMGET', key, 'spent', 'held', 'waits')
    sums = {key = key, scope = scope, period = period, spent = tonumber(found[1] or 0),
      held = tonumber(found[2] or 0), waits = found[3], more_spent = 0, more_held = 0}
    all_sums[name] = sums
    return sums
  end

  local function change(sums, spent, held)
    sums.spent, sums.more_spent = sums.spent + spent, sums.more_spent + spent
    sums.held, sums.more_held = sums.held + held, sums.more_held + held
    sums.changed = true
  end

  -- The budgets that bind a caller: kind, scope, period, limit, config.
  local by_caller = {}
  local function budgets_of(ticket)
    local who = ticket.tenant .. '|' .. ticket.user .. '|' .. (ticket.gateway_key or '')
    local budgets = by_caller[who]
    if budgets then return budgets end
    budgets = {}
    local function add(kind, scope)
      local config = budget_of(scope)
      for _, span in ipairs(config and {'day', 'month'} or {}) do
        if config[span] then
          budgets[#budgets + 1] = {kind = kind, scope = scope, period = periods()[span],
            limit = config[span], config = config}
        end
      end
    end
    add('tenant', 'global')
    add('tenant', 'tenant/' .. ticket.tenant)
    if ticket.user ~= '' then add('user', 'user/' .. ticket.tenant .. '/' .. ticket.user) end
    if ticket.gateway_key then add('user', 'key/' .. ticket.gateway_key) end
    by_caller[who] = budgets
    return budgets
  end

  -- Whether the sums of this budget were read from the ledger. If not, a worker is asked to read them.
  local read = {}
  local function is_read(budget)
    local name = budget.period .. ' ' .. budget.config.source
    if read[name] == nil then
      read[name] = redis.call('HEXISTS', KEY.sums_read(budget.period), budget.config.source) == 1
      if not read[name] then redis.call('HSET', KEY.budgets, 'wanted', '1') end
    end
    return read[name]
  end

  -- Whether one budget lets this upper bound through: nil, or `unread`, `over`, `held` (it would fit
  -- without what others hold), or `soft` (its soft share is spent, and the job has low priority).
  local function checked(budget, ticket)
    if not is_read(budget) then return 'unread' end
    local sums, hard = sums_of(budget.scope, budget.period), budget.limit * budget.config.hard
    local bound = ticket.upper_bound
    if not bound or sums.spent + bound > hard then
      money.why = table.concat({budget.scope, budget.period, pico(budget.limit), pico(hard),
        pico(sums.spent), pico(sums.held), bound and pico(bound) or ''}, ':')
      if bound and sums.spent >= FULL * hard then sums.full, sums.changed = true, true end
      return 'over'
    end
    if sums.spent + sums.held + bound > hard then
      local turns = ticket.gateway_key and WITH_KEYS or '1'
      if not sums.waits or (turns == WITH_KEYS and sums.waits ~= turns) then
        sums.waits, sums.marked, sums.changed = turns, true, true
      end
      return 'held'
    end
    if ticket.priority == 'b' and sums.spent >= budget.limit * budget.config.soft then return 'soft' end
    return nil
  end

  -- What happens to a job of low priority whose soft share is spent: it waits, or another model is asked.
  local function at_soft(budget, ticket)
    local other = budget.config.at_soft or 'wait'
    if other == ticket.model then return nil end
    if other == 'wait' then
      return budget.kind, math.min(SOFT_MS, DAY_MS - now % DAY_MS + 1)
    end
    money.why = other
    return 'cheaper', 0
  end

  -- Nil when the budgets of the ticket's caller let its upper bound through. Else what keeps it, and
  -- for how many ms: `tenant` or `user` (passed over until then), `over` (it ends) or `cheaper` (another
  -- model is to be asked). `money.grant` names the budget or the model.
  function money.blocked(ticket)
    if not how_many() then
      if ticket.upper_bound then return 'tenant', READ_MS end
      return nil
    end
    if counted == 0 then return nil end
    local kind, wait, soft = nil, nil, nil
    for _, budget in ipairs(budgets_of(ticket)) do
      local found = checked(budget, ticket)
      if found == 'over' then
        return 'over', 0
      elseif found == 'unread' then
        kind, wait = 'tenant', READ_MS
      elseif found == 'held' then
        if not kind or budget.kind == 'tenant' then kind = budget.kind end
        wait = math.max(wait or 0, HELD_MS)
      elseif found == 'soft' then
        soft = soft or budget
        if budget.config.at_soft and budget.config.at_soft ~= 'wait' then soft = budget end
      end
    end
    if kind then return kind, wait end
    if not soft then return nil end
    return at_soft(soft, ticket)
  end

  -- The grant of a job that comes without a hold because of money.
  function money.grant(kind, ticket)
    return grant_without_hold(kind, ticket, money.why)
  end

  -- The upper bound is held; returns the word of the grant that says where, empty for nowhere. With
  -- `is_held` false nobody will end the hold: it is spent at once.
  function money.take(id, ticket, is_held)
    local bound = ticket.upper_bound
    if not bound or bound == 0 or (how_many() or 0) == 0 then return '' end
    local where = {}
    for _, budget in ipairs(budgets_of(ticket)) do
      change(sums_of(budget.scope, budget.period), is_held and 0 or bound, is_held and bound or 0)
      where[#where + 1] = budget.scope .. ':' .. budget.period
    end
    if #where == 0 then return '' end
    return pico(bound) .. '@' .. table.concat(where, ',')
  end

  -- The hold named by this word of a grant has ended, and has cost so many pico-USD; nil: its upper
  -- bound.
  function money.release(word, cost)
    local bound, where = string.match(word, '^(%d+)@(.*)$')
    if not bound then return end
    bound = tonumber(bound)
    for scope, period in string.gmatch(where, '([^,]+):(%d+)') do
      local sums = sums_of(scope, period)
      change(sums, cost or bound, -bound)
      sums.freed = true
    end
  end

  -- The ledger says that this much was spent: no less is.
  function money.at_least(scope, period, spent)
    local sums = sums_of(scope, period)
    sums.changed = true
    if spent > sums.spent then change(sums, spent - sums.spent, 0) end
  end

  -- Those who wait for the money of a scope are tried again. A user may wait under any of its keys.
  local function try_again(scope, waits)
    local kind, name = string.match(scope, '^(%a+)/?(.*)$')
    if kind == 'global' or (kind ~= 'tenant' and waits == WITH_KEYS) then
      try_all_parked()
    elseif kind == 'tenant' then
      try_parked('t|' .. name)
    else
      try_parked('u|' .. string.gsub(name, '/', '|', 1))
    end
  end

  -- Queues one alert for each share of a budget that has been reached, once for each amount of the budget.
  local function alert(sums)
    local config = budget_of(sums.scope)
    local limit = config and config[#sums.period == 8 and 'day' or 'month']
    if not limit or limit == 0 then return end
    for share in string.gmatch(config.alerts or '0.8,0.9,1', '[%d.]+') do
      local mark, reached = 'told' .. share, sums.spent >= limit * tonumber(share)
      reached = reached or sums.full and tonumber(share) <= config.hard
      if reached and redis.call('HGET', sums.key, mark) ~= pico(limit) then
        redis.call('HSET', sums.key, mark, pico(limit))
        redis.call('LPUSH', KEY.alerts, cjson.encode({id = sums.scope .. ':' .. sums.period .. ':'
          .. share .. ':' .. pico(limit), scope = sums.scope, period = sums.period, share = share,
          budget = pico(limit), spent = pico(sums.spent), at_ms = pico(now)}))
        redis.call('LTRIM', KEY.alerts, 0, MOST_ALERTS - 1)
        redis.call('PEXPIRE', KEY.alerts, ALERT_MS)
      end
    end
  end

  -- Writes all that was held, spent and settled in this call.
  function money.save()
    for _, sums in pairs(all_sums) do
      if sums.changed then
        if sums.more_spent ~= 0 then redis.call('HINCRBY', sums.key, 'spent', pico(sums.more_spent)) end
        if sums.more_held ~= 0 then redis.call('HINCRBY', sums.key, 'held', pico(sums.more_held)) end
        if sums.marked then redis.call('HSET', sums.key, 'waits', sums.waits) end
        if sums.freed and sums.waits then
          local waits = sums.waits
          redis.call('HDEL', sums.key, 'waits')
          sums.waits = false
          try_again(sums.scope, waits)
        end
        redis.call('PEXPIRE', sums.key, KEPT_DAYS[#sums.period] * DAY_MS)
        alert(sums)
        sums.more_spent, sums.more_held = 0, 0
        sums.changed, sums.marked, sums.freed = false, false, false
      end
    end
  end
end
