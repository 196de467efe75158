-- Purpose: the one call of a worker's round trip: fetching is admission. Acknowledges finished
--   jobs, returns the jobs of dead workers and the deferred ones that are due to their queues, moves
--   messages from the queues into the waiting queues of their pools, and hands out the jobs that may
--   start now, in their order, each with its lease and its hold.
-- KEYS: none.
-- ARGV: 1 prefix of all keys, 2 owner of the new leases (another one in each call, so that the end of
--   an old lease never ends a new one), 3 lease ms, 4 how many jobs to take, 5 largest message in
--   bytes, 6 bytes after which no more is taken, 7 how many acks, 8 how many endings of sub-lists, then
--   these endings, then for each ack the id and the owner of its lease, then the name of each queue,
--   then the handicaps of standard and of bulk jobs in ms.
-- Result: {now ms, ms until something may change by itself or -1, more (1: call again),
--   {letter, bytes, queue, id or '' of each message that was too large}, {keys that are no lists}, 1 if a
--   sub-list of these queues has messages left,
--   then id, crashes, grant, `queue LF message` for each job taken}. A message without a ticket is
--   handed out at once, without a grant: its worker gives it one.
-- Sent twice: acks count once; jobs leased by a reply that was lost come back when it lapses, and
--   what they held stays spent.
-- @include lib/acks
-- @include lib/lapse
-- @include lib/intake
-- @include lib/serve
asked.owner, asked.lease_ms, asked.want = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
asked.max_bytes, asked.reply_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
handicap_ms.s, handicap_ms.b = tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV])
local first_ack = 9 + tonumber(ARGV[8])
local last_ack = first_ack - 1 + 2 * tonumber(ARGV[7])
local queues, endings = {}, {}
for i = 9, first_ack - 1 do endings[#endings + 1] = ARGV[i] end
for i = last_ack + 1, #ARGV - 2 do queues[#queues + 1] = ARGV[i] end

acks.finish(first_ack, last_ack)
lapse.return_jobs()
for _, name in ipairs(redis.call('SMEMBERS', KEY.paused)) do paused[name] = true end
intake.run(queues, endings)
serve(queues)

if round_trip.any_released and asked.want == 0 then
  each_waiting_queue(wake_workers)
end
round_trip.save()
save()
save_counts()
flights.save()
local next_due = redis.call('ZRANGE', KEY.due, 0, 0, 'WITHSCORES')
if next_due[2] then round_trip.not_before(math.max(0, next_due[2] - whole_ms)) end
round_trip.not_before(flights.next_late() or math.huge)
return round_trip.reply()
