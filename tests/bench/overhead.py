"""What an idle system adds to a call: 20 jobs/s for 10 s, beside a stock prefork worker.

From before the submission to the end of the provider's call, and to the result in the caller's
hands, minus the provider's latency. The end of our calls is on record in whole milliseconds.
"""

from __future__ import annotations

import asyncio
import time

from celery import Celery
from sqlalchemy import select

from headgate import AsyncClient
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import attempts
from tests.bench.pipeline import stock_worker
from tests.bench.rig import Rig, rig
from tests.bench.table import Table
from tests.support.child import wait_until

JOBS, PER_S, LATENCY_MS = 200, 20, 50


def measure() -> Table:
    """A row of ours and one of stock Celery."""
    columns = ("", "to the end of the call, p50 / p99", "to the result, p50 / p99")
    table = Table(f"added to a call of {LATENCY_MS} ms, {PER_S} jobs/s", columns)
    with rig(latency_ms=LATENCY_MS, load_provider=True) as bench:
        bench.start_worker()
        called, held = asyncio.run(_ours(bench))
        table.add("Headgate", _shown(called), _shown(held))
        bench.stop_workers()
        table.add("stock Celery, prefork", _shown(_stock(bench)), "-")
    return table


async def _ours(bench: Rig) -> tuple[list[float], list[float]]:
    began_ms: dict[str, float] = {}
    held: list[float] = []

    async def one(client: AsyncClient, n: int, wanted: bool) -> None:
        at_ms = time.time() * 1000
        job = await client.submit(f"paced {wanted} {n} " + "x" * 300, params={"max_tokens": 50})
        await job.result(timeout_s=30)
        if wanted:
            began_ms[job.id] = at_ms
            held.append(time.time() * 1000 - at_ms - LATENCY_MS)

    async with AsyncClient(bench.settings) as client:
        for wanted in (False, True):
            tasks = []
            for n in range(JOBS if wanted else PER_S):
                tasks.append(asyncio.create_task(one(client, n, wanted)))
                await asyncio.sleep(1 / PER_S)
            await asyncio.gather(*tasks)
    engine = open_engine(bench.database_url)
    with reading(engine) as connection:
        rows = connection.execute(select(attempts.c.job_id, attempts.c.settled_at_ms)).tuples()
        ends: dict[str, int] = dict(iter(rows))
    engine.dispose()
    return [ends[job_id] - at_ms - LATENCY_MS for job_id, at_ms in began_ms.items()], held


def _stock(bench: Rig) -> list[float]:
    app = Celery(broker=bench.valkey.url, set_as_current=False)
    took: list[float] = []
    with stock_worker(bench), bench.client() as client:
        wait_until(lambda: bool(app.control.ping(timeout=0.5)), 30, "the stock worker answers")
        for wanted in (False, True):
            client.delete("stock:took")
            jobs = JOBS if wanted else PER_S
            for n in range(jobs):
                args = [f"paced {n} " + "x" * 300, time.time()]
                app.send_task("stock.timed", args=args, ignore_result=True)
                time.sleep(1 / PER_S)
            wait_until(lambda: client.llen("stock:took") == jobs, 30, "all have ended")  # noqa: B023
            took = [float(one) * 1000 - LATENCY_MS for one in client.lrange("stock:took", 0, -1)]
    app.close()
    return took


def _shown(found: list[float]) -> str:
    ranked = sorted(found)
    return f"{ranked[len(ranked) // 2]:.1f} / {ranked[int(len(ranked) * 0.99)]:.1f} ms"
