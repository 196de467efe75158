-- Purpose: the waiting queues that this call looks at, the most urgent first: it reads as much of the
--   index as it needs.
-- KEYS and ARGV: those of the fetch script. Result: none; it defines functions.
-- @include lib/round_trip
-- @include lib/waiting_queue

-- Sets the rank of the first job (nil: there is none), and where one user has all jobs, who.
local function look_at(waiting)
  local first = redis.call('ZRANGE', waiting.ages, 0, 1, 'WITHSCORES')
  waiting.rank, waiting.only_user = tonumber(first[2]), nil
  if #first == 2 then waiting.only_user = string.match(first[1], '|(.*)$') end
end

-- `looked`: the waiting queues that were looked at. `back`: how many members came back there.
local by_rank = {looked = {}, back = 0}
do
  local FIRST_PAGE, PAGE = 8, 64
  local is_open = {}
  -- What was read of the index: ranks behind names, the place of the next one, and where the next page
  -- begins.
  local page, at, from = {}, 1, 0
  -- A heap of those that were looked at, by rank.
  local heap, size = {}, 0
  local known = {}
  -- What the index is told at the end.
  local ready, shut, gone = {}, {}, {}

  function by_rank.begin(queues)
    for _, queue in ipairs(queues) do is_open[queue] = not paused['queue/' .. queue] end
  end

  function by_rank.shut_until(waiting, at_ms)
    shut[#shut + 1] = string.format('%.3f', at_ms)
    shut[#shut + 1] = waiting.name
  end

  -- Whether a waiting queue takes part. One of a paused pool is shut.
  local function takes_part(name)
    local queue, pool = index.split(name)
    if known[name] or not is_open[queue] then return false end
    if not paused['pool/' .. without_flex(pool)] then return true end
    known[name] = true
    by_rank.shut_until({name = name}, math.huge)
    return false
  end

  -- The next waiting queue of the index that takes part, and its rank or less; or nil.
  local function next_of_index()
    while true do
      if at > #page then
        if from > 0 and #page == 0 then return nil end
        local last = from == 0 and FIRST_PAGE - 1 or from + PAGE - 1
        page, at = redis.call('ZRANGE', KEY.ready_queues, from, last, 'WITHSCORES'), 1
        from = last + 1
        if #page == 0 then return nil end
      end
      if takes_part(page[at]) then return page[at], tonumber(page[at + 1]) end
      at = at + 2
    end
  end

  local function swap(a, b) heap[a], heap[b] = heap[b], heap[a] end

  local function push(waiting)
    size = size + 1
    heap[size] = waiting
    local place = size
    while place > 1 do
      local above = math.floor(place / 2)
      if heap[above].rank <= heap[place].rank then return end
      swap(above, place)
      place = above
    end
  end

  -- The rank of the first of the heap has changed.
  local function sink()
    local place = 1
    while true do
      local least, left = place, 2 * place
      for below = left, math.min(left + 1, size) do
        if heap[below].rank < heap[least].rank then least = below end
      end
      if least == place then return end
      swap(place, least)
      place = least
    end
  end

  local function pop()
    heap[1] = heap[size]
    heap[size] = nil
    size = size - 1
    if size > 1 then sink() end
  end

  -- Looks at the waiting queue of this name, `indexed` with this rank, where nobody has yet.
  local function look(name, indexed)
    known[name] = true
    local waiting = waiting_queue(index.split(name))
    by_rank.back = by_rank.back + unpark(waiting)
    look_at(waiting)
    if not waiting.rank then
      gone[#gone + 1] = name
      return nil
    end
    waiting.debt, waiting.indexed = {}, indexed
    by_rank.looked[#by_rank.looked + 1] = waiting
    return waiting
  end

  -- The waiting queue whose first job has the lowest rank, or nil. `of_no_use`: pools that are passed
  -- over. The rank of what it returned before may have changed; nil: it is passed over.
  function by_rank.first(of_no_use)
    if size > 0 and heap[1].rank then sink() end
    while true do
      local best = heap[1]
      if best and (not best.rank or of_no_use[best.pool]) then
        pop()
      else
        local name, rank = next_of_index()
        if not name or best and best.rank <= rank then return best end
        at = at + 2
        local waiting = look(name, rank)
        if waiting then push(waiting) end
      end
    end
  end

  -- Looks at all of these pools that are ready, too.
  function by_rank.look_at_pools(queues, pools)
    for _, name in ipairs(index.ready_of(queues, pools)) do
      if takes_part(name) then look(name) end
    end
  end

  -- Calls `visit` with the queues of some that are ready and were not looked at.
  function by_rank.each_left(visit)
    local name = next_of_index()
    while name and at <= #page do
      if takes_part(name) then visit((index.split(name))) end
      at = at + 2
      name = page[at]
    end
  end

  -- A waiting queue stays ready, unless all its jobs have left.
  function by_rank.keep(waiting)
    if not waiting.rank then
      gone[#gone + 1] = waiting.name
    elseif waiting.rank ~= waiting.indexed then
      ready[#ready + 1] = waiting.rank
      ready[#ready + 1] = waiting.name
    end
  end

  function by_rank.save() index.save(ready, shut, gone) end
end
