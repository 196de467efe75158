"""Dead letters as an operator meets them: listed in pages, sent again, refused, bounded."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, insert, select, update

from headgate.shared.broker import dead_letters, script
from headgate.shared.broker.jobs import Buried, Lease
from headgate.shared.broker.keys import Keys
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.rows import audit_row, job_row
from headgate.shared.database.tables import audit, jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import Result
from headgate.workers.pipeline.outcome import Ended as JobEnded
from tests.support.command import Ended, headgate
from tests.support.pipeline import job_for, played_pipeline
from tests.support.rig import BULK, STANDARD, Broker, envelope
from tests.support.servers import ValkeyServer

GIVEN_UP = "given up: 5 workers died over it"


class Office:
    """An installation without a worker: its broker, its record, its command line."""

    def __init__(self, client: redis.Redis, engine: Engine, env: dict[str, str]) -> None:
        self.broker = Broker(client)
        self.engine = engine
        self.env = env

    def bury(self, job_id: str, raw: bytes, reason: str, queue: str = STANDARD) -> str:
        """A worker held this message, and has buried it."""
        client, keys = self.broker.client, Keys()
        client.hset(keys.owners(), job_id, "w#1")
        client.hset(keys.messages(), job_id, queue.encode() + b"\n" + raw)
        command = dead_letters.bury(keys, lease=Lease(job_id, "w#1"), reason=reason)
        buried = script.run(client, command)
        assert isinstance(buried, Buried)
        return buried.letter

    def run(self, *words: str, code: int = 0) -> Ended:
        """The command of `headgate dead`."""
        ended = headgate(["dead", *words], self.env)
        assert ended.code == code, ended.err + ended.out
        return ended

    def listed(self, *options: str) -> list[dict[str, Any]]:
        """What `dead list --json` prints."""
        return [json.loads(line) for line in self.run("list", "--json", *options).out.splitlines()]

    def put(self, job: Envelope, **changed: object) -> None:
        """The job is on record."""
        with self.engine.begin() as connection:
            connection.execute(insert(jobs), [job_row(job, job.encode()) | changed])

    def row(self, job_id: str) -> Any:
        """The row of the job."""
        with self.engine.connect() as connection:
            return connection.execute(select(jobs).where(jobs.c.id == job_id)).one()


@pytest.fixture
def office(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path) -> Iterator[Office]:
    engine = open_engine(sqlite_url)
    migrate.upgrade(engine)
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
    }
    with valkey.client(decode_responses=False) as client:
        yield Office(client, engine, env)
    engine.dispose()


def test_a_buried_message_is_no_longer_leased_and_a_second_burial_does_nothing(
    office: Office,
) -> None:
    broker = office.broker
    broker.send("s1")
    broker.take()
    lease = broker.lease("s1")
    command = dead_letters.bury(Keys(), lease=lease, reason="two\nlines")
    assert script.run(broker.client, command) is not None
    assert script.run(broker.client, command) is None
    assert broker.is_empty()
    [(queue, reason, raw)] = broker.dead()
    assert (queue, reason, raw) == (STANDARD, "two lines", b'{"hg":"s1"}')
    stale = dead_letters.bury(Keys(), lease=broker.lease("s1", "other"), reason="no")
    assert script.run(broker.client, stale) is None


def test_thousands_are_listed_in_pages_and_by_queue_and_reason(office: Office) -> None:
    ids = [
        office.bury(
            f"j{n}", b"raw %d" % n, ("odd", "even")[n % 2], STANDARD if n % 3 == 0 else BULK
        )
        for n in range(3000)
    ]
    newest_first = ids[::-1]
    first = office.run("list", "--json", "--limit", "700")
    page = [json.loads(line)["id"] for line in first.out.splitlines()]
    assert page == newest_first[:700]
    assert f"--before {page[-1]}" in first.err
    rest = office.listed("--limit", "5000", "--before", page[-1])
    assert [letter["id"] for letter in rest] == newest_first[700:]
    wanted = office.listed("--queue", STANDARD, "--reason", "ODD", "--limit", "5000")
    assert [letter["id"] for letter in wanted] == [
        i for n, i in reversed([*enumerate(ids)]) if n % 3 == 0 and n % 2 == 0
    ]
    assert len(office.run("drop", "--reason", "even", "--yes").out.splitlines()) == 1500
    assert len(office.listed("--limit", "5000")) == 1500
    assert office.run("drop", "--all", "--yes").err == ""
    assert office.listed() == []
    left = office.broker.client.hgetall(Keys().letters())
    assert left == {b"made": b"3000", b"bytes": b"0"}


def test_a_message_is_shown_as_text_or_base64_cut_and_whole(office: Office) -> None:
    office.bury("a", ("ü€" * 3000).encode(), "text")
    office.bury("b", b"\xff" * 3000, "bytes")
    binary, text = office.listed()
    assert (text["encoding"], text["cut"], text["bytes"]) == ("text", True, 15_000)
    assert ("ü€" * 3000).startswith(text["raw"])
    assert len(text["raw"].encode()) in range(4092, 4097)
    assert (binary["encoding"], binary["cut"], binary["bytes"]) == ("base64", False, 3000)
    assert office.run("show", text["id"], "--raw").out == "ü€" * 3000
    assert "15000" in office.run("show", text["id"]).out
    assert office.run("show", text["id"], "--json").document["bytes"] == 15_000
    office.run("show", "nonsense", code=2)


def test_nothing_that_steers_a_terminal_is_printed(office: Office) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\x7f\u202e"
    letter = office.bury(f"id{evil}", evil.encode() + b"\xff", f"why {evil}", f"q{evil}")
    told = [office.run(*words) for words in (["list"], ["list", "--json"], ["show", letter],
                                             ["show", letter, "--json"])]  # fmt: skip
    told.append(office.run("retry", letter, code=1))
    told.append(office.run("retry", letter, "--json", code=1))
    told.append(office.run("drop", letter))
    for ended in told:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ended.out + ended.err)


def test_letters_that_release_0_1_wrote_are_listed_sent_again_and_dropped(office: Office) -> None:
    client = office.broker.client
    for n in range(3):
        client.lpush(Keys().dead(), f"17000000000{n:02d}\n{STANDARD}\nno JSON\n<{n}>\n".encode())
    newest, middle, oldest = office.listed()
    assert (newest["raw"], newest["reason"], newest["bytes"]) == ("<2>\n", "no JSON", 4)
    assert office.run("show", oldest["id"], "--raw").out == "<0>\n"
    office.run("retry", newest["id"])
    assert office.broker.waiting() == [b"<2>\n"]
    office.run("drop", middle["id"])
    assert [letter["id"] for letter in office.listed()] == [oldest["id"]]


def test_what_cannot_be_sent_again_is_told_and_stays(office: Office) -> None:
    ended, running, late, worded = (envelope() for _ in range(4))
    office.put(ended, status="succeeded")
    office.put(running, status="running")
    office.put(late, status="failed", deadline_at_ms=now_ms() - 1)
    office.put(worded, status="failed", envelope=None)
    office.broker.client.sadd(Keys().present(), running.id)
    cases = {
        office.bury("x", b"raw", "no JSON", "celery"): "no queue of jobs",
        office.bury(ended.id, b"raw", GIVEN_UP): "has ended as succeeded",
        office.bury(late.id, b"raw", GIVEN_UP): "submit it again",
        office.bury(worded.id, b"raw", GIVEN_UP): "has no prompt any more",
    }
    unread = envelope()
    office.put(unread, status="failed")
    cases[office.bury(unread.id, b"raw", "no JSON")] = "has ended as failed"
    cases[office.bury(running.id, b"raw", "no JSON")] = ""
    for letter, words in list(cases.items())[:-1]:
        assert words in office.run("retry", letter, code=1).out
    office.broker.client.sadd(Keys().present(), running.id)
    assert "already waits or runs" in office.run("retry", [*cases][-1], code=1).out
    assert len(office.listed()) == len(cases)
    office.run("retry", code=2)
    office.run("retry", "--all", next(iter(cases)), code=2)


def test_a_job_that_gave_up_is_opened_again_with_its_audit_line_and_result_gone(
    office: Office,
) -> None:
    job, keys, client = envelope(), Keys(), office.broker.client
    result = Result(id=job.id, status="failed", model=job.model)
    office.put(job, status="failed", fence=7, result="{}", finished_at_ms=1, cancel_wanted=True)
    with office.engine.begin() as connection:
        line = audit_row(job, result, cost_pico_usd=0, finished_at_ms=1)
        connection.execute(insert(audit), [line])
    client.set(keys.result(job.id), "failed")
    client.hset(keys.crashes(), job.id, 5)
    letter = office.bury(job.id, b"the old message", GIVEN_UP)
    assert client.hget(keys.crashes(), job.id) is None
    assert office.listed()[0]["job_id"] == job.id

    assert STANDARD in office.run("retry", letter).out
    row = office.row(job.id)
    assert (row.status, row.fence, row.result, row.finished_at_ms) == ("queued", 8, None, None)
    assert not row.cancel_wanted
    with office.engine.connect() as connection:
        assert connection.execute(select(audit)).all() == []
    assert not client.exists(keys.result(job.id))
    assert office.broker.waiting_ids() == [job.id]
    assert office.broker.present() == {job.id}
    assert Envelope.decode(json.loads(row.envelope)).forgiven_fence == 7
    office.run("retry", letter, code=2)


def test_a_retry_that_was_cut_off_after_the_record_does_no_harm(office: Office) -> None:
    job = envelope()
    office.put(job, status="failed", fence=3, result="{}", finished_at_ms=1)
    letter = office.bury(job.id, b"old", GIVEN_UP)
    with office.engine.begin() as connection:
        connection.execute(update(jobs).values(status="queued"))
    office.broker.client.sadd(Keys().present(), job.id)  # the sweep has sent it meanwhile
    assert "already waits or runs" in office.run("retry", letter, code=1).out
    office.run("drop", letter)
    assert office.broker.waiting() == []


async def test_a_job_whose_worker_died_between_its_end_and_its_burial_is_buried_later(
    valkey: ValkeyServer, database_url: str, tmp_path: Path
) -> None:
    async with played_pipeline(database_url, valkey.url, tmp_path) as played:
        job = job_for()
        first = await played.run(job, crashes=3)
        again = await played.run(job, crashes=4)
        assert isinstance(first, JobEnded)
        assert isinstance(again, JobEnded)
        assert first.gave_up == again.gave_up == "given up: 3 workers died over it"
        assert first.result == again.result
        assert not isinstance(await played.run(job), JobEnded)  # a mere second copy is no letter
        well = job_for(prompt="another")
        await played.result(well)
        late = await played.run(well, crashes=4)
        assert isinstance(late, JobEnded)
        assert late.gave_up is None
