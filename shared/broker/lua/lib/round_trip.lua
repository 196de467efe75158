-- Purpose: what the parts of the fetch script share: what the worker asked for, and what it gets.
-- KEYS and ARGV: those of the script that includes it, which fills `asked`.
-- Result: none; it defines functions.
-- @include lib/job_table
-- @include lib/return_job

-- `owner`, `lease_ms`, `want`, `max_bytes` (of a message), `reply_bytes` (of all messages).
local asked = {}
-- `pool/NAME`, `tenant/NAME` and `queue/NAME` that are paused.
local paused = {}

local round_trip = {more = false, any_released = false, any_listed = false}
do
  local HEAD = 6 -- words before the jobs
  local reply = {whole_ms, -1, 0, {}, wrong_lists, 0}
  local leased, until_when, owned = {}, {}, {}
  local taken, bytes = 0, 0
  local next_ms
  -- Text, since numbers are made text anew for each command.
  local lease_end

  function round_trip.is_full()
    return taken >= asked.want or bytes >= asked.reply_bytes
  end
  function round_trip.taken() return taken end

  -- Something may change by itself after this many ms.
  function round_trip.not_before(wait)
    if not next_ms or wait < next_ms then next_ms = wait end
  end

  -- The job is this worker's. Its message is in the hash of messages.
  function round_trip.lease(id, grant, stored)
    taken, bytes = taken + 1, bytes + #stored
    leased[taken] = id
    lease_end = lease_end or string.format('%.0f', whole_ms + asked.lease_ms)
    local at = 2 * taken
    until_when[at - 1], until_when[at] = lease_end, id
    owned[at - 1], owned[at] = id, asked.owner
    at = HEAD + 4 * (taken - 1)
    -- How often it has crashed is filled in at the end.
    reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = id, 0, grant, stored
  end

  -- A message that is too large has become a dead letter.
  function round_trip.buried(letter, size, queue, id)
    local large = reply[4]
    large[#large + 1] = letter
    large[#large + 1] = size
    large[#large + 1] = queue
    large[#large + 1] = id
  end

  function round_trip.save()
    put_in_chunks('ZADD', KEY.leases, until_when)
    put_in_table(KEY.owners, owned)
  end

  local function fill_in_crashes()
    for first = 1, #leased, 1000 do
      local last = math.min(first + 999, #leased)
      for i, times in ipairs(redis.call('HMGET', KEY.crashes, unpack(leased, first, last))) do
        reply[HEAD + 4 * (first + i - 2) + 2] = tonumber(times or 0)
      end
    end
  end

  function round_trip.reply()
    fill_in_crashes()
    if next_ms and next_ms < 1e12 then reply[2] = math.ceil(next_ms) end
    if round_trip.more then reply[3] = 1 end
    if round_trip.any_listed then reply[6] = 1 end
    return reply
  end
end
