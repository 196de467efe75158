-- Purpose: the books of results: how many bytes they take, and which came first.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
--
-- `results` is a list with an entry for each result that was stored. `bytes` in `results_counts` is the
-- sum of what the entries say. A result that Redis let expire stays in the list until somebody meets
-- it, and its bytes count until then. The oldest go first, so it never drives out a result that lives.
-- @include lib/prelude
-- @include generated/figures
local results = {}
-- Entries that one call takes off the list at most; 1 ms.
results.MOST = 200
-- Results that one call passes over at most, since somebody still needs them.
local MOST_NEEDED = 16

-- Whether somebody has yet to read it: a program listens for it, or its group is not done. A user
-- without the right to PUBSUB learns of no listener.
local function is_needed(id, group)
  local listeners = redis.pcall('PUBSUB', 'NUMSUB', KEY.result(id))
  if (listeners[2] or 0) > 0 then return true end
  return group ~= '' and redis.call('EXISTS', KEY.group(group), KEY.chord(group)) > 0
end

local function add_bytes(bytes)
  return redis.call('HINCRBY', KEY.results_counts, 'bytes', bytes)
end

-- Entries that are not in the list yet, and their bytes.
local entries, bytes_of_entries = {}, 0

-- Lets `results.save` write a stored result of this many bytes into the books.
function results.note(id, group, bytes)
  local size = bytes + FIGURES.RESULT_OVERHEAD
  entries[#entries + 1] = size .. '\n' .. group .. '\n' .. id
  bytes_of_entries = bytes_of_entries + size
end

-- Writes what was noted into the books; returns the bytes of all, or nil where nothing was noted.
function results.save()
  if #entries == 0 then return nil end
  put_in_chunks('LPUSH', KEY.results, entries)
  return add_bytes(bytes_of_entries)
end

-- Takes the oldest entry off the list; returns its bytes, its group and its id, or nil at the end.
local function take_oldest()
  local entry = redis.call('RPOP', KEY.results)
  if not entry then return nil end
  local size, group, id = string.match(entry, '^(%d+)\n([^\n]*)\n(.*)$')
  return tonumber(size or 0), group or '', id or '', entry
end

-- Removes the oldest results while they take more than `bound` bytes. `bytes`: of all. One that is
-- needed moves to the newest end, unless all take more than twice the bound: then it goes, too, as
-- a full server would stop everything. Returns whether there is more to do.
function results.evict(bound, bytes)
  local gone, needed, evicted, taken = 0, 0, 0, 0
  while bytes - gone > bound and taken < results.MOST and needed < MOST_NEEDED do
    local size, group, id, entry = take_oldest()
    if not size then
      -- Nothing is left: whatever the sum says, somebody else has made it.
      redis.call('HSET', KEY.results_counts, 'bytes', 0)
      return false
    end
    taken = taken + 1
    if bytes - gone <= 2 * bound and is_needed(id, group) then
      redis.call('LPUSH', KEY.results, entry)
      needed = needed + 1
    else
      evicted = evicted + redis.call('DEL', KEY.result(id))
      gone = gone + size
    end
  end
  if gone > 0 then add_bytes(-gone) end
  if evicted > 0 then redis.call('HINCRBY', KEY.results_counts, 'evicted', evicted) end
  return taken == results.MOST
end

-- Drops the oldest entries whose results have expired; returns whether there may be more.
function results.drop_expired()
  local gone, taken = 0, 0
  while taken < results.MOST do
    local size, _, id, entry = take_oldest()
    if not size then break end
    if redis.call('EXISTS', KEY.result(id)) == 1 then
      redis.call('RPUSH', KEY.results, entry)
      break
    end
    gone, taken = gone + size, taken + 1
  end
  if gone > 0 then add_bytes(-gone) end
  return taken == results.MOST
end
