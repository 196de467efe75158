-- Purpose: puts a job whose message is in the hash of messages back into its queue.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines functions.
-- @include lib/prelude
local RETRY_MS = 5000 -- where the queue is no list

-- Queue and message of what is stored of a job, or nil.
local function split_stored(stored)
  local cut = stored and string.find(stored, '\n', 1, true)
  if not cut then return nil end
  return string.sub(stored, 1, cut - 1), string.sub(stored, cut + 1)
end

-- The job is at the head of its queue; one whose message is lost is gone.
local function return_job(id)
  local queue, message = split_stored(redis.call('HGET', KEY.messages, id))
  if not queue then
    redis.call('HDEL', KEY.messages, id)
    redis.call('SREM', KEY.present, id)
    return
  end
  if not on_list('RPUSH', KEY.queue(queue), message) then
    redis.call('ZADD', KEY.due, whole_ms + RETRY_MS, id)
    return
  end
  redis.call('HDEL', KEY.messages, id)
  wake_workers(queue)
end
