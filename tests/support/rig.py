"""What the tests of the worker share: a broker seen through its scripts, and no-op workers."""

import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import queues, script
from headgate.shared.broker.jobs import Fetched, Lease, Renewed
from headgate.shared.broker.keys import Keys
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import new_id, now_ms
from headgate.shared.job.request import request_from
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import wait_until
from tests.support.servers import ValkeyServer

URGENT, STANDARD, BULK = (
    queues.queue_name(priority, "fast") for priority in ("interactive", "standard", "bulk")
)
LEASE_MS = 60_000


def envelope(job_id: str | None = None, **fields: Any) -> Envelope:
    """An envelope around a request of these fields; a prompt is given where none is."""
    if not fields.keys() & {"prompt", "messages", "input"}:
        fields["prompt"] = "hello"
    model = fields.pop("on_model", "gpt-4o-mini")
    submitted_at_ms = fields.pop("submitted_at_ms", None) or now_ms()
    return Envelope(
        id=job_id or new_id(),
        request=request_from(fields),
        model=model,
        model_class="fast",
        submitted_at_ms=submitted_at_ms,
    )


def stock_message(job_id: str, body: object = None, **laid_over: Any) -> dict[str, Any]:
    """A message as stock Celery composes it: no `hg` in front, and a body in base64."""
    parts = [[{"prompt": "hello"}], {}, {"callbacks": None}] if body is None else body
    return {
        "body": base64.b64encode(json.dumps(parts).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": queues.TASK, "id": job_id, "retries": 0, "eta": None},
        "properties": {
            "correlation_id": job_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": STANDARD},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": job_id,
        },
        **laid_over,
    }


class Broker:
    """The broker of one installation, over a blocking client, as workers and producers use it."""

    def __init__(self, client: redis.Redis, keys: Keys | None = None) -> None:
        self.client = client
        self.keys = keys or Keys()
        self._taken: dict[tuple[str, str], Lease] = {}
        self._calls = 0

    def lease(self, job_id: str, owner: str = "a") -> Lease:
        """The lease that this worker took of this job last, or one that it never had."""
        return self._taken.get((owner, job_id)) or Lease(job_id, f"{owner}#never")

    def send(self, *ids: str, queue: str = STANDARD) -> int:
        """Jobs of these ids, with a message just long enough to be known by."""
        pairs = [(job_id, message_of(job_id)) for job_id in ids]
        return script.run(self.client, broker_jobs.send(self.keys, queue, pairs))

    def push(self, raw: bytes | str, queue: str = STANDARD) -> None:
        """A raw message at the end of the queue, past the send script."""
        self.client.lpush(self.keys.queue(queue), raw)

    def fetch(
        self,
        want: int = 10,
        *,
        owner: str = "a",
        queues: Sequence[str] = (STANDARD,),
        acked: Sequence[str] = (),
        lease_ms: int = LEASE_MS,
        **others: Any,
    ) -> Fetched:
        """One round trip of the worker `owner`."""
        self._calls += 1
        name = f"{owner}#{self._calls}"
        command = broker_jobs.fetch(
            self.keys, owner=name, lease_ms=lease_ms, want=want, queues=queues,
            acked=[self.lease(job_id, owner) for job_id in acked], **others,
        )  # fmt: skip
        fetched = script.run(self.client, command)
        self._taken |= {(owner, job.id): Lease(job.id, name) for job in fetched.taken}
        return fetched

    def take(self, want: int = 10, **others: Any) -> list[str]:
        """The ids that one round trip brings."""
        return [job.id for job in self.fetch(want, **others).taken]

    def ack(self, *ids: str, owner: str = "a") -> None:
        """The worker has acknowledged these jobs, and asked for no others."""
        self.fetch(0, owner=owner, queues=(), acked=ids)

    def renew(self, *ids: str, owner: str = "a", again: bool = True) -> Renewed:
        """The worker has renewed its leases."""
        leases = [self.lease(job_id, owner) for job_id in ids]
        command = broker_jobs.renew(self.keys, lease_ms=LEASE_MS, leases=leases, again=again)
        return script.run(self.client, command)

    def restore(self, *ids: str, owner: str = "a") -> int:
        """The worker has given jobs back."""
        leases = [self.lease(job_id, owner) for job_id in ids]
        return script.run(self.client, broker_jobs.restore(self.keys, leases=leases))

    def defer(self, job_id: str, wait_ms: int, owner: str = "a") -> bool:
        """The worker has put off a job."""
        lease = self.lease(job_id, owner)
        return script.run(self.client, broker_jobs.defer(self.keys, lease=lease, wait_ms=wait_ms))

    # Time is moved by moving the marks that it is measured against.

    def now_ms(self) -> int:
        """The server's clock."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def settle_down(self) -> None:
        """Workers have called without a gap for longer than any grace."""
        self.client.hset(self.keys.pulse(), mapping={"last": self.now_ms(), "grace": 0})

    def fall_silent(self, ms: int) -> None:
        """No worker has called for `ms`."""
        self.client.hset(self.keys.pulse(), "last", self.now_ms() - ms)

    def lapse(self, *ids: str) -> None:
        """The leases of these jobs (all, without any) have just run out."""
        self._make_past(self.keys.leases(), ids)

    def make_due(self, *ids: str) -> None:
        """These deferred jobs (all, without any) have waited long enough."""
        self._make_past(self.keys.due(), ids)

    def _make_past(self, key: str, ids: Sequence[str]) -> None:
        found = [_text(i) for i in self.client.zrange(key, 0, -1)]
        past = self.now_ms() - 1000
        for place, job_id in enumerate(i for i in found if not ids or i in ids):
            self.client.zadd(key, {job_id: past + place}, xx=True)

    # What is on the server.

    def waiting(self, queue: str = STANDARD) -> list[bytes]:
        """The messages of a queue, the next to run first."""
        found: Any = self.client.lrange(self.keys.queue(queue), 0, -1)
        return list(reversed(found))

    def waiting_ids(self, queue: str = STANDARD) -> list[str]:
        """The ids of the messages of a queue, the next to run first."""
        return [str(json.loads(raw)["hg"]) for raw in self.waiting(queue)]

    def leased(self) -> dict[str, str]:
        """Job id to the worker that holds its lease."""
        found: Any = self.client.hgetall(self.keys.owners())
        return {_text(job_id): _text(owner).partition("#")[0] for job_id, owner in found.items()}

    def due(self) -> set[str]:
        """Ids of the deferred jobs."""
        return {_text(i) for i in self.client.zrange(self.keys.due(), 0, -1)}

    def present(self) -> set[str]:
        """Ids that the broker knows."""
        found: Any = self.client.smembers(self.keys.present())
        return {_text(i) for i in found}

    def crashes(self) -> dict[str, int]:
        """Job id to how many workers lost it."""
        found: Any = self.client.hgetall(self.keys.crashes())
        return {_text(job_id): int(count) for job_id, count in found.items()}

    def dead(self) -> list[tuple[str, str, bytes]]:
        """Queue, reason and raw message of each dead letter, the oldest first."""
        heads: Any = self.client.lrange(self.keys.dead(), 0, -1)
        parts = [head.decode().split("\n") for head in reversed(heads)]
        return [
            (queue, reason, self.client.get(self.keys.letter(letter)))  # type: ignore[misc]  # bytes
            for _letter, letter, _ms, queue, reason, _job, _size in parts
        ]

    def is_empty(self) -> bool:
        """Whether nothing is left of any job."""
        names = (self.keys.leases(), self.keys.owners(), self.keys.messages(), self.keys.due())
        return not self.client.exists(*names, self.keys.present())


def message_of(job_id: str) -> bytes:
    """A message that is nothing but its id."""
    return json.dumps({"hg": job_id}, separators=(",", ":")).encode()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# Workers that do nothing, as processes.


def noop_worker(
    server: ValkeyServer, folder: Path, name: str = "one", **settings: object
) -> WorkerProcess:
    """A worker of tests.support.noop, not started yet; `settings` as `lease_s=2`."""
    env = {f"HEADGATE_{key.upper()}": str(value) for key, value in settings.items()}
    env |= {"HEADGATE_REDIS_URL": server.url, "HEADGATE_HOME": str(folder / "home")}
    argv = [sys.executable, "-m", "celery", "-A", "tests.support.noop", "worker", "--loglevel=INFO"]
    return WorkerProcess([*argv, "-n", f"{name}@%h"], log_path=folder / f"{name}.log", env=env)


def send_noops(client: redis.Redis, count: int, **metadata: object) -> list[str]:
    """`count` jobs for the no-op worker are queued; their ids in order."""
    jobs = [envelope(metadata=metadata) for _ in range(count)]
    queues.send(client, Keys(), ((job, job.encode()) for job in jobs))
    return [job.id for job in jobs]


def runs(client: redis.Redis) -> list[str]:
    """The ids of the no-op jobs that have run, one entry for each run."""
    found: Any = client.lrange("noop:runs", 0, -1)
    return [_text(i) for i in found]


def wait_until_drained(client: redis.Redis, timeout_s: float = 30) -> None:
    """The broker knows no job any more: all were acknowledged."""
    wait_until(lambda: not client.exists(Keys().present()), timeout_s, "all jobs to be acked")
