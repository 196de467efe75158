"""The record does not grow without a bound, and the bill stays whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.usage_rollup import DAY_MS
from headgate.shared.job.ids import now_ms
from tests.support import installation
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.old_rows import ids_in, put_batch, put_job
from tests.support.servers import ValkeyServer


@pytest.mark.slow
def test_workers_delete_old_rows_and_usage_stays_the_same_to_the_pico_dollar(
    valkey: ValkeyServer, postgres_url: str, tmp_path: Path
) -> None:
    engine = open_engine(postgres_url)
    migrate.upgrade(engine)
    ages = {"ancient": 450, "old": 200, "aging": 40, "young": 29}
    for age, days in ages.items():
        ended_ms = now_ms() - days * DAY_MS
        put_batch(engine, f"batch_{age}", ended_ms)
        for n in range(150):
            put_job(
                engine, ended_ms + n, job_id=f"{age}-{n}", batch_id=f"batch_{age}", batch_line=n,
                tenant=f"t{n % 3}", cost_pico_usd=7 + n,
            )  # fmt: skip
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": postgres_url,
        "HEADGATE_KEEP_DAYS": "30",
        "HEADGATE_KEEP_AUDIT_DAYS": "100",
    }
    asked = ["usage", "--by", "day,tenant,batch,model", "--json"]
    before = headgate(asked, env).document
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        worker.start()
        wait_until(lambda: len(ids_in(engine, "attempts")) == 300, 40, "old rows to go")
        assert worker.stop(30) == 0
    assert ids_in(engine, "batches") == {"batch_young"}
    assert ids_in(engine, "jobs") == {f"young-{n}" for n in range(150)}
    left = {f"{age}-{n}" for age in ("aging", "young") for n in range(150)}
    assert ids_in(engine, "audit") == ids_in(engine, "attempts") == left
    assert headgate(asked, env).document == before
    assert before["total"]["requests"] == 600
    engine.dispose()
