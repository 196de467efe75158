-- Purpose: the limits of a scope. What an operator has set overrides the catalog.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
-- @include generated/figures
-- @include lib/prelude
local MEASURES = FIGURES.MEASURES

local function override(config, text)
  for name, amount in string.gmatch(text or '', '([%w_]+)=([%w.]+)') do
    config[name] = tonumber(amount)
  end
end

-- Measure to number. `fallback`: the scope that counts where this one is not limited.
local configs, any_override = {}, nil
local function config_of(scope, fallback)
  local config = configs[scope]
  if config then return config end
  config = {}
  local found = redis.call('HMGET', KEY.limits, scope, fallback or scope)
  override(config, found[1] or found[2])
  if any_override == nil then any_override = redis.call('HLEN', KEY.overrides) > 0 end
  if any_override then
    local set = redis.call('HMGET', KEY.overrides, scope, fallback or scope)
    if not found[1] then override(config, set[2]) end
    override(config, set[1])
  end
  configs[scope] = config
  return config
end

local function provider_of(pool)
  return string.match(pool, '^[^/]+') or pool
end

-- The pool serves snapshots or fine-tunes beside the models that the catalog lists: a model that is
-- down must not hold up the others.
local function serves_several(pool)
  local scope = 'models/' .. without_flex(pool)
  local config = config_of(scope)
  if (config.n or 1) > 1 or redis.call('EXISTS', KEY.limits) == 0 then return end
  config.n = 2
  redis.call('HSET', KEY.limits, scope, 'n=2')
end

-- How many keys the workers have for the provider of this pool.
local key_counts = {}
local function keys_of(pool)
  if not key_counts[pool] then
    key_counts[pool] = math.max(1, config_of('keys/' .. provider_of(pool)).n or 1)
  end
  return key_counts[pool]
end
