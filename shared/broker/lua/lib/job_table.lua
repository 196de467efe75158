-- Purpose: hashes with an entry for each job that runs.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines a function.
-- @include lib/prelude
--
-- Redis keeps up to 512 short fields of a hash in one string, in which it looks at all of them to find
-- one. With some hundred running jobs that was a third of what a job costs. A long value turns the
-- hash into a table, for as long as it has any field.
local LONG, MANY = string.rep('-', 80), 32

-- Writes fields and values, in turns.
local function put_in_table(key, words)
  put_in_chunks('HSET', key, words)
  if #words < MANY then return end
  redis.call('HSET', key, '-', LONG)
  redis.call('HDEL', key, '-')
end
