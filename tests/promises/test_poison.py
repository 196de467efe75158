"""Bad messages on every job queue, against the whole worker: dead letters, and nothing else."""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import insert, update

from headgate import Client
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import all_queues
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.tables import attempts, jobs
from headgate.shared.job.ids import now_ms
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import BUSY, wait_until
from tests.support.command import headgate
from tests.support.poison import DEAD, HARMLESS, good_request, hostile, mutated
from tests.support.servers import Simulator, ValkeyServer

CLASSES = ("fast", "smart", "reasoning", "embedding")


class Stack:
    """A worker, a client and the broker of one installation."""

    def __init__(
        self, valkey: ValkeyServer, simulator: Simulator, folder: Path, database_url: str
    ) -> None:
        engine = open_engine(database_url)
        migrate.upgrade(engine)
        engine.dispose()
        home = folder / "home"
        self.env = {
            "HEADGATE_HOME": str(home),
            "HEADGATE_REDIS_URL": valkey.url,
            "HEADGATE_SIMULATOR_URL": simulator.url,
            "HEADGATE_DATABASE_URL": database_url,
        }
        self.keys = Keys()
        self.worker: WorkerProcess = installation.worker_process(self.env, folder, level="DEBUG")
        in_force = Settings(home=home, redis_url=valkey.url, database_url=database_url)
        self.client = Client(in_force)
        self.broker: redis.Redis = valkey.client(decode_responses=False)

    def push(self, queue: str, raw: bytes) -> None:
        """A raw message at the end of the queue."""
        self.broker.lpush(queue, raw)
        self.broker.lpush(self.keys.wake(queue), "1")
        self.broker.ltrim(self.keys.wake(queue), 0, 0)

    def crashed(self, job_id: str, times: int) -> None:
        """Workers have claimed the job, asked a model, and died, one after the other."""
        self.broker.hset(self.keys.crashes(), job_id, times)
        engine = open_engine(self.env["HEADGATE_DATABASE_URL"])
        with engine.begin() as connection:
            rows = [
                {
                    "job_id": job_id, "fence": fence, "n": fence, "model": "gpt-4o-mini",
                    "provider": "openai", "state": "open", "started_at_ms": now_ms(),
                    "waited_ms": 0,
                }
                for fence in range(1, times + 1)
            ]  # fmt: skip
            connection.execute(insert(attempts), rows)
            mark = update(jobs).where(jobs.c.id == job_id)
            connection.execute(mark.values(status="running", fence=times, worker="dead"))
        engine.dispose()

    def dead(self, *options: str) -> list[dict[str, Any]]:
        """What `headgate dead list` tells."""
        ended = headgate(["dead", "list", "--json", "--limit", "100000", *options], self.env)
        assert ended.code == 0, ended.err
        return [json.loads(line) for line in ended.out.splitlines()]

    def all_succeed(self, ids: list[str]) -> None:
        """Each of these jobs ends well."""
        for job_id in ids:
            result = self.client.result(job_id, wait=True, timeout_s=60 * BUSY)
            assert result.status == "succeeded", result.error


@pytest.fixture
def stack(
    valkey: ValkeyServer, simulator: Simulator, tmp_path: Path, sqlite_url: str
) -> Iterator[Stack]:
    with running(Stack(valkey, simulator, tmp_path, sqlite_url)) as stack:
        yield stack


@pytest.fixture
def either_stack(
    valkey: ValkeyServer, simulator: Simulator, tmp_path: Path, database_url: str
) -> Iterator[Stack]:
    with running(Stack(valkey, simulator, tmp_path, database_url)) as stack:
        yield stack


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    with installation.ended_afterwards(stack.worker), stack.client, stack.broker:
        yield stack


@pytest.mark.slow
def test_malformed_messages_end_as_dead_letters_and_the_next_job_runs(stack: Stack) -> None:
    stack.worker.start()
    queues = all_queues(CLASSES)
    assert len(queues) == 12
    for place, queue in enumerate(queues):
        good: list[str] = []
        for name, raw in [*DEAD.items(), *HARMLESS.items()]:
            # The id of the harmless ones is their own, so that each of them is a job.
            stack.push(queue, raw.replace(b'"bad"', f'"bad-{place}-{len(good)}"'.encode()))
            good.append(stack.client.submit(**good_request(queue, f"{queue} after {name}")).id)
        stack.all_succeed(good)
        wait_until(lambda n=place: stack.broker.llen(stack.keys.dead()) == len(DEAD), 20, queue)  # type: ignore[misc]
        if place % 4 == 0:
            _listed_whole(stack, queue, str(place))
        ended = headgate(["dead", "drop", "--queue", queue, "--yes"], stack.env)
        assert (ended.code, len(ended.out.splitlines())) == (0, len(DEAD)), ended.err
    assert stack.worker.running
    assert "Traceback" not in stack.worker.log(), stack.worker.log_from("Traceback")
    names = ("present", "leases", "owners", "messages", "due")
    wait_until(lambda: not stack.broker.exists(*(f"headgate:{name}" for name in names)), 20)
    assert stack.worker.stop(20) == 0


def _listed_whole(stack: Stack, queue: str, place: str) -> None:
    listed = stack.dead()[::-1]
    assert len({letter["id"] for letter in listed}) == len(DEAD)
    assert {letter["queue"] for letter in listed} == {queue}
    assert all(letter["reason"] for letter in listed)
    sent = [
        raw.replace(b'"bad"', f'"bad-{place}-{n}"'.encode()) for n, raw in enumerate(DEAD.values())
    ]
    assert Counter(letter["bytes"] for letter in listed) == Counter(map(len, sent))
    for letter in listed:
        raw = letter["raw"].encode()
        if letter["encoding"] == "base64":
            raw = base64.b64decode(letter["raw"])
        assert letter["cut"] == (len(raw) < letter["bytes"])
        assert any(one.startswith(raw) for one in sent if len(one) == letter["bytes"])


def test_a_letter_is_shown_sent_again_and_dropped(stack: Stack) -> None:
    queue = "headgate.standard.fast"
    stack.worker.start()
    for raw in (b"same", b"same", b"\xff\xfe\x1b[2J", b'{"a": 1}'):
        stack.push(queue, raw)
    wait_until(lambda: stack.broker.llen(stack.keys.dead()) == 4, 20, "four letters")
    listed = stack.dead()[::-1]
    assert [letter["bytes"] for letter in listed] == [4, 4, 6, 8]
    assert listed[0]["id"] != listed[1]["id"]
    assert headgate(["dead", "show", listed[3]["id"], "--raw"], stack.env).out == '{"a": 1}'

    again = listed[0]["id"]
    assert headgate(["dead", "retry", again], stack.env).code == 0
    wait_until(lambda: len(stack.dead()) == 4, 10, "its return")
    assert again not in {letter["id"] for letter in stack.dead()}
    assert headgate(["dead", "drop", again], stack.env).code == 2
    two = [letter["id"] for letter in stack.dead()[:2]]
    assert headgate(["dead", "drop", *two], stack.env).code == 0
    assert headgate(["dead", "drop", "--reason", "headers", "--json", "--yes"], stack.env).code == 0
    assert headgate(["dead", "drop", "--all", "--yes"], stack.env).code == 0
    assert stack.dead() == []
    assert not [*stack.broker.scan_iter("headgate:letter:*")]
    stack.all_succeed([stack.client.submit("the last").id])


@pytest.mark.slow
def test_thousands_of_random_and_mutated_messages_leave_the_good_ones_alone(
    either_stack: Stack,
) -> None:
    stack = either_stack
    queue, secret = "headgate.standard.fast", b"SWORDFISH"
    good = []
    for n, raw in enumerate(mutated(3000, secret, seed=8)):
        stack.broker.lpush(queue, raw)
        if n % 30 == 0:
            good.append(stack.client.submit(f"good {n}").id)
    for raw in hostile(secret):
        stack.broker.lpush(queue, raw)
        good.append(stack.client.submit(f"good after {len(good)}").id)
    stack.worker.start()
    stack.all_succeed(good)
    wait_until(lambda: not stack.broker.exists(queue, stack.keys.leases()), 60, "all to be met")
    assert stack.worker.running
    log = stack.worker.log()
    assert "Traceback" not in log
    assert "fault of Headgate" not in log
    assert secret.decode() not in log
    assert stack.broker.llen(stack.keys.dead()) > 1000
    told = headgate(["dead", "list", "--limit", "5000"], stack.env)
    assert told.code == 0
    assert all(c.isprintable() or c in "\t\n" for c in told.out)
    assert stack.worker.stop(20) == 0


def test_a_job_that_took_too_many_workers_down_is_a_dead_letter_and_can_be_opened_again(
    either_stack: Stack,
) -> None:
    stack = either_stack
    job = stack.client.submit("poison", on_unknown="fail")
    spared = stack.client.submit("spared", model="claude-haiku-4-5")
    stack.crashed(job.id, times=5)
    stack.worker.start()
    result = stack.client.result(job.id, wait=True, timeout_s=30 * BUSY)
    assert (result.status, result.attempts) == ("failed", 5)
    assert result.error is not None
    assert result.error.message == "given up: 5 workers died over it"
    wait_until(lambda: stack.broker.llen(stack.keys.dead()) == 1, 10, "the letter")
    [letter] = stack.dead("--reason", "given up")
    assert (letter["job_id"], letter["queue"]) == (job.id, "headgate.standard.fast")
    assert "poison" in letter["raw"]
    assert spared.result(timeout_s=30 * BUSY).status == "succeeded"
    before = installation.read_books(stack.env["HEADGATE_DATABASE_URL"])
    assert before.jobs == {"failed": 1, "succeeded": 1}

    assert headgate(["dead", "retry", letter["id"]], stack.env).code == 0
    wait_until(lambda: stack.client.result(job.id).ended, 30, "its second end")
    again = stack.client.result(job.id)
    assert (again.status, again.attempts) == ("succeeded", 6)
    assert again.submitted_at == result.submitted_at
    stored = stack.client.result(job.id, wait=True, timeout_s=10)
    assert stored.content == again.content
    assert stack.dead() == []
    books = installation.read_books(stack.env["HEADGATE_DATABASE_URL"])
    assert books.jobs == {"succeeded": 2}
    assert books.audit_lines == 2
    assert books.attempts == {"answered": 2, "unknown": 5}
    assert books.audit_usd == books.ledger_usd
    assert stack.worker.stop(20) == 0


def test_keys_of_a_wrong_type_are_named_and_the_other_queues_go_on(stack: Stack) -> None:
    stack.env["HEADGATE_LEASE_S"] = "1"
    stack.worker.env["HEADGATE_LEASE_S"] = "1"
    stack.broker.set("headgate.bulk.fast", "somebody's")
    stack.broker.set("headgate:wake:headgate.bulk.smart", "somebody's")
    stack.broker.set("headgate.dead", "somebody's")
    stack.worker.start()
    stack.push("headgate.standard.fast", b"no JSON")
    stack.all_succeed([stack.client.submit("works all the same").id])
    log = stack.worker.log
    wait_until(lambda: "headgate.dead is a string, not a list" in log(), 20, "the key to be named")
    wait_until(lambda: "headgate.bulk.fast is no list" in log(), 20, "the queue to be named")
    stack.broker.delete("headgate.dead", "headgate.bulk.fast")
    wait_until(lambda: stack.broker.llen(stack.keys.dead()) == 1, 30, "the letter")
    stack.all_succeed([stack.client.submit("bulk again", priority="bulk").id])
    assert "Traceback" not in log()


def test_jobs_of_a_purged_queue_are_sent_again(stack: Stack) -> None:
    stack.worker.env["HEADGATE_SWEEP_S"] = "0.5"
    ids = stack.client.submit_many(f"purged {n}" for n in range(50))
    stack.broker.delete("headgate.standard.fast")
    stack.worker.start()
    stack.all_succeed(ids)
    words = "50 jobs were in no queue any more"
    wait_until(lambda: words in stack.worker.log(), 20, "the log to say so")
