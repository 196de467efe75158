"""Every Redis key, one method each.

The first line of each docstring is `TYPE: what it holds; its lifetime.` "Leaves" says when an entry
is removed, and Redis removes a key that is empty. The queues are Celery's lists and have Celery's
names. Scripts get the same names from `include.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.shared.sub_lists import SubLists

DEAD_QUEUE = "headgate.dead"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one installation; `prefix` stands before each.

    `sub_lists`: the further lists of each queue, for messages with a `priority` of Celery's.
    """

    prefix: str = ""
    sub_lists: SubLists = SubLists()  # noqa: RUF009  # frozen

    def queue(self, name: str) -> str:
        """LIST: whole Celery messages, the next to run at the right; leaves with the job.

        Messages that were sent with a `priority` are in further lists, see `sub_lists.py`.
        """
        return f"{self.prefix}{name}"

    def wake(self, queue: str) -> str:
        """LIST: one token while `queue` may hold new messages; leaves when a worker takes it."""
        return f"{self.prefix}headgate:wake:{queue}"

    def leases(self) -> str:
        """ZSET: job id by the server's ms at which its lease ends; leaves with its lease."""
        return f"{self.prefix}headgate:leases"

    def owners(self) -> str:
        """HASH: job id to the fetch of the worker that holds its lease; leaves with its lease."""
        return f"{self.prefix}headgate:owners"

    def messages(self) -> str:
        """HASH: job id to `queue LF message` of jobs leased or waiting; leaves with the job."""
        return f"{self.prefix}headgate:messages"

    def due(self) -> str:
        """ZSET: job id by the server's ms at which it returns to its queue; leaves then."""
        return f"{self.prefix}headgate:due"

    def present(self) -> str:
        """SET: ids of all jobs that the broker has in any place; leaves when the job ends."""
        return f"{self.prefix}headgate:present"

    def crashes(self) -> str:
        """HASH: job id to how many workers lost their lease of it; leaves when the job ends."""
        return f"{self.prefix}headgate:crashes"

    def pulse(self) -> str:
        """HASH: ms of the `last` fetch, end of the `grace` in which no lease lapses; stays.

        `rooms`: ms at which the index of waiting queues was made anew.
        """
        return f"{self.prefix}headgate:pulse"

    def cancels(self) -> str:
        """ZSET: ids of running jobs to be cancelled, by server ms; expires."""
        return f"{self.prefix}headgate:cancels"

    def dead(self) -> str:
        """LIST: heads of dead letters, the newest at the left; maintenance drops the oldest.

        A head is `letter LF id LF ms LF queue LF reason LF job id LF bytes`. Release 0.1 wrote
        `ms LF queue LF reason LF raw message`.
        """
        return f"{self.prefix}{DEAD_QUEUE}"

    def letter(self, letter_id: str) -> str:
        """STRING: the message of a dead letter, byte for byte; leaves with its head."""
        return f"{self.prefix}headgate:letter:{letter_id}"

    def letters(self) -> str:
        """HASH: `made`, `bytes` kept and `shed` (dropped) of all dead letters; stays."""
        return f"{self.prefix}headgate:letters"

    def waiting_queues(self) -> str:
        """HASH: `queue SP pool` to how many jobs wait there; leaves when it is 0."""
        return f"{self.prefix}headgate:rooms"

    def ready_queues(self) -> str:
        """ZSET: `queue SP pool` by the rank of its first job or less; leaves when none may start.

        It is derived, with `shut_queues`, and made anew each second (`lib/index.lua`).
        """
        return f"{self.prefix}headgate:rooms:ready"

    def shut_queues(self) -> str:
        """ZSET: `queue SP pool` by the server's ms of its next look; leaves when that has come."""
        return f"{self.prefix}headgate:rooms:shut"

    def waiting_queue(self, queue: str, pool: str, part: str) -> str:
        """ZSET: one part of a waiting queue; leaves when the queue is empty (`parked` later).

        `tenants`: tenants that may run, in turn order (tokens served, divided by their weight).
        `parked`: `t|tenant` and `u|tenant|user` that are passed over, by the server's ms at which
        they are tried again. `ages`: `tenant|user` by the rank (ms) of the first job of that user.
        `served`: tenants without a job here, by turn order, while it still matters.
        """
        return f"{self.prefix}headgate:room:{queue} {pool}:{part}"

    def users(self, queue: str, pool: str, tenant: str) -> str:
        """ZSET: users of a tenant with jobs there, in turn order; leaves with the last job."""
        return f"{self.prefix}headgate:users:{queue} {pool}:{tenant}"

    def served_users(self, queue: str, pool: str, tenant: str) -> str:
        """ZSET: users without a job there, in turn order; leaves when others are past them."""
        return f"{self.users(queue, pool, tenant)}|served"

    def user_queue(self, queue: str, pool: str, tenant: str, user: str) -> str:
        """ZSET: `job id|ticket` of the jobs of one user, by rank in ms; leaves with the job."""
        return f"{self.prefix}headgate:line:{queue} {pool}:{tenant}:{user}"

    def tickets(self) -> str:
        """HASH: job id to the ticket that replaces its message's; leaves when the job ends."""
        return f"{self.prefix}headgate:tickets"

    def holds(self) -> str:
        """HASH: job id to the grant of its attempt under way; leaves with its lease."""
        return f"{self.prefix}headgate:holds"

    def limits(self) -> str:
        """HASH: scope to `rpm=6000 tpm=600000`, as the catalog says; stays."""
        return f"{self.prefix}headgate:limits"

    def overrides(self) -> str:
        """HASH: scope to limits that an operator set, which override `limits`; stays."""
        return f"{self.prefix}headgate:limits:set"

    def bucket(self, scope: str, key: str = "") -> str:
        """HASH: levels of the buckets of a scope; expires two days after its last use.

        For each measure: `.level`, `.at` (server ms), `.total` (granted so far), `.seen` (the limit
        that the provider named). Further `rpd.day`, `rpd.used`, and `running` (calls now). `key`
        tells apart the provider's keys.
        """
        return f"{self.prefix}headgate:bucket:{scope}#{key}"

    def gate(self, pool: str, key: str) -> str:
        """HASH: whether and how fast a pool may be asked; expires two days after the last refusal.

        Fields: `until`, `why`, `pace`, `pace_at`, `ceiling`, `ceiling_from`, `ceiling_at`,
        `shut_at`, `probe_at`. Times are in server ms.
        """
        return f"{self.prefix}headgate:gate:{pool}#{key}"

    def paused(self) -> str:
        """SET: `pool/NAME`, `tenant/NAME`, `queue/NAME` that an operator has paused; stays."""
        return f"{self.prefix}headgate:paused"

    def pauses(self) -> str:
        """HASH: what is paused to `ms SP who`; leaves with the pause."""
        return f"{self.prefix}headgate:pauses"

    def learned(self) -> str:
        """HASH: `out|model|tenant|template` to tokens, `in|model` to a ratio; expires."""
        return f"{self.prefix}headgate:learned"

    def sketch(self, group: str) -> str:
        """STRING: packed counts of answers of `model|tenant|template`; expires after 30 days."""
        return f"{self.prefix}headgate:sketch:{group}"

    def sketches(self) -> str:
        """ZSET: groups that have a sketch, by the server's ms of their last answer; expires."""
        return f"{self.prefix}headgate:sketches"

    def lesson(self, name: str) -> str:
        """STRING: one call that has been added to the sketches; expires after an hour."""
        return f"{self.prefix}headgate:lesson:{name}"

    def lockout(self, tenant: str, user: str = "") -> str:
        """HASH: refusals and lockouts of a user; expires a day after the last lockout.

        Fields: `until` (server ms), `count` of lockouts, ms of the last `refused` calls. Names are
        percent-encoded. Without a lockout it expires a minute after the last refusal.
        """
        return f"{self.prefix}headgate:lockout:{tenant}/{user}"

    def admitted(self, call: str) -> str:
        """STRING: the answer to one call of the admit script; expires after a minute."""
        return f"{self.prefix}headgate:admitted:{call}"

    def address_calls(self, address: str) -> str:
        """STRING: server ms up to which calls of an address have used its rate; expires then."""
        return f"{self.prefix}headgate:address:{address}"

    def version(self) -> str:
        """STRING: a number that grows with each reload of the catalog; stays."""
        return f"{self.prefix}headgate:catalog"

    def cache(self, fingerprint: str) -> str:
        """STRING: an answer; expires after its time to live."""
        return f"{self.prefix}headgate:cache:{fingerprint}"

    def cached(self) -> str:
        """HASH: fingerprint to `bytes|tenant|model|end in server ms`; leaves with its answer."""
        return f"{self.prefix}headgate:cached"

    def cache_uses(self) -> str:
        """ZSET: fingerprint by the server's ms of its last use; leaves with its answer."""
        return f"{self.prefix}headgate:cache:uses"

    def cache_ends(self) -> str:
        """ZSET: fingerprint by the server's ms at which it expires; leaves with its answer."""
        return f"{self.prefix}headgate:cache:ends"

    def cache_counts(self) -> str:
        """HASH: `bytes` kept, `hits`, `misses`, `shared`, `evicted`, `saved` (pico-USD); stays."""
        return f"{self.prefix}headgate:cache:counts"

    def cache_call(self, call: str) -> str:
        """STRING: one call of the script `cache_uses` that has counted; expires after a minute."""
        return f"{self.prefix}headgate:cache:heard:{call}"

    def flights(self) -> str:
        """HASH: fingerprint to the job that leads its flight; leaves when the call ends."""
        return f"{self.prefix}headgate:flights"

    def leaders(self) -> str:
        """HASH: job id to the fingerprint of the flight that it leads; leaves with its lease."""
        return f"{self.prefix}headgate:leaders"

    def flight(self, fingerprint: str) -> str:
        """ZSET: jobs that wait for the call of an equal one, by deadline; leaves with the last.

        The flight of no name holds the jobs whose call has ended, until they are in their queues.
        """
        return f"{self.prefix}headgate:flight:{fingerprint}"

    def failure(self, fingerprint: str) -> str:
        """STRING: how the call failed that equal requests waited for; expires after 5 seconds."""
        return f"{self.prefix}headgate:failed:{fingerprint}"

    def followers(self) -> str:
        """ZSET: all jobs that follow a flight, by deadline in Unix ms; leaves with the flight."""
        return f"{self.prefix}headgate:followers"

    def breaker(self, model: str, key: str) -> str:
        """HASH: the circuit breaker of a model on one key (`lib/breaker.lua`); expires in a day."""
        return f"{self.prefix}headgate:breaker:{model}#{key}"

    def breakers(self) -> str:
        """ZSET: `provider/model#key` by the server's ms of its last call; expires in a day."""
        return f"{self.prefix}headgate:breakers"

    def budgets(self) -> str:
        """HASH: scope to its budgets as the catalog says, see `lib/money.lua`; stays."""
        return f"{self.prefix}headgate:budgets"

    def budget(self, scope: str, period: str) -> str:
        """HASH: `spent` and `held` in pico-USD of a scope in a day or month; expires after that."""
        return f"{self.prefix}headgate:budget:{scope}:{period}"

    def sums_read(self, period: str) -> str:
        """HASH: scopes whose sums of this period were read; expires after 40 days."""
        return self.budget("read", period)

    def alerts(self) -> str:
        """LIST: alerts of budgets in JSON, the oldest at the right; expires in 7 days."""
        return f"{self.prefix}headgate:alerts"

    def alert(self, alert_id: str) -> str:
        """STRING: the worker that sends this alert; expires in a minute."""
        return f"{self.prefix}headgate:alert:{alert_id}"

    def keyed(self) -> str:
        """HASH: provider to its keys, for the release before; expires in 12 seconds."""
        return f"{self.prefix}headgate:keyed"

    def worker_keys(self) -> str:
        """ZSET: worker and its key counts to when they are forgotten; expires in 12 seconds."""
        return f"{self.prefix}headgate:worker-keys"

    def deltas(self, job_id: str) -> str:
        """STREAM: pieces of an answer, `fence-n` to `d`; expires 5 minutes after the job's end.

        Without an end it expires in an hour. `d` is text; jobs with `events` also have `e`, the
        vendor's events, one a line, and `k`, their dialect. It is the name of the channel, too.
        """
        return f"{self.prefix}headgate:deltas:{job_id}"

    def recent_call(self, digest: str) -> str:
        """STRING: the job that a call of the gateway became, and who asked; expires in 10 min."""
        return f"{self.prefix}headgate:call:{digest}"

    def sweeper(self) -> str:
        """STRING: the worker that does the maintenance; expires after one period."""
        return f"{self.prefix}headgate:sweeper"

    def database(self) -> str:
        """STRING: `id SP address` of the database that this Redis belongs to; stays."""
        return f"{self.prefix}headgate:database"

    def strays(self) -> str:
        """HASH: worker that ended, as it had another database, to `ms SP why`; expires in 1 h."""
        return f"{self.prefix}headgate:strays"

    def probe(self) -> str:
        """STRING: what a starting worker tries its rights on; expires after a second."""
        return f"{self.prefix}headgate:probe"

    def worker(self, name: str) -> str:
        """STRING: one living worker: jobs held, queues, providers; expires when it stops renewing.

        Release 0.1 wrote only the number of jobs.
        """
        return f"{self.prefix}headgate:worker:{name}"

    def workers(self) -> str:
        """ZSET: living workers by the server's ms at which their sign expires; expires with it."""
        return f"{self.prefix}headgate:workers"

    def kinds(self) -> dict[str, str]:
        """Return the keys that workers cannot do without, each with its type."""
        return {
            self.leases(): "zset", self.owners(): "hash", self.messages(): "hash",
            self.due(): "zset", self.present(): "set", self.crashes(): "hash",
            self.pulse(): "hash", self.cancels(): "zset", self.dead(): "list",
            self.letters(): "hash", self.waiting_queues(): "hash", self.tickets(): "hash",
            self.holds(): "hash", self.limits(): "hash", self.overrides(): "hash",
            self.paused(): "set", self.ready_queues(): "zset", self.shut_queues(): "zset",
        }  # fmt: skip

    def results(self) -> str:
        """LIST: `bytes LF group LF job id` of stored results, the oldest at the right; stays.

        An entry leaves when its result is evicted, or later where the result has expired.
        """
        return f"{self.prefix}headgate:results"

    def results_counts(self) -> str:
        """HASH: `bytes` that results take, and how many were `evicted` so far; stays."""
        return f"{self.prefix}headgate:results:counts"

    def group(self, group: str) -> str:
        """STRING: a group of tasks that its caller has saved, as Celery writes it; expires."""
        return f"{self.prefix}celery-taskset-meta-{group}"

    def chord(self, group: str) -> str:
        """STRING: how many parts a chord of Celery has; leaves when all have ended."""
        return f"{self.group(group)}.s"

    def result(self, job_id: str) -> str:
        """STRING: Celery's result record; expires.

        It is the name of the channel, too, on which the record is published.
        """
        return f"{self.prefix}celery-task-meta-{job_id}"
