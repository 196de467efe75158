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
        """HASH: job id to `queue LF message`, of every job that is leased or deferred."""
        return f"{self.prefix}headgate:messages"

    def due(self) -> str:
        """ZSET: job id by the server's ms at which a deferred job goes back to its queue."""
        return f"{self.prefix}headgate:due"

    def present(self) -> str:
        """SET: ids of all jobs that the broker knows: queued, leased or deferred."""
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

    def bucket(self, pool: str, key: str, measure: str) -> str:
        """HASH `level`, `at_ms`; expires an hour after its last use."""
        return f"{self.prefix}headgate:bucket:{pool}:{key}:{measure}"

    def hold(self, attempt: str) -> str:
        """STRING: what an attempt took from its buckets; expires after an hour, as spent."""
        return f"{self.prefix}headgate:hold:{attempt}"

    def cache(self, fingerprint: str) -> str:
        """STRING: an answer; expires after its time to live."""
        return f"{self.prefix}headgate:cache:{fingerprint}"

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
            self.letters(): "hash",
        }  # fmt: skip

    def result(self, job_id: str) -> str:
        """STRING: Celery's result record, and the channel it is published on; expires."""
        return f"{self.prefix}celery-task-meta-{job_id}"
