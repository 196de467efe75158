-- Purpose: what every longer script begins with: the clock, and functions that many of them share.
-- KEYS: none of its own. ARGV: 1 prefix of all keys, which `generated/keys` reads.
-- Result: none; it defines functions.
-- @include generated/keys
local time = redis.call('TIME')
-- Ms of the server's clock, with fractions. Leases and the due list have whole ms.
local now = time[1] * 1000 + time[2] / 1000
local whole_ms = math.floor(now)

-- Keys that should be lists and are not, in the order in which they were found.
local wrong_lists, is_wrong = {}, {}
-- A key that somebody made something else than a list must not stop the other queues: nil for it.
local function on_list(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then
    return redis.call(command, key, ...)
  end
  if not is_wrong[key] then wrong_lists[#wrong_lists + 1] = key end
  is_wrong[key] = true
  return nil
end

-- One worker looks into this queue again.
local woken = {}
local function wake_workers(queue)
  if woken[queue] then return end
  woken[queue] = true
  local wake = KEY.wake(queue)
  if on_list('RPUSH', wake, '1') then on_list('LTRIM', wake, 0, 0) end
end

-- Requests of the flex tier have a gate of their own and share the buckets of their pool.
local function without_flex(pool)
  return (string.gsub(pool, '~flex$', ''))
end

-- Sends a command with any number of words, 1000 at a time: `unpack` has a limit. Returns the sum of
-- the replies, which are numbers.
local function put_in_chunks(command, key, words)
  local sum = 0
  for first = 1, #words, 1000 do
    sum = sum + redis.call(command, key, unpack(words, first, math.min(first + 999, #words)))
  end
  return sum
end
