-- Purpose: all waiting queues: whoever waits there is tried again.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
-- @include lib/full
-- @include lib/index

-- Calls `visit` with the queue and the pool of each waiting queue.
local function each_waiting_queue(visit)
  for _, name in ipairs(redis.call('HKEYS', KEY.waiting_queues)) do
    local queue, pool = string.match(name, '^(.*) ([^ ]*)$')
    if queue then visit(queue, pool) end
  end
end

-- Wakes workers for the jobs that wait for this pool.
local function wake_pool(pool)
  index.reopen_pools({[without_flex(pool)] = true})
  each_waiting_queue(function(queue, waits_for)
    if waits_for == pool then wake_workers(queue) end
  end)
end

-- Tries tenants (`t|tenant`) and users (`u|tenant|user`) that were passed over again at once; their
-- moment becomes 0 (`second`: one more of them, or nil).
local function try_parked(first, second)
  each_waiting_queue(function(queue, pool)
    local parked, changed = KEY.waiting_queue(queue, pool, 'parked'), nil
    if second then
      changed = redis.call('ZADD', parked, 'XX', 'CH', 0, first, 0, second)
    else
      changed = redis.call('ZADD', parked, 'XX', 'CH', 0, first)
    end
    if changed > 0 then
      index.reopen({queue .. ' ' .. pool})
      wake_workers(queue)
    end
  end)
end

-- Tries all of them again.
local function try_all_parked()
  each_waiting_queue(function(queue, pool)
    local parked = KEY.waiting_queue(queue, pool, 'parked')
    if redis.call('ZINTERSTORE', parked, 1, parked, 'WEIGHTS', 0) > 0 then wake_workers(queue) end
  end)
  index.reopen_pools()
end
