-- Purpose: answers whoever waits for a message that was refused: Celery finds a failure under its id.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines `answer_refused`.
-- @include lib/results

-- `record`: what Celery's backend would have stored; '' for none. A result that is there stays: the
-- message may be a second one of a job that has ended.
local function answer_refused(id, record, ttl_s, group)
  if record == '' then return end
  pcall(function()
    local key = KEY.result(id)
    if not redis.call('SET', key, record, 'NX', 'EX', ttl_s) then return end
    redis.call('PUBLISH', key, record)
    results.note(id, group, #record)
    results.save()
  end)
end
