-- Purpose: adds the next piece of an answer that is being made, for all who read along.
-- KEYS: 1 stream of the job's pieces (also the channel on which its readers are woken).
-- ARGV: 1 id `fence-n` (claim and number of the piece), 2 text, 3 lifetime in ms from this piece; where
--   events are read: 4 dialect of the events, 5 the vendor's events of this piece, one a line.
-- Result: 1, or 0 where the piece is there already, or a later claim writes; -1 where the server is
--   full: the piece is lost, since jobs need the room more than their readers.
-- Sent twice: the stream takes no id that is not above its last, so the second changes nothing.
local fields = { 'd', ARGV[2] }
if ARGV[4] then fields = { 'd', ARGV[2], 'k', ARGV[4], 'e', ARGV[5] } end
local added = redis.pcall('XADD', KEYS[1], ARGV[1], unpack(fields))
if type(added) == 'table' and added.err then
  if string.find(added.err, 'equal or smaller', 1, true) then return 0 end
  if string.find(added.err, 'OOM', 1, true) then return -1 end
  return added
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
