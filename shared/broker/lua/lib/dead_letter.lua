-- Purpose: how a dead letter is written; this stands before the scripts that bury messages.
-- KEYS and ARGV: those of the script that follows. Result: none; it defines `write_letter`.
-- The message has a key of its own, so that heads can be listed without reading any message.
local function write_letter(prefix, dead, letters, now, queue, reason, job, message)
  local made = redis.call('HINCRBY', letters, 'made', 1)
  -- The number alone would come again on a server that lost its memory.
  local id = string.format('%d-%04x', made, now % 65536)
  redis.call('SET', prefix .. 'headgate:letter:' .. id, message)
  redis.call('HINCRBY', letters, 'bytes', #message)
  if not string.find(job, '^%w[ -~]*$') then job = '' end
  local place = string.gsub(queue, '%c', ' ')
  redis.call('LPUSH', dead, table.concat({'letter', id, now, place, reason, job, #message}, '\n'))
  return id
end
