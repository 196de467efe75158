-- Purpose: acknowledges jobs that have ended: nothing of them stays in the broker.
-- KEYS and ARGV: those of the fetch script. Result: none; it defines functions.
-- @include lib/hold
-- @include lib/flights
-- @include lib/round_trip
local acks = {}
do
  local function forget(ids)
    redis.call('ZREM', KEY.leases, unpack(ids))
    redis.call('HDEL', KEY.owners, unpack(ids))
    round_trip.any_released = release(ids) or round_trip.any_released
    redis.call('HDEL', KEY.tickets, unpack(ids))
    redis.call('HDEL', KEY.messages, unpack(ids))
    redis.call('HDEL', KEY.crashes, unpack(ids))
    redis.call('SREM', KEY.present, unpack(ids))
    redis.call('ZREM', KEY.cancels, unpack(ids))
  end

  local function held_by_worker(first, last)
    local asked_for, ids = {}, {}
    for i = first, last, 2 do asked_for[#asked_for + 1] = ARGV[i] end
    for n, owner in ipairs(redis.call('HMGET', KEY.owners, unpack(asked_for))) do
      if owner == ARGV[first + 2 * n - 1] then ids[#ids + 1] = asked_for[n] end
    end
    return ids
  end

  -- Job ids and owners of their leases, in turns, stand from `first` to `last` in ARGV. Jobs that
  -- somebody else holds now are left alone.
  function acks.finish(first, last)
    local chunks = {}
    for from = first, last, 1000 do
      local ids = held_by_worker(from, math.min(from + 998, last))
      if #ids > 0 then
        forget(ids)
        chunks[#chunks + 1] = ids
      end
    end
    for _, ids in ipairs(chunks) do flights.land(ids) end
  end
end
