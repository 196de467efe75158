-- Purpose: counts the jobs that wait, by queue, and shows which workers live and what is paused.
-- KEYS: none. ARGV: 1 prefix of all keys, then a queue and one of its lists, in turns.
-- Result: {{queue and number of jobs, in turns; a queue may come more than once}, {signs of workers},
--   {what is paused}}. A list of another type counts 0.
-- Sent twice: reads only.
-- @include lib/signs
local counts = {}
for i = 2, #ARGV, 2 do
  counts[#counts + 1] = ARGV[i]
  counts[#counts + 1] = on_list('LLEN', ARGV[i + 1]) or 0
end
local waiting = redis.call('HGETALL', KEY.waiting_queues)
for i = 1, #waiting, 2 do
  local queue = string.match(waiting[i], '^([^ ]*) ')
  if queue then
    counts[#counts + 1] = queue
    counts[#counts + 1] = waiting[i + 1]
  end
end
return {counts, signs(), redis.call('SMEMBERS', KEY.paused)}
