"""Sums of budgets follow the database; each alert is sent once, to the log and to a webhook."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import insert

from headgate.shared.catalog import catalog
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.rows import job_row
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.job.ids import now_ms
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.alerts import CLAIM_MS, POST_S, Alerts
from headgate.workers.maintenance.budgets import BudgetUpkeep
from headgate.workers.maintenance.spend import span_ms, spent_on
from tests.support.budgets import USD, Treasury
from tests.support.child import wait_until
from tests.support.rig import envelope
from tests.support.servers import ValkeyServer

MODELS = catalog.load()


class Office:
    """The budgets of one worker, and the database under them."""

    def __init__(self, servers: Servers) -> None:
        self.engine = servers.engine()
        self.batcher = RedisBatcher(servers.async_redis_client())
        self.treasury = Treasury(servers.redis_client())

    def budgets(self) -> BudgetUpkeep:
        clock = self.treasury.now_ms
        return BudgetUpkeep(self.batcher, self.treasury.keys, self.engine, MODELS, clock)

    def alerts(self, url: str | None = None, owner: str = "w") -> Alerts:
        return Alerts(self.batcher, self.treasury.keys, url, owner)

    def attempt(self, state: str, cost: int | None, tenant: str = "acme", **fields: Any) -> None:
        """The ledger has one more attempt, of a job of its own."""
        started_ms = fields.pop("started_at_ms", now_ms())
        job = envelope(tenant=tenant, user=fields.pop("user", None), submitted_at_ms=started_ms)
        row = job_row(job, job.encode()) | fields
        with self.engine.begin() as connection:
            connection.execute(insert(jobs).values(**row))
            connection.execute(
                insert(attempts).values(
                    job_id=job.id, fence=1, n=1, model="gpt-4o-mini", provider="openai",
                    state=state, started_at_ms=started_ms, waited_ms=0, cost_pico_usd=cost,
                )
            )  # fmt: skip


@pytest.fixture
async def office(valkey: ValkeyServer, database_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    engine.dispose()
    settings = Settings(home=tmp_path, redis_url=valkey.url, database_url=database_url)
    here = Office(Servers(settings, valkey.url, database_url))
    yield here
    await here.batcher.close()
    here.treasury.client.close()
    here.engine.dispose()


async def test_a_redis_that_came_back_empty_learns_from_the_record_what_was_spent(
    office: Office,
) -> None:
    treasury = office.treasury
    for _ in range(3):
        office.attempt("answered", USD)
    office.attempt("answered", 7 * USD, tenant="b", user="u 1")
    texts = {"tenant/*": "usd_per_day=9 usd_per_month=99", "user/b/u%201": "usd_per_day=1"}
    treasury.budget({"global": "usd_per_day=99", **texts}, read=False)
    await office.budgets().write_sums()
    month = treasury.periods()[1]
    assert treasury.book("global") == (10 * USD, 0)
    assert treasury.book("tenant/acme") == treasury.book("tenant/acme", month) == (3 * USD, 0)
    assert treasury.book("user/b/u%201") == (7 * USD, 0)
    for period in treasury.periods():
        read: Any = treasury.client.hkeys(treasury.keys.budget("read", period))
        assert set(read) == {b"global", b"tenant/*", b"user/b/u%201"}


async def test_what_nobody_knows_counts_at_its_worst_price_in_the_first_reading(
    office: Office,
) -> None:
    office.attempt("unknown", None)
    office.attempt("open", None)
    office.attempt("failed", 0)
    office.treasury.budget({"tenant/acme": "usd_per_day=9"}, read=False)
    worst = upper_bound_pico_usd(envelope().request, MODELS.model("gpt-4o-mini"), MODELS)
    assert worst
    await office.budgets().write_sums()
    assert office.treasury.book("tenant/acme") == (2 * worst, 0)


async def test_a_broken_answer_counts_at_its_worst_price_and_no_more(office: Office) -> None:
    worst = upper_bound_pico_usd(envelope().request, MODELS.model("gpt-4o-mini"), MODELS)
    assert worst
    office.attempt("unknown", worst // 4)
    office.treasury.budget({"tenant/acme": "usd_per_day=9"}, read=False)
    await office.budgets().write_sums()
    assert office.treasury.book("tenant/acme") == (worst, 0)


async def test_a_sum_that_fell_behind_is_raised_and_never_lowered(office: Office) -> None:
    treasury = office.treasury
    treasury.budget({"tenant/acme": "usd_per_day=9"})
    office.attempt("answered", 2 * USD)
    await office.budgets().write_sums()
    assert treasury.book("tenant/acme") == (2 * USD, 0)
    treasury.at_least("tenant/acme", 5 * USD)
    await office.budgets().write_sums()
    assert treasury.book("tenant/acme") == (5 * USD, 0)


async def test_the_sums_of_a_day_hold_all_its_attempts_and_no_others(office: Office) -> None:
    day = "20260228"
    first_ms, end_ms = span_ms(day)
    assert end_ms - first_ms == 86_400_000
    assert datetime.fromtimestamp(span_ms("202602")[1] / 1000, UTC) == datetime(
        2026, 3, 1, tzinfo=UTC
    )
    assert span_ms("202612")[1] == span_ms("20270101")[0]
    office.attempt("answered", 1, started_at_ms=first_ms, status="succeeded")
    office.attempt("answered", 2, started_at_ms=end_ms - 1, status="succeeded")
    office.attempt("answered", 4, started_at_ms=end_ms, status="succeeded")
    office.attempt("answered", 8, started_at_ms=first_ms - 1, status="succeeded")
    office.attempt("answered", 16, started_at_ms=first_ms + 5, submitted_at_ms=first_ms - 9)
    assert spent_on(office.engine, day) == {("acme", "", ""): 19}


async def test_a_script_that_wants_sums_gets_them_within_a_second(office: Office) -> None:
    treasury = office.treasury
    treasury.settle_down()
    treasury.budget({"tenant/*": "usd_per_day=1"}, read=False)
    treasury.ask("a", upper_bound_pico_usd=USD)
    assert treasury.take() == []
    keeping = asyncio.ensure_future(office.budgets().keep())
    try:
        await asyncio.to_thread(wait_until, treasury.take, 10, "the job to be let through")
    finally:
        keeping.cancel()


async def test_alerts_go_once_each_to_the_log_and_to_a_webhook_that_may_be_down_at_first(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[dict[str, Any]] = []
    answers = [503, 200, 200, 200]

    async def hear(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response(status=answers[len(received) - 1])

    app = web.Application()
    app.router.add_post("/alerts", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    treasury = office.treasury
    alerts = office.alerts(f"http://127.0.0.1:{port}/alerts")
    treasury.budget({"tenant/a%2Fb": "usd_per_day=10"})
    treasury.at_least("tenant/a%2Fb", 95 * USD // 10)
    treasury.at_least("tenant/a%2Fb", 10 * USD)
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                await alerts.send()
    finally:
        await runner.cleanup()
    assert [one["percent"] for one in received] == ["80", "80", "90", "100"]
    assert len({one["id"] for one in received}) == 3
    assert (received[0]["scope"], received[0]["budget_usd"], received[0]["spent_usd"]) == (
        "tenant/a/b", "10", "9.5",
    )  # fmt: skip
    assert [caplog.text.count(f"is at {percent} %") for percent in (80, 90, 100)] == [1, 1, 1]
    assert treasury.alerts() == []


async def test_two_workers_that_do_maintenance_at_once_send_each_alert_once(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    """Each reads the alerts before the other has removed one: a slow round outlasts its turn."""
    treasury = office.treasury
    treasury.budget({"tenant/a": "usd_per_day=10"})
    treasury.at_least("tenant/a", 10 * USD)
    [*waiting] = treasury.alerts()
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(*(office.alerts(owner=f"w{n}").send() for n in range(4)))
        assert treasury.alerts() == []
        treasury.client.rpush(treasury.keys.alerts(), *waiting)  # as one read them that is late
        await office.alerts(owner="late").send()
    assert [caplog.text.count(f"is at {percent} %") for percent in (80, 90, 100)] == [1, 1, 1]


async def test_an_alert_of_a_worker_that_died_is_sent_by_another(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    treasury = office.treasury
    treasury.budget({"tenant/a": "usd_per_day=10 alerts=1"})
    treasury.at_least("tenant/a", 10 * USD)
    [waiting] = treasury.alerts()
    with caplog.at_level(logging.WARNING):
        await office.alerts("http://127.0.0.1:9/alerts", "dies").send()
        await office.alerts(owner="next").send()
        assert treasury.alerts() == [waiting]
        claim = treasury.keys.alert(json.loads(waiting)["id"])
        assert 0 < treasury.client.pttl(claim) <= CLAIM_MS
        treasury.client.delete(claim)
        await office.alerts(owner="next").send()
    assert treasury.alerts() == []


async def test_a_webhook_that_is_down_is_logged_once_and_a_slow_one_is_no_work(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    alerts = office.alerts("http://127.0.0.1:9/alerts")
    office.treasury.budget({"tenant/a": "usd_per_day=10"})
    office.treasury.at_least("tenant/a", 10 * USD)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await alerts.send() < POST_S
    assert caplog.text.count("the webhook of alerts does not answer") == 1
    assert "127.0.0.1" not in caplog.text, "an address may hold a secret"

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    alerts.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/alerts"
    try:
        began = asyncio.get_running_loop().time()
        waited_s = await alerts.send()
        took_s = asyncio.get_running_loop().time() - began
    finally:
        server.close()
    assert POST_S - 0.5 < waited_s <= took_s < 3 * POST_S, "one alert is waited for, not each"
    assert len(office.treasury.alerts()) == 3


async def test_old_jobs_that_ended_this_day_are_found_by_their_audit_lines(office: Office) -> None:
    day = "20260228"
    first_ms, _ = span_ms(day)
    office.attempt("answered", 3, started_at_ms=first_ms + 5, submitted_at_ms=first_ms - 9,
                   status="succeeded", tenant="old")  # fmt: skip
    with office.engine.begin() as connection:
        [job] = connection.execute(jobs.select()).all()
        line = {
            column.name: 0 for column in audit.columns if not column.nullable
        } | {
            "job_id": job.id, "status": "succeeded", "priority": "standard", "tenant": "old",
            "model": "gpt-4o-mini", "fallback": False, "submitted_at_ms": first_ms - 9,
            "finished_at_ms": first_ms + 99,
        }  # fmt: skip
        connection.execute(insert(audit).values(**line))
    assert spent_on(office.engine, day) == {("old", "", ""): 3}
