"""Events on record are sent, signed, for a day: on a virtual clock, against both databases."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import openai
import pytest
from sqlalchemy import insert, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from headgate.producer.admin import webhooks as admin
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading, writing
from headgate.shared.database.finish import end_waiting
from headgate.shared.database.rows import job_row
from headgate.shared.database.tables import batches, jobs, webhook_deliveries, webhook_tenants
from headgate.shared.database.webhooks import await_batch
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ErrorReport
from headgate.shared.webhook_target import AllowedTargets
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.clients.webhook_outbox import WebhookOutbox
from headgate.workers.maintenance.webhooks.deliveries import LEASE_MS, prune
from headgate.workers.maintenance.webhooks.sender import AT_ONCE, EACH, WebhookSender
from headgate.workers.policy.webhook_retry import WebhookReply
from tests.support.rig import envelope

URL = "https://hooks.example/jobs"
LATE = ErrorReport("deadline", "too late", False)
DAY_MS = 86_400_000


class Sent:
    """One attempt."""

    def __init__(self, url: str, headers: Mapping[str, str], body: str, at_ms: int) -> None:
        self.url, self.headers, self.body, self.at_ms = url, headers, body, at_ms

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Outside:
    """The receivers, and the events of an installation on a clock that the test sets."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        migrate.upgrade(self.engine)
        self.record = GroupCommit(self.engine)
        self.at_ms = now_ms()
        self.sent: list[Sent] = []
        self.reply: Callable[[Sent], WebhookReply] = lambda _: WebhookReply(200)
        self.hang: asyncio.Event | None = None

    def sender(self) -> WebhookSender:
        async def has_turn() -> bool:
            return True

        return WebhookSender(
            self.engine, self.record, WebhookOutbox(), lambda: self, has_turn,
            clock_ms=lambda: self.at_ms, chance=lambda: 0.5, last_s=60,
        )  # fmt: skip

    async def post(self, url: str, headers: Mapping[str, str], body: str) -> WebhookReply:
        self.sent.append(one := Sent(url, headers, body, self.at_ms))
        if self.hang is not None:
            await self.hang.wait()
        return self.reply(one)

    async def close(self) -> None:
        """Nothing is open."""

    def end(self, **fields: Any) -> Envelope:
        """Put a job on record that ends late at once, as maintenance ends it."""
        batch_id = fields.pop("batch_id", None)
        job = envelope(**fields).model_copy(update={"batch_id": batch_id})
        with writing(self.engine) as connection:
            connection.execute(insert(jobs).values(job_row(job, job.encode())))
            row = connection.execute(select(jobs).where(jobs.c.id == job.id)).one()
            end_waiting(connection, [(row, job)], LATE, at_ms=self.at_ms)
        return job

    def rows(self) -> list[Any]:
        with reading(self.engine) as connection:
            return list(connection.execute(select(webhook_deliveries)).all())

    async def until_nothing_is_due(self, sender: WebhookSender) -> None:
        """Let the clock go to each next attempt until there is none."""
        while True:
            await sender.send_due()
            await sender.settled()
            due = [row.due_at_ms for row in self.rows() if row.due_at_ms is not None]
            if not due:
                return
            self.at_ms = max(self.at_ms, min(due))


@pytest.fixture
async def outside(database_url: str) -> AsyncIterator[Outside]:
    found = Outside(database_url)
    yield found
    await found.record.close()
    await asyncio.get_running_loop().shutdown_default_executor()
    found.engine.dispose()


async def test_a_day_of_retries_keeps_the_id_and_signs_anew(outside: Outside) -> None:
    job = outside.end(webhook_url=URL)
    sender, began_ms = outside.sender(), outside.at_ms
    outside.reply = lambda _: WebhookReply(500)
    await outside.until_nothing_is_due(sender)
    sent = outside.sent
    assert len(sent) == 13
    assert {one.id for one in sent} == {outside.rows()[0].id}
    assert {one.body for one in sent} == {outside.rows()[0].body}
    assert len({one.headers["webhook-timestamp"] for one in sent}) == 13
    assert len({one.headers["webhook-signature"] for one in sent}) == 13
    assert sent[-1].at_ms == began_ms + DAY_MS
    [row] = outside.rows()
    assert (row.state, row.job_id, row.attempts, row.http_status) == ("failed", job.id, 13, 500)
    assert row.error == "HTTP 500"
    assert job.id not in {one.id for one in sent}

    outside.reply = lambda _: WebhookReply(200)
    assert admin.resend(outside.engine, [row.id]) == [row.id]
    outside.at_ms = max(outside.at_ms, now_ms())
    await outside.until_nothing_is_due(sender)
    assert outside.sent[-1].id == row.id
    assert [one.state for one in outside.rows()] == ["delivered"]


def verifies(secret: str, sent: Sent) -> bool:
    """Whether both libraries take the signature; never one alone."""
    headers, taken = dict(sent.headers), []
    with openai.OpenAI(api_key="-", webhook_secret=secret) as client:
        for verify in (client.webhooks.verify_signature, Webhook(secret).verify):
            try:
                verify(sent.body, headers)
                taken.append(True)
            except (openai.InvalidWebhookSignatureError, WebhookVerificationError):
                taken.append(False)
    assert taken[0] == taken[1]
    return taken[0]


async def test_both_libraries_verify_what_is_sent_and_a_rotation_has_no_gap(
    outside: Outside,
) -> None:
    sender = outside.sender()
    first = admin.create_secret(outside.engine, "default")
    outside.end(webhook_url=URL)
    await outside.until_nothing_is_due(sender)
    second = admin.rotate_secret(outside.engine, "default", 60_000)
    outside.end(webhook_url=URL)
    await outside.until_nothing_is_due(sender)
    outside.at_ms += 61_000
    outside.end(webhook_url=URL)
    await outside.until_nothing_is_due(sender)

    before, between, after = outside.sent
    assert verifies(first, before)
    assert verifies(first, between)
    assert verifies(second, between)
    assert verifies(second, after)
    assert not verifies(first, after)
    assert not verifies(second, before)
    assert before.headers["content-type"] == "application/json"


async def test_an_event_under_way_is_signed_anew_after_a_rotation(outside: Outside) -> None:
    """A receiver that forgets the old secret at once refuses one attempt, and takes the next."""
    admin.create_secret(outside.engine, "default")
    outside.end(webhook_url=URL)
    outside.hang = asyncio.Event()
    sender = outside.sender()
    await sender.send_due()
    await asyncio.sleep(0)
    second = admin.rotate_secret(outside.engine, "default", 0)
    outside.reply = lambda sent: WebhookReply(200 if verifies(second, sent) else 401)
    outside.hang.set()
    await outside.until_nothing_is_due(sender)
    assert [verifies(second, one) for one in outside.sent] == [False, True]
    assert [row.state for row in outside.rows()] == ["delivered"]


async def test_a_receiver_that_is_gone_gets_nothing_more(outside: Outside) -> None:
    admin.set_url(outside.engine, "acme", URL, (), AllowedTargets())
    sender = outside.sender()
    for tenant, own in (("acme", None), ("acme", URL + "/2"), ("other", URL + "/2")):
        outside.end(tenant=tenant, **({} if own is None else {"webhook_url": own}))
    outside.end(tenant="acme")
    outside.reply = lambda sent: WebhookReply(410 if sent.url == URL else 500)
    await sender.send_due()
    await sender.settled()
    states = Counter((row.tenant, row.url, row.state) for row in outside.rows())
    assert states == {
        ("acme", None, "disabled"): 2, ("acme", URL + "/2", "pending"): 1,
        ("other", URL + "/2", "pending"): 1,
    }  # fmt: skip
    [acme] = admin.tenants(outside.engine)[:1]
    assert (acme["tenant"], acme["state"]) == ("acme", "disabled")
    outside.end(tenant="acme")
    assert len(outside.rows()) == 4, "a disabled webhook makes no events"
    admin.set_url(outside.engine, "acme", URL, (), AllowedTargets())
    outside.end(tenant="acme")
    assert len(outside.rows()) == 5


async def test_a_url_that_is_gone_does_not_stop_the_one_that_took_its_place(
    outside: Outside,
) -> None:
    admin.set_url(outside.engine, "acme", URL, (), AllowedTargets())
    outside.end(tenant="acme")
    sender, outside.hang = outside.sender(), asyncio.Event()
    outside.reply = lambda sent: WebhookReply(410 if sent.url == URL else 200)
    await sender.send_due()
    await asyncio.sleep(0)  # the attempt is under way
    admin.set_url(outside.engine, "acme", URL + "/new", (), AllowedTargets())
    outside.end(tenant="acme")
    outside.hang.set()
    await sender.settled()
    assert [row.state for row in outside.rows()] == ["pending", "pending"]
    await outside.until_nothing_is_due(sender)
    assert {row.state for row in outside.rows()} == {"delivered"}
    assert [one.url for one in outside.sent] == [URL, URL + "/new", URL + "/new"]


async def test_a_tenant_gets_the_events_it_chose_and_none_for_jobs_of_batches(
    outside: Outside,
) -> None:
    admin.set_url(outside.engine, "acme", URL, ("job.failed", "batch.*"), AllowedTargets())
    outside.end(tenant="acme")
    outside.end(tenant="other")
    outside.end(tenant="acme", batch_id="batch_1")
    assert outside.rows() == []
    outside.end(tenant="acme", webhook_url=URL + "/own", batch_id="batch_1")
    admin.set_url(outside.engine, "acme", URL, ("job.*",), AllowedTargets())
    outside.end(tenant="acme")
    assert sorted(row.url or "" for row in outside.rows()) == ["", URL + "/own"]


async def test_the_url_of_a_tenant_is_the_one_at_the_time_of_the_attempt(outside: Outside) -> None:
    admin.set_url(outside.engine, "acme", URL, (), AllowedTargets())
    outside.end(tenant="acme")
    admin.set_url(outside.engine, "acme", URL + "/new", (), AllowedTargets())
    sender = outside.sender()
    await outside.until_nothing_is_due(sender)
    assert [one.url for one in outside.sent] == [URL + "/new"]
    outside.end(tenant="acme")
    admin.unset_url(outside.engine, "acme")
    await outside.until_nothing_is_due(sender)
    assert len(outside.sent) == 1
    assert outside.rows()[-1].error == "the tenant has no webhook any more" or (
        outside.rows()[0].error == "the tenant has no webhook any more"
    )


async def test_hundreds_are_under_way_and_one_tenant_does_not_hold_up_the_others(
    outside: Outside,
) -> None:
    for n in range(EACH + 30):
        outside.end(tenant="slow", webhook_url=f"{URL}/{n}")
    for n in range(40):
        outside.end(tenant=f"t{n}", webhook_url=URL)
    outside.hang = asyncio.Event()
    sender = outside.sender()
    assert await sender.send_due() == EACH + 40 <= AT_ONCE
    await asyncio.sleep(0)
    assert await sender.send_due() == 0, "the rest of the tenant waits for a place"
    outside.hang.set()
    await sender.settled()
    assert await sender.outbox.wait(0), "a free place is used at once"
    await outside.until_nothing_is_due(sender)
    assert Counter(row.state for row in outside.rows()) == {"delivered": EACH + 70}
    assert len({one.id for one in outside.sent}) == len(outside.sent) == EACH + 70


async def test_two_workers_never_send_one_event_twice_and_a_dead_one_is_replaced(
    outside: Outside,
) -> None:
    for _ in range(20):
        outside.end(webhook_url=URL)
    one, other = outside.sender(), outside.sender()
    await asyncio.gather(one.send_due(), other.send_due())
    await one.settled()
    await other.settled()
    assert Counter(sent.id for sent in outside.sent).most_common(1)[0][1] == 1

    outside.end(webhook_url=URL)
    outside.hang = asyncio.Event()
    assert await one.send_due() == 1
    await asyncio.sleep(0)
    outside.at_ms += LEASE_MS - 1
    assert await other.send_due() == 0, "the first worker may still be at it"
    outside.at_ms += 1
    assert await other.send_due() == 1
    await asyncio.sleep(0)
    outside.reply = lambda _: WebhookReply(500)
    outside.hang.set()
    await one.settled()
    await other.settled()
    last = max(outside.rows(), key=lambda row: row.attempts)
    assert (last.state, last.attempts) == ("pending", 2), "the attempt that lapsed counts no more"


async def test_a_worker_that_stops_returns_what_is_under_way(outside: Outside) -> None:
    outside.end(webhook_url=URL)
    outside.hang = asyncio.Event()
    sender = outside.sender()
    await sender.send_due()
    await asyncio.sleep(0)
    await sender.stop()
    outside.hang = None
    await outside.record.write(lambda _, items: [None] * len(items), None)
    assert await outside.sender().send_due() == 1


async def test_a_worker_that_stops_sends_what_its_last_jobs_left(outside: Outside) -> None:
    """It may be the only worker for a while, as that of `headgate submit --wait` is."""
    admin.set_url(outside.engine, "acme", URL, (), AllowedTargets())
    put_batch(outside, "batch_open", ("queued",))
    sender = outside.sender()
    running = asyncio.create_task(sender.run())
    async with asyncio.timeout(60):
        while outside.rows()[0].due_at_ms <= outside.at_ms:  # noqa: ASYNC110  # until it looks
            await asyncio.sleep(0.01)
    end_jobs(outside, "batch_open")
    sender.outbox.ran_batches = True
    outside.end(webhook_url=URL)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert {row.state for row in outside.rows()} == {"delivered"}
    assert len(outside.sent) == 2


async def test_a_batch_makes_one_event_when_its_last_job_has_ended(outside: Outside) -> None:
    admin.set_url(outside.engine, "acme", URL, (), AllowedTargets())
    sender = outside.sender()
    ended: dict[str, tuple[str, ...]] = {
        "batch_expired": ("expired", "succeeded"), "batch_completed": ("succeeded", "failed"),
        "batch_cancelled": ("cancelled",), "batch_failed": (), "batch_open": ("queued",),
        "batch_queueing": ("succeeded",),
    }  # fmt: skip
    for batch_id, statuses in ended.items():
        put_batch(outside, batch_id, statuses)
    with writing(outside.engine) as connection:
        await_batch(connection, "batch_of_nobody", "nobody", None, outside.at_ms)
        await_batch(connection, "batch_pruned", "acme", None, outside.at_ms)
    assert await sender.end_batches() == 4
    assert await sender.end_batches() == 0
    await sender.send_due()
    await sender.settled()
    events = {json.loads(one.body)["type"]: json.loads(one.body)["data"] for one in outside.sent}
    assert events == {
        f"batch.{name}": {"id": f"batch_{name}"}
        for name in ("expired", "completed", "cancelled", "failed")
    }
    left = {row.batch_id: row.state for row in outside.rows() if row.state == "waiting"}
    assert left == {"batch_open": "waiting", "batch_queueing": "waiting"}
    end_jobs(outside, "batch_open")
    outside.at_ms += 2000
    assert await sender.end_batches() == 1


async def test_of_a_batch_a_tenant_gets_the_events_that_it_chose(outside: Outside) -> None:
    admin.set_url(outside.engine, "acme", URL, ("job.*", "batch.expired"), AllowedTargets())
    put_batch(outside, "batch_expired", ("expired",))
    put_batch(outside, "batch_completed", ("succeeded",))
    assert await outside.sender().end_batches() == 1
    assert [row.event for row in outside.rows()] == ["batch.expired"]


def end_jobs(outside: Outside, batch_id: str) -> None:
    over = {"status": "succeeded", "finished_at_ms": outside.at_ms}
    with writing(outside.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.batch_id == batch_id).values(over))


def put_batch(outside: Outside, batch_id: str, statuses: tuple[str, ...]) -> None:
    at_ms = outside.at_ms
    row = {
        "id": batch_id, "input_path": "x", "input_sha256": "x", "defaults": "{}", "lines": 2,
        "bad_lines": 0, "created_at_ms": at_ms,
        "submitted_at_ms": None if batch_id == "batch_queueing" else at_ms,
        "cancelled_at_ms": at_ms if batch_id == "batch_cancelled" else None,
    }  # fmt: skip
    with writing(outside.engine) as connection:
        connection.execute(insert(batches).values(row))
        for line, status in enumerate(statuses):
            job = envelope(tenant="acme")
            job = job.model_copy(update={"batch_id": batch_id, "batch_line": line})
            end_ms = None if status == "queued" else at_ms
            end = {"status": status, "finished_at_ms": end_ms}
            connection.execute(insert(jobs).values(job_row(job, job.encode()) | end))
        await_batch(connection, batch_id, "acme", None, at_ms)


async def test_old_events_are_pruned_and_young_ones_and_those_under_way_stay(
    outside: Outside,
) -> None:
    sender = outside.sender()
    outside.end(webhook_url=URL)
    await outside.until_nothing_is_due(sender)
    outside.at_ms += 40 * DAY_MS
    outside.end(webhook_url=URL)
    outside.end(webhook_url=URL)
    assert prune(outside.engine, outside.at_ms - 30 * DAY_MS) == 1
    assert len(outside.rows()) == 2


async def test_a_secret_that_nobody_can_use_does_not_stop_the_others(outside: Outside) -> None:
    outside.end(webhook_url=URL, tenant="bad")
    outside.end(webhook_url=URL, tenant="good")
    with writing(outside.engine) as connection:
        row = {"tenant": "bad", "secret": "whsec_", "created_at_ms": 1}
        connection.execute(insert(webhook_tenants).values(row))
    sender = outside.sender()
    await sender.send_due()
    await sender.settled()
    rows = {row.tenant: row for row in outside.rows()}
    assert rows["good"].state == "delivered"
    assert rows["bad"].state == "pending"
    assert "in the worker; see its log" in rows["bad"].error
