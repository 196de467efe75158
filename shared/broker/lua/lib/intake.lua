-- Purpose: moves messages from the queues into the waiting queues of their pools: as many that the
--   order is right, as few that the server goes on.
-- KEYS and ARGV: those of the fetch script. Result: none; it defines functions.
-- @include lib/dead_letter
-- @include lib/flights
-- @include lib/round_trip
-- @include lib/waiting_queue
-- Messages that were moved in this call, by job id.
local intake = {fresh = {}}
do
  local MOST_BYTES, MOST_BURIED, LARGE = 4194304, 4, 65536
  local moved, moved_bytes, buried, unnamed = 0, 0, 0, 0
  local new_ids = {}
  local any_ticket
  -- Names under which there is no answer.
  local unanswered = {}

  local function id_of(message)
    local id = string.match(message, '^{"hg":"([%w-]+)')
    if id then return id end
    local ok, fields = pcall(cjson.decode, message)
    if ok and type(fields) == 'table' and type(fields.headers) == 'table' then
      id = fields.headers.id
      if type(id) == 'string' and #id > 0 and #id <= 128 then return id end
    end
    unnamed = unnamed + 1
    return '!' .. asked.owner .. ':' .. unnamed
  end

  -- kombu writes a message's headers behind its body.
  local TAIL = 8192

  local function bury(queue, message)
    local id = string.match(message, '^{"hg":"([%w-]+)')
      or string.match(string.sub(message, -TAIL), '"id": ?"([^"\\]+)"') or ''
    local letter = write_letter(queue, 'over ' .. asked.max_bytes .. ' bytes', id, message)
    if id ~= '' and redis.call('HEXISTS', KEY.messages, id) == 0 then
      redis.call('SREM', KEY.present, id)
    end
    round_trip.buried(letter, #message, queue, id)
    buried = buried + 1
  end

  -- Asks at once for the answers and the flights of these tickets, so that nobody asks for each.
  function intake.look_up(tickets)
    local names, answers = {}, {}
    for _, ticket in ipairs(tickets) do
      local name = ticket.cached_as
      if name ~= '' then
        names[#names + 1] = name
        answers[#answers + 1] = KEY.cache(name)
      end
    end
    if #names == 0 then return end
    flights.look_up(names)
    if redis.call('EXISTS', unpack(answers)) > 0 then return end
    for _, name in ipairs(names) do unanswered[name] = true end
  end

  -- Why an answer need not be bought: `cached`, or `shared` where the job has followed an equal
  -- request, whose failure is its own, too. Else nil.
  function intake.ready_answer(ticket)
    local name = ticket.cached_as
    if name == '' then return nil end
    local followed = has_flag(ticket, 'f')
    if not unanswered[name] and redis.call('EXISTS', KEY.cache(name)) == 1 then
      return followed and 'shared' or 'cached'
    end
    if followed and redis.call('EXISTS', KEY.failure(name)) == 1 then return 'shared' end
    return nil
  end

  -- The texts of these jobs' tickets; false where a message has none.
  local function ticket_texts(ids, messages)
    if any_ticket == nil then any_ticket = redis.call('EXISTS', KEY.tickets) == 1 end
    local texts = any_ticket and redis.call('HMGET', KEY.tickets, unpack(ids)) or {}
    for n, message in ipairs(messages) do texts[n] = texts[n] or text_in(message) or false end
    return texts
  end

  -- What has to be known of these messages before they move: of each its job's `id`, the `text` of its
  -- ticket, and the `ticket` (nil: none), and what is `stored` of that job already. One that is too
  -- large has no id.
  local function looked_at(messages)
    local ids, found, tickets = {}, {}, {}
    for n, message in ipairs(messages) do
      ids[n] = #message <= asked.max_bytes and id_of(message) or ''
    end
    local stored, texts = redis.call('HMGET', KEY.messages, unpack(ids)), ticket_texts(ids, messages)
    for n, id in ipairs(ids) do
      local ticket = id ~= '' and texts[n] and read_ticket(texts[n]) or nil
      found[n] = {id = id, text = texts[n], ticket = ticket, stored = stored[n]}
      tickets[#tickets + 1] = ticket
    end
    if #tickets > 1 then intake.look_up(tickets) end
    return found
  end

  -- Moves one message, of which this was `found`. False when it has no place here now, and has to stay
  -- in its queue. `kept`: job ids and what is to be stored of them, in turns.
  local function move(queue, message, found, kept)
    if #message > asked.max_bytes then bury(queue, message) return true end
    local id, ticket = found.id, found.ticket
    if ticket and ticket.base then serves_several(ticket.pool) end
    local ready = ticket and intake.ready_answer(ticket)
    if (ready or not ticket) and round_trip.is_full() then return false end
    -- A second copy. It only stays where a lease has lost its message.
    if found.stored and found.stored ~= '' or kept[id] then return true end
    local stored = queue .. '\n' .. message
    kept[#kept + 1] = id
    kept[#kept + 1] = stored
    kept[id] = true
    if found.stored then return true end
    new_ids[#new_ids + 1] = id
    moved, moved_bytes = moved + 1, moved_bytes + #message
    if not ticket then
      round_trip.lease(id, '', stored)
    elseif ready then
      round_trip.lease(id, grant_without_hold(ready, ticket), stored)
    elseif flights.under_way(id, ticket) then
      flights.follow(id, found.text, ticket)
    else
      enter(id, queue, found.text, ticket)
      intake.fresh[id] = stored
    end
    return true
  end

  local function is_enough()
    return buried >= MOST_BURIED or moved_bytes >= MOST_BYTES
  end

  local function leave_the_rest(queue)
    round_trip.more = true
    wake_workers(queue)
  end

  -- How many are popped at a time: few until they prove to be small, since all that is popped is
  -- copied.
  local step = 1

  -- Moves these messages; returns false, with the rest put back, when one has to stay.
  local function move_all(queue, list, popped)
    local found, kept, all = looked_at(popped), {}, true
    for place, message in ipairs(popped) do
      if #message > LARGE then step = 1 end
      if is_enough() or not move(queue, message, found[place], kept) then
        for i = #popped, place, -1 do redis.call('RPUSH', list, popped[i]) end
        leave_the_rest(queue)
        all = false
        break
      end
    end
    put_in_chunks('HSET', KEY.messages, kept)
    return all
  end

  -- Returns whether the list of this queue is empty now.
  local function empty(queue, list)
    local most = math.max(128, asked.want)
    while true do
      if moved >= most or is_enough() then
        if (on_list('LLEN', list) or 0) == 0 then return true end
        leave_the_rest(queue)
        return false
      end
      local most_now = math.min(most - moved, step)
      local popped = on_list('RPOP', list, most_now)
      if not popped or #popped == 0 then return true end
      step = math.min(64, step * 4)
      if not move_all(queue, list, popped) then return false end
      if #popped < most_now then return true end
    end
  end

  -- Whether any of the sub-lists of these queues has messages: mostly none has.
  local function has_sub_lists(queues, endings)
    local lists = {}
    for _, queue in ipairs(queues) do
      for _, ending in ipairs(endings) do lists[#lists + 1] = KEY.queue(queue) .. ending end
    end
    return #lists > 0 and redis.call('EXISTS', unpack(lists)) > 0
  end

  -- Empties these queues in their order, but for those that are paused. `endings`: of the sub-lists
  -- that are looked at, too, the most urgent first; each waits for those before it.
  function intake.run(queues, endings)
    local open = {}
    for _, queue in ipairs(queues) do
      if not paused['queue/' .. queue] then open[#open + 1] = queue end
    end
    local any = has_sub_lists(open, endings)
    for _, queue in ipairs(open) do
      local is_empty = empty(queue, KEY.queue(queue))
      for n = 1, any and #endings or 0 do
        is_empty = is_empty and empty(queue, KEY.queue(queue) .. endings[n])
      end
      if not is_empty then round_trip.any_listed = any end
    end
    save_entered(open)
    put_in_chunks('SADD', KEY.present, new_ids)
  end
end
