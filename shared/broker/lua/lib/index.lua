-- Purpose: the index of the waiting queues, so that no call has to look at each of them.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- A waiting queue with jobs is in one of two sorted sets, by its name (`queue SP pool`). `ready`: a
-- job may start; the score is the rank of its first job, or less. `shut`: none may start before the
-- moment that is its score, unless `reopen` is called. Both are derived: what they lack or say wrongly
-- is put right within some `HEAL_MS`, since workers of the release before do not keep them up.
-- @include lib/prelude
local index = {}
do
  local HEAL_MS, HEALED = 1000, 50 -- how many of those that are shut are looked at again then
  local MOST_DUE = 64 -- in one call

  -- Queue and pool of a name.
  function index.split(name)
    return string.match(name, '^(.*) ([^ ]*)$')
  end

  -- The rank of the first job of the waiting queue of this name, or nil.
  local function rank_of(name)
    local queue, pool = index.split(name)
    return redis.call('ZRANGE', KEY.waiting_queue(queue, pool, 'ages'), 0, 0, 'WITHSCORES')[2]
  end

  -- Those of these names that are in this sorted set.
  local function members(key, names)
    local found = {}
    for first = 1, #names, 1000 do
      local last = math.min(first + 999, #names)
      for n, score in ipairs(redis.call('ZMSCORE', key, unpack(names, first, last))) do
        if score then found[#found + 1] = names[first + n - 1] end
      end
    end
    return found
  end

  -- The waiting queues of these pools in these queues.
  local function names_of(queues, pools)
    local names = {}
    for pool in pairs(pools) do
      for _, queue in ipairs(queues) do names[#names + 1] = queue .. ' ' .. pool end
    end
    return names
  end

  -- These are looked at again by the next call.
  function index.reopen(names)
    if #names == 0 then return end
    local words = {}
    for _, name in ipairs(names) do
      words[#words + 1] = 0
      words[#words + 1] = name
    end
    put_in_chunks('ZREM', KEY.shut_queues, names)
    put_in_chunks('ZADD', KEY.ready_queues, words)
  end

  -- All of these pools that are shut are looked at again; with nil all of any pool.
  function index.reopen_pools(pools)
    local names = {}
    for _, name in ipairs(redis.call('ZRANGE', KEY.shut_queues, 0, -1)) do
      local _, pool = index.split(name)
      if not pools or pools[without_flex(pool)] then names[#names + 1] = name end
    end
    index.reopen(names)
  end

  -- Jobs have entered waiting queues: `words` are the lowest rank and the name of each, in turns.
  -- Those of the same `pools` (a set) in these queues are looked at again.
  function index.entered(words, queues, pools)
    for first = 1, #words, 1000 do
      local last = math.min(first + 999, #words)
      redis.call('ZADD', KEY.ready_queues, 'LT', unpack(words, first, last))
    end
    if redis.call('EXISTS', KEY.shut_queues) == 0 then return end
    index.reopen(members(KEY.shut_queues, names_of(queues, pools)))
  end

  -- Those of these queues and pools that are ready.
  function index.ready_of(queues, pools)
    return members(KEY.ready_queues, names_of(queues, pools))
  end

  -- Some are looked at again, with the others of their pools in these queues.
  local function reopen_with_others(some, queues)
    local pools = {}
    for _, name in ipairs(some) do
      local _, pool = index.split(name)
      pools[pool] = true
    end
    index.reopen(some)
    index.reopen(members(KEY.shut_queues, names_of(queues, pools)))
  end

  -- Those whose moment has come are ready again, with the others of their pools in these queues.
  function index.open_due(queues)
    local due = redis.call('ZRANGEBYSCORE', KEY.shut_queues, '-inf', now, 'LIMIT', 0, MOST_DUE)
    if #due == 0 then return end
    reopen_with_others(due, queues)
  end

  -- The last jobs of these have left.
  function index.drop(names)
    put_in_chunks('ZREM', KEY.ready_queues, names)
    put_in_chunks('ZREM', KEY.shut_queues, names)
  end

  -- Makes the index anew where that was long ago, and looks at some that are shut, by chance. `names`:
  -- further waiting queues, which have no count yet.
  function index.heal(names, queues)
    local since_ms = whole_ms - tonumber(redis.call('HGET', KEY.pulse, 'rooms') or 0)
    if since_ms >= 0 and since_ms < HEAL_MS then return end
    redis.call('HSET', KEY.pulse, 'rooms', whole_ms)
    for _, name in ipairs(redis.call('HKEYS', KEY.waiting_queues)) do names[#names + 1] = name end
    redis.call('DEL', KEY.ready_queues)
    for first = 1, #names, 1000 do
      local words = {}
      local some = {unpack(names, first, math.min(first + 999, #names))}
      local shut = redis.call('ZMSCORE', KEY.shut_queues, unpack(some))
      for n, name in ipairs(some) do
        local rank = not shut[n] and rank_of(name)
        if rank then
          words[#words + 1] = rank
          words[#words + 1] = name
        end
      end
      put_in_chunks('ZADD', KEY.ready_queues, words)
    end
    reopen_with_others(redis.call('ZRANDMEMBER', KEY.shut_queues, HEALED), queues)
  end

  -- `ready`: ranks and names, in turns, of what is ready now; `shut`: moments and names; `gone`: names.
  function index.save(ready, shut, gone)
    for i = 2, #shut, 2 do gone[#gone + 1] = shut[i] end
    put_in_chunks('ZADD', KEY.shut_queues, shut)
    put_in_chunks('ZREM', KEY.ready_queues, gone)
    put_in_chunks('ZADD', KEY.ready_queues, ready)
  end

  -- The ms until the first of those that are shut is looked at again, or nil.
  function index.next_look()
    local first = redis.call('ZRANGE', KEY.shut_queues, 0, 0, 'WITHSCORES')
    return first[2] and math.max(1, tonumber(first[2]) - now)
  end
end
