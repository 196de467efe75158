-- Purpose: writes dead letters. The message has a key of its own, so that heads can be listed without
--   reading any message.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines `write_letter`.
-- @include lib/prelude

-- Returns the id of the letter. `job`: id of the job, or empty.
local function write_letter(queue, reason, job, message)
  local made = redis.call('HINCRBY', KEY.letters, 'made', 1)
  -- The number alone would come again on a server that lost its memory.
  local id = string.format('%d-%04x', made, whole_ms % 65536)
  redis.call('SET', KEY.letter(id), message)
  redis.call('HINCRBY', KEY.letters, 'bytes', #message)
  if not string.find(job, '^%w[ -~]*$') then job = '' end
  local place = string.gsub(queue, '%c', ' ')
  redis.call('LPUSH', KEY.dead, table.concat({'letter', id, whole_ms, place, reason, job, #message}, '\n'))
  return id
end
