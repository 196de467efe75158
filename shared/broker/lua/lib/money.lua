-- Purpose: budgets in pico-USD (1e-12 USD) per scope and period, a UTC day (`20261121`) or month
--   (`202611`) of the server's clock; this stands before `buckets`. What an attempt can cost at worst
--   is held from its grant to its end, and what it did cost is spent then. What nobody can know
--   (its worker died, its answer was cut off) counts as spent at its worst price.
-- KEYS and ARGV: those of the script that follows. Result: none; it defines functions. What they
--   change is written by `money.save`.
--
-- Budgets are texts of `NAME=VALUE`: usd_per_day, usd_per_month, soft and hard (shares at which jobs
-- of low priority and all jobs stop), alerts (shares, with commas), at_soft (`wait`, or the model
-- that is asked in place of dearer ones).
local money = {}
local PICO, MS_OF_DAY = 1e12, 86400000
-- How long those wait who wait for the sums of the record, for what others hold, for a new period;
-- all but the first are told when there is money.
local READ_MS, HELD_MS, SOFT_MS = 250, 5000, 60000
local KEPT_DAYS = {[8] = 3, [6] = 40}
-- A hard stop is never reached to the cent: who is refused with this share of it spent has met it.
local FULL = 0.9
local MOST_ALERTS, ALERT_MS = 1000, 7 * MS_OF_DAY
local BUDGETS, OVERRIDES = 'headgate:budgets', 'headgate:limits:set'

local function pico(amount) return string.format('%.0f', amount) end

-- Names of the day and the month: days since 1970 as a date (Howard Hinnant, "chrono-Compatible
-- Low-Level Date Algorithms").
local names
local function periods()
  if names then return names end
  local z = math.floor(now / MS_OF_DAY) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
    - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local of_month = string.format('%04d%02d', year, month)
  names = {month = of_month, day = of_month .. string.format('%02d', day)}
  return names
end

-- How many scopes have a budget: nil when nobody has told this server (it is new, or came back
-- empty), 0 when there are none. A field of BUDGETS that is no scope names the catalog.
local counted
local function how_many()
  if counted == nil then
    counted = redis.call('HLEN', prefix .. BUDGETS) - 1
    if counted == 0 then counted = redis.call('HLEN', prefix .. OVERRIDES) end
  end
  return counted >= 0 and counted or nil
end

local function laid_over(config, text)
  for name, value in string.gmatch(text or '', '([%a_]+)=(%S+)') do
    config[name] = value ~= 'none' and value or nil
  end
end

-- The budget of a scope as an operator's word lies over the catalog's; false where it has none.
-- `source`: the scope that says it, which may be that of every tenant.
local configs_of_money = {}
local function budget_of(scope)
  local config = configs_of_money[scope]
  if config ~= nil then return config end
  config = {source = scope}
  local fallback = string.match(scope, '^tenant/') and 'tenant/*' or scope
  local found = redis.call('HMGET', prefix .. BUDGETS, scope, fallback)
  local set = redis.call('HMGET', prefix .. OVERRIDES, scope, fallback)
  laid_over(config, found[1] or found[2])
  if not found[1] then laid_over(config, set[2]) end
  laid_over(config, set[1])
  if not (found[1] or string.find(set[1] or '', 'usd_per', 1, true)) then config.source = fallback end
  config.soft, config.hard = tonumber(config.soft or 1), tonumber(config.hard or 1.2)
  config.day = config.usd_per_day and math.floor(tonumber(config.usd_per_day) * PICO + 0.5)
  config.month = config.usd_per_month and math.floor(tonumber(config.usd_per_month) * PICO + 0.5)
  if not (config.day or config.month) then config = false end
  configs_of_money[scope] = config
  return config
end

local books = {}
local function book_of(scope, period)
  local name = scope .. ':' .. period
  local book = books[name]
  if book then return book end
  local key = prefix .. 'headgate:budget:' .. name
  local found = redis.call('HMGET', key, 'spent', 'held', 'waits')
  book = {key = key, scope = scope, period = period, spent = tonumber(found[1] or 0),
    held = tonumber(found[2] or 0), waits = found[3] ~= false, more_spent = 0, more_held = 0}
  books[name] = book
  return book
end

local function change(book, spent, held)
  book.spent, book.more_spent = book.spent + spent, book.more_spent + spent
  book.held, book.more_held = book.held + held, book.more_held + held
  book.changed = true
end

-- The budgets that bind a caller: kind, scope, period, limit, config.
local purses = {}
local function purse_of(ticket)
  local who = ticket.tenant .. '|' .. ticket.user
  local purse = purses[who]
  if purse then return purse end
  purse = {}
  local function add(kind, scope)
    local config = budget_of(scope)
    for _, span in ipairs(config and {'day', 'month'} or {}) do
      if config[span] then
        purse[#purse + 1] = {kind = kind, scope = scope, period = periods()[span],
          limit = config[span], config = config}
      end
    end
  end
  add('tenant', 'global')
  add('tenant', 'tenant/' .. ticket.tenant)
  if ticket.user ~= '' then add('user', 'user/' .. ticket.tenant .. '/' .. ticket.user) end
  purses[who] = purse
  return purse
end

local read = {}
local function is_read(one)
  local name = one.period .. ' ' .. one.config.source
  if read[name] == nil then
    local key = prefix .. 'headgate:budget:read:' .. one.period
    read[name] = redis.call('HEXISTS', key, one.config.source) == 1
    if not read[name] then redis.call('HSET', prefix .. BUDGETS, 'wanted', '1') end
  end
  return read[name]
end

-- Nil when the budgets of the ticket's caller let its worst price through. Else what keeps it, and
-- for how many ms: `tenant` or `user` (passed over till then), `over` (it ends, and `money.told`
-- says of which budget), or `cheaper` (another model is to be asked, which `money.told` names).
function money.blocked(ticket)
  if not how_many() then
    if ticket.worst then return 'tenant', READ_MS end
    return nil
  end
  if counted == 0 then return nil end
  local purse, kind, wait, soft = purse_of(ticket), nil, nil, nil
  for _, one in ipairs(purse) do
    if not is_read(one) then
      kind, wait = 'tenant', READ_MS
    else
      local book, hard = book_of(one.scope, one.period), one.limit * one.config.hard
      local worst = ticket.worst
      if not worst or book.spent + worst > hard then
        money.why = table.concat({one.scope, one.period, pico(one.limit), pico(hard),
          pico(book.spent), pico(book.held), worst and pico(worst) or ''}, ':')
        if worst and book.spent >= FULL * hard then book.full, book.changed = true, true end
        return 'over', 0
      end
      if book.spent + book.held + worst > hard then
        if not kind or one.kind == 'tenant' then kind = one.kind end
        wait = math.max(wait or 0, HELD_MS)
        if not book.waits then book.waits, book.told, book.changed = true, true, true end
      elseif ticket.priority == 'b' and book.spent >= one.limit * one.config.soft then
        soft = soft or one
        if one.config.at_soft and one.config.at_soft ~= 'wait' then soft = one end
      end
    end
  end
  if kind then return kind, wait end
  if not soft then return nil end
  local other = soft.config.at_soft or 'wait'
  if other == ticket.model then return nil end
  if other == 'wait' then
    return soft.kind, math.min(SOFT_MS, MS_OF_DAY - now % MS_OF_DAY + 1)
  end
  money.why = other
  return 'cheaper', 0
end

-- The grant of a job that comes without a hold because of money.
function money.told(way, ticket)
  return table.concat({way, ticket.pool, ticket.model, '', ticket.rule, '0', 0, 0, ticket.tenant,
    ticket.user, ticket.tier, ticket.flags, money.why}, '|')
end

-- The worst price is held; returns the word of the grant that says where, empty for nowhere. With
-- `is_held` false nobody will end the hold: it is spent at once.
function money.take(id, ticket, is_held)
  if not ticket.worst or ticket.worst == 0 or (how_many() or 0) == 0 then return '' end
  local where = {}
  for _, one in ipairs(purse_of(ticket)) do
    change(book_of(one.scope, one.period), is_held and 0 or ticket.worst, is_held and ticket.worst or 0)
    where[#where + 1] = one.scope .. ':' .. one.period
  end
  if #where == 0 then return '' end
  return pico(ticket.worst) .. '@' .. table.concat(where, ',')
end

-- The next hold that is released has cost this many pico-USD; nil: its worst price.
local ends_at
function money.ends_at(cost)
  ends_at = cost
end

-- The hold named by this word of a grant has ended.
function money.release(word)
  local cost = ends_at
  ends_at = nil
  local worst, where = string.match(word, '^(%d+)@(.*)$')
  if not worst then return end
  worst = tonumber(worst)
  for scope, period in string.gmatch(where, '([^,]+):(%d+)') do
    local book = book_of(scope, period)
    change(book, cost or worst, -worst)
    book.freed = true
  end
end

-- The record knows of this much that was spent: no less is.
function money.at_least(scope, period, spent)
  local book = book_of(scope, period)
  book.changed = true
  if spent > book.spent then change(book, spent - book.spent, 0) end
end

-- Those who wait for the money of a scope are tried again.
local function let_try(scope)
  local kind, name = string.match(scope, '^(%a+)/?(.*)$')
  local member = kind == 'tenant' and 't|' .. name or 'u|' .. string.gsub(name, '/', '|', 1)
  for _, room in ipairs(redis.call('HKEYS', prefix .. 'headgate:rooms')) do
    local parked, any = prefix .. 'headgate:room:' .. room .. ':parked', nil
    if kind == 'global' then
      any = redis.call('ZINTERSTORE', parked, 1, parked, 'WEIGHTS', 0)
    else
      any = redis.call('ZADD', parked, 'XX', 'CH', 0, member)
    end
    if any > 0 then wake_workers(string.match(room, '^[^ ]*')) end
  end
end

-- Each share of a budget that has been reached is told once for each amount of the budget.
local function alert(book)
  local config = budget_of(book.scope)
  local limit = config and config[#book.period == 8 and 'day' or 'month']
  if not limit or limit == 0 then return end
  for share in string.gmatch(config.alerts or '0.8,0.9,1', '[%d.]+') do
    local mark, reached = 'told' .. share, book.spent >= limit * tonumber(share)
    reached = reached or book.full and tonumber(share) <= config.hard
    if reached and redis.call('HGET', book.key, mark) ~= pico(limit) then
      redis.call('HSET', book.key, mark, pico(limit))
      local alerts = prefix .. 'headgate:alerts'
      redis.call('LPUSH', alerts, cjson.encode({id = book.scope .. ':' .. book.period .. ':' .. share
        .. ':' .. pico(limit), scope = book.scope, period = book.period, share = share,
        budget = pico(limit), spent = pico(book.spent), at_ms = pico(now)}))
      redis.call('LTRIM', alerts, 0, MOST_ALERTS - 1)
      redis.call('PEXPIRE', alerts, ALERT_MS)
    end
  end
end

-- All that was held, spent and settled in this call is written.
function money.save()
  for _, book in pairs(books) do
    if book.changed then
      if book.more_spent ~= 0 then redis.call('HINCRBY', book.key, 'spent', pico(book.more_spent)) end
      if book.more_held ~= 0 then redis.call('HINCRBY', book.key, 'held', pico(book.more_held)) end
      if book.told then redis.call('HSET', book.key, 'waits', '1') end
      if book.freed and book.waits then
        redis.call('HDEL', book.key, 'waits')
        book.waits = false
        let_try(book.scope)
      end
      redis.call('PEXPIRE', book.key, KEPT_DAYS[#book.period] * MS_OF_DAY)
      alert(book)
      book.more_spent, book.more_held, book.changed, book.told, book.freed = 0, 0, false, false, false
    end
  end
end
