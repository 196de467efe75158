-- Purpose: the circuit breaker of each model and provider key; this stands before `buckets`.
-- KEYS and ARGV: those of the script that follows. Result: none; it defines functions.
local breaker = {}

-- Nil when a call to the ticket's model may go with this key; else the ms until a probe may.
function breaker.shut(ticket, key)
  return nil
end

-- The job has been granted a call; it may be the probe.
function breaker.take(id, ticket, key)
end

-- The call of the job has ended, or its worker has died: it is no probe any more.
function breaker.release(id, pool, model, key)
end
