"""Every Redis key, one method each, with its type and its lifetime.

Keys without a lifetime empty themselves: what enters them at submit leaves them when the job ends.
The queues themselves are Celery's lists and carry Celery's names.
"""

from __future__ import annotations

from dataclasses import dataclass

DEAD_QUEUE = "headgate.dead"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one installation; `prefix` stands before each."""

    prefix: str = ""

    def queue(self, name: str) -> str:
        """LIST of whole Celery messages; new ones at the left, the next to run at the right."""
        return f"{self.prefix}{name}"

    def wake(self, queue: str) -> str:
        """LIST with one token while `queue` may hold messages that no worker has seen."""
        return f"{self.prefix}headgate:wake:{queue}"

    def leases(self) -> str:
        """ZSET: job id by the server's ms at which its lease ends."""
        return f"{self.prefix}headgate:leases"

    def owners(self) -> str:
        """HASH: job id to the worker that holds its lease."""
        return f"{self.prefix}headgate:owners"

    def messages(self) -> str:
        """HASH: job id to `queue LF message`, of every job leased, deferred or in a room."""
        return f"{self.prefix}headgate:messages"

    def due(self) -> str:
        """ZSET: job id by the server's ms at which a deferred job goes back to its queue."""
        return f"{self.prefix}headgate:due"

    def present(self) -> str:
        """SET: ids of all jobs that the broker knows: queued, waiting, leased or deferred."""
        return f"{self.prefix}headgate:present"

    def crashes(self) -> str:
        """HASH: job id to how many workers lost their lease of it."""
        return f"{self.prefix}headgate:crashes"

    def pulse(self) -> str:
        """HASH: ms of the `last` call, end of the `grace` in which no lease lapses; stays."""
        return f"{self.prefix}headgate:pulse"

    def cancels(self) -> str:
        """ZSET: ids of running jobs to be cancelled, by server ms; expires."""
        return f"{self.prefix}headgate:cancels"

    def dead(self) -> str:
        """LIST of the heads of dead letters, the newest at the left; bounded by the sweep.

        A head is `letter LF id LF ms LF queue LF reason LF job id LF bytes`. Release 0.1 wrote
        `ms LF queue LF reason LF raw message`.
        """
        return f"{self.prefix}{DEAD_QUEUE}"

    def letter(self, letter_id: str) -> str:
        """STRING: the message of a dead letter, byte for byte; leaves with its head."""
        return f"{self.prefix}headgate:letter:{letter_id}"

    def letters(self) -> str:
        """HASH about all dead letters: `made`, `bytes` kept, `shed` by the bound; stays."""
        return f"{self.prefix}headgate:letters"

    def rooms(self) -> str:
        """HASH: `queue SP pool` to how many jobs wait there for their pool; a room at 0 is gone."""
        return f"{self.prefix}headgate:rooms"

    def room(self, queue: str, pool: str, part: str) -> str:
        """One part of a waiting room; each is gone when the room is empty, but `tenants` of late.

        `tenants` ZSET: tenants that may run, by virtual time (tokens served / weight). `parked`
        ZSET: `t|tenant` and `u|tenant|user` by the server's ms at which they are tried again.
        `ages` ZSET: `tenant|user` by the rank (ms) of the first job in that line. `served` ZSET:
        virtual times of those that have no job here just now, while they still matter.
        """
        return f"{self.prefix}headgate:room:{queue} {pool}:{part}"

    def users(self, queue: str, pool: str, tenant: str) -> str:
        """ZSET: users of a tenant with jobs in a room, by virtual time; gone with the last job."""
        return f"{self.prefix}headgate:users:{queue} {pool}:{tenant}"

    def line(self, queue: str, pool: str, tenant: str, user: str) -> str:
        """ZSET: `job id|ticket` by rank in ms: the jobs of one user in a room, the first first."""
        return f"{self.prefix}headgate:line:{queue} {pool}:{tenant}:{user}"

    def tickets(self) -> str:
        """HASH: job id to the ticket that counts in place of its message's, until it ends."""
        return f"{self.prefix}headgate:tickets"

    def holds(self) -> str:
        """HASH: job id to the grant of its attempt under way; gone when its lease ends."""
        return f"{self.prefix}headgate:holds"

    def limits(self) -> str:
        """HASH: scope to `rpm=6000 tpm=600000`, as the catalog says; stays."""
        return f"{self.prefix}headgate:limits"

    def overrides(self) -> str:
        """HASH: scope to limits that an operator set at run time, laid over `limits`; stays."""
        return f"{self.prefix}headgate:limits:set"

    def bucket(self, scope: str, key: str = "") -> str:
        """HASH: levels of the buckets of a scope; expires two days after its last use.

        For each measure `.level`, `.at` (server ms), `.total` (granted so far), `.seen` (the limit
        that the provider told); `rpd.day`, `rpd.used`; `running` (calls now). `key` tells apart
        the provider's keys.
        """
        return f"{self.prefix}headgate:bucket:{scope}#{key}"

    def gate(self, pool: str, key: str) -> str:
        """HASH: `until`, `why`, `pace`, `pace_at`, `ceiling`, `ceiling_at`, `probe_at` of a pool.

        Times in server ms. Expires two days after the last refusal.
        """
        return f"{self.prefix}headgate:gate:{pool}#{key}"

    def paused(self) -> str:
        """SET: `pool/NAME`, `tenant/NAME`, `queue/NAME` that an operator has paused; stays."""
        return f"{self.prefix}headgate:paused"

    def learned(self) -> str:
        """HASH: `out|model|tenant|template` to tokens, `in|model` to a ratio; expires."""
        return f"{self.prefix}headgate:learned"

    def sketch(self, group: str) -> str:
        """STRING: packed counts of the answers of `model|tenant|template`; expires in 30 days."""
        return f"{self.prefix}headgate:sketch:{group}"

    def sketches(self) -> str:
        """ZSET: groups that have a sketch, by the server's ms of their last answer; expires."""
        return f"{self.prefix}headgate:sketches"

    def lesson(self, name: str) -> str:
        """STRING: one worker's counts were added; expires after an hour."""
        return f"{self.prefix}headgate:lesson:{name}"

    def lockout(self, tenant: str, user: str = "") -> str:
        """HASH: `until` (server ms), `count` of lockouts, ms of the last `refused` calls of a user.

        `tenant` and `user` percent-encoded. Expires a day after the last lockout, or a minute after
        the last refusal where there was none.
        """
        return f"{self.prefix}headgate:lockout:{tenant}/{user}"

    def admitted(self, call: str) -> str:
        """STRING: the answer to one call of the admit script; expires after a minute."""
        return f"{self.prefix}headgate:admitted:{call}"

    def version(self) -> str:
        """STRING: a number that grows with each reload of the catalog; stays."""
        return f"{self.prefix}headgate:catalog"

    def cache(self, fingerprint: str) -> str:
        """STRING: an answer; expires after its time to live."""
        return f"{self.prefix}headgate:cache:{fingerprint}"

    def cached(self) -> str:
        """HASH: fingerprint to `bytes|tenant|model|end in server ms` of each answer kept."""
        return f"{self.prefix}headgate:cached"

    def cache_uses(self) -> str:
        """ZSET: fingerprints of answers kept, by the server's ms of their last use."""
        return f"{self.prefix}headgate:cache:uses"

    def cache_ends(self) -> str:
        """ZSET: fingerprints of answers kept, by the server's ms at which they expire."""
        return f"{self.prefix}headgate:cache:ends"

    def cache_counts(self) -> str:
        """HASH: `bytes` kept, `hits`, `misses`, `shared`, `evicted`, `saved` in pico-USD; stays."""
        return f"{self.prefix}headgate:cache:counts"

    def cache_heard(self, call: str) -> str:
        """STRING: one call of the heard script that has counted; expires after a minute."""
        return f"{self.prefix}headgate:cache:heard:{call}"

    def flights(self) -> str:
        """HASH: fingerprint to the job whose call all equal requests wait for, while it runs."""
        return f"{self.prefix}headgate:flights"

    def leaders(self) -> str:
        """HASH: job id to the fingerprint of the flight that it leads, while it runs."""
        return f"{self.prefix}headgate:leaders"

    def flight(self, fingerprint: str) -> str:
        """ZSET: jobs that wait for the call of an equal one, by deadline; gone with the last.

        The flight of no name holds those whose call has ended, until they are in their queues.
        """
        return f"{self.prefix}headgate:flight:{fingerprint}"

    def failure(self, fingerprint: str) -> str:
        """STRING: how the call failed that equal requests waited for; expires after 5 seconds."""
        return f"{self.prefix}headgate:failed:{fingerprint}"

    def followers(self) -> str:
        """ZSET: all jobs in flights that lead none, by their deadline in Unix ms."""
        return f"{self.prefix}headgate:followers"

    def breaker(self, model: str, key: str) -> str:
        """HASH: the circuit breaker of `provider/model` on one key; see `breaker.lua`. Expires."""
        return f"{self.prefix}headgate:breaker:{model}#{key}"

    def breakers(self) -> str:
        """ZSET: `provider/model#key` that were called lately, by the server's ms of the last."""
        return f"{self.prefix}headgate:breakers"

    def budgets(self) -> str:
        """HASH: scope to its budgets as the catalog says; see `money.lua`. Stays."""
        return f"{self.prefix}headgate:budgets"

    def budget(self, scope: str, period: str) -> str:
        """HASH: `spent` and `held` in pico-USD of a scope in a day or month; expires after it."""
        return f"{self.prefix}headgate:budget:{scope}:{period}"

    def alerts(self) -> str:
        """LIST: alerts of budgets in JSON that are still to be told, the oldest at the right."""
        return f"{self.prefix}headgate:alerts"

    def keyed(self) -> str:
        """HASH: provider to how many keys its workers have, 0 for none; stays."""
        return f"{self.prefix}headgate:keyed"

    def deltas(self, job_id: str) -> str:
        """STREAM: pieces of an answer, `fence-n` to `d`; the channel, too. Expires in an hour."""
        return f"{self.prefix}headgate:deltas:{job_id}"

    def sweeper(self) -> str:
        """STRING: the worker that sweeps; expires after one period."""
        return f"{self.prefix}headgate:sweeper"

    def probe(self) -> str:
        """STRING: what a starting worker tries its rights on; expires after a second."""
        return f"{self.prefix}headgate:probe"

    def worker(self, name: str) -> str:
        """STRING: one living worker; expires when it stops renewing."""
        return f"{self.prefix}headgate:worker:{name}"

    def kinds(self) -> dict[str, str]:
        """The keys of the whole installation that workers cannot do without, and their types."""
        return {
            self.leases(): "zset", self.owners(): "hash", self.messages(): "hash",
            self.due(): "zset", self.present(): "set", self.crashes(): "hash",
            self.pulse(): "hash", self.cancels(): "zset", self.dead(): "list",
            self.letters(): "hash", self.rooms(): "hash", self.tickets(): "hash",
            self.holds(): "hash", self.limits(): "hash", self.overrides(): "hash",
            self.paused(): "set",
        }  # fmt: skip

    def result(self, job_id: str) -> str:
        """STRING: Celery's result record, and the channel it is published on; expires."""
        return f"{self.prefix}celery-task-meta-{job_id}"
