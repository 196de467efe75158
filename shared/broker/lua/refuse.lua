-- Purpose: stores that a message was refused, for Celery's `AsyncResult`, unless a result is there.
-- KEYS: none. ARGV: 1 prefix of all keys, 2 the message's id, 3 record, 4 its lifetime in seconds,
--   5 the group of tasks that the message belongs to, or ''.
-- Result: nothing.
-- Sent twice: the second call finds the result and changes nothing.
-- @include lib/refusal
answer_refused(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
