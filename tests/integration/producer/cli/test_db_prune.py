"""`headgate db prune`, and what callers are told about jobs and batches that it deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from headgate import Client, ResultExpired, UnknownJob
from headgate.producer.admin.reopen import NotReopened, reopen
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.usage_rollup import DAY_MS
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.settings import Settings
from tests.support.command import headgate
from tests.support.old_rows import ids_in, put_batch, put_job
from tests.support.servers import ValkeyServer

NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture
def env(database_url: str, tmp_path: Path) -> dict[str, str]:
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    engine.dispose()
    return {
        "HEADGATE_REDIS_URL": NO_REDIS,
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_HOME": str(tmp_path / "home"),
    }


def test_a_dry_run_counts_and_the_command_deletes_without_redis(env: dict[str, str]) -> None:
    engine = open_engine(env["HEADGATE_DATABASE_URL"])
    first_ms, last_ms = (now_ms() - n * DAY_MS for n in (100, 95))
    ancient_ms = (now_ms() // DAY_MS - 500) * DAY_MS + 3_600_000
    put_batch(engine, "b", first_ms - 1)
    put_job(engine, first_ms, batch_id="b", batch_line=0)
    put_job(engine, last_ms, batch_id="b", batch_line=1)
    put_job(engine, ancient_ms, row=False)
    young = put_job(engine, now_ms() - 50 * DAY_MS)

    dry = headgate(["db", "prune", "--older-than", "90d", "--dry-run", "--json"], env)
    assert (dry.code, dry.err) == (0, "")
    told = dry.document
    assert told["dry_run"] is True
    assert told["tables"]["jobs"] == {
        "rows": 2, "oldest": rfc3339(first_ms), "newest": rfc3339(last_ms)
    }  # fmt: skip
    assert {name: one["rows"] for name, one in told["tables"].items()} == {
        "jobs": 2, "batches": 1, "audit": 1, "attempts": 1
    }  # fmt: skip
    assert len(ids_in(engine, "jobs")) == 3

    done = headgate(["db", "prune", "--older-than", "90d"], env)
    assert (done.code, done.err) == (0, "")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert rows[0] == ["deleted", "rows", "oldest", "newest"]
    assert [row[:2] for row in rows[1:]] == [
        ["jobs", "2"], ["batches", "1"], ["audit", "1"], ["attempts", "1"]
    ]  # fmt: skip
    assert ids_in(engine, "jobs") == {young}

    done = headgate(["db", "prune"], env)  # by HEADGATE_KEEP_DAYS
    assert ids_in(engine, "jobs") == set()
    usage = headgate(["usage", "--by", "tenant", "--json"], env).document
    assert (usage["total"]["requests"], usage["total"]["cost_usd"]) == (4, "0.000000004")
    day = f"{datetime.fromtimestamp(ancient_ms / 1000, UTC):%Y-%m-%d}"
    older = headgate(["usage", "--since", f"{day}T02:00:00Z", "--csv"], env)
    assert older.err == (
        f"headgate: --since is {day}T00:00:00.000Z: of that day only the sums are kept\n"
    )
    assert headgate(["usage", "--since", "60d", "--csv"], env).err == ""
    engine.dispose()


def test_zero_days_and_bad_ages_are_told(env: dict[str, str]) -> None:
    engine = open_engine(env["HEADGATE_DATABASE_URL"])
    put_job(engine, now_ms() - 5000 * DAY_MS)
    kept = headgate(["db", "prune"], env | {"HEADGATE_KEEP_DAYS": "0"})
    assert kept.err.splitlines() == [
        "headgate: jobs and batches are kept for ever (HEADGATE_KEEP_DAYS=0)",
        "headgate: audit lines and attempts are kept for ever (HEADGATE_KEEP_DAYS=0)",
    ]
    kept = headgate(["db", "prune", "--dry-run"], env | {"HEADGATE_KEEP_AUDIT_DAYS": "0"})
    assert kept.err == (
        "headgate: audit lines and attempts are kept for ever (HEADGATE_KEEP_AUDIT_DAYS=0)\n"
    )
    assert len(ids_in(engine, "jobs")) == 1
    engine.dispose()
    for arguments, fault in (
        (["--older-than", "2h"], "--older-than: '2h': use at least 1d"),
        (["--older-than", "2026-01-01"], "--older-than: '2026-01-01': give an age such as 90d"),
        (["--audit-older-than", "31d"], "--audit-older-than: '31d': use at least 32d"),
    ):
        wrong = headgate(["db", "prune", *arguments], env)
        assert wrong.code == 2
        assert fault in wrong.err
    wrong = headgate(["db", "prune"], env | {"HEADGATE_KEEP_AUDIT_DAYS": "31"})
    assert wrong.code == 2
    assert "HEADGATE_KEEP_AUDIT_DAYS: '31': use at least 32, or 0 for ever" in wrong.err


def test_vacuum_gives_the_space_of_a_sqlite_file_back(sqlite_url: str, tmp_path: Path) -> None:
    engine = open_engine(sqlite_url)
    migrate.upgrade(engine)
    for _ in range(50):
        put_job(engine, now_ms() - 50 * DAY_MS, envelope="x" * 100_000)
    engine.dispose()
    file = tmp_path / "headgate.db"
    before = file.stat().st_size
    env = {"HEADGATE_DATABASE_URL": sqlite_url, "HEADGATE_HOME": str(tmp_path / "home")}
    freed = headgate(["db", "prune", "--vacuum", "--json"], env).document["freed_bytes"]
    assert freed > 4_000_000
    assert file.stat().st_size <= before - freed


def test_postgresql_needs_no_vacuum(postgres_url: str, tmp_path: Path) -> None:
    engine = open_engine(postgres_url)
    migrate.upgrade(engine)
    engine.dispose()
    env = {"HEADGATE_DATABASE_URL": postgres_url, "HEADGATE_HOME": str(tmp_path / "home")}
    wrong = headgate(["db", "prune", "--vacuum"], env)
    assert wrong.code == 2
    assert "autovacuum" in wrong.err


def test_a_pruned_job_is_not_taken_for_an_unknown_one(
    valkey: ValkeyServer, env: dict[str, str]
) -> None:
    env |= {"HEADGATE_REDIS_URL": valkey.url}
    url = env["HEADGATE_DATABASE_URL"]
    engine = open_engine(url)
    ended_ms = now_ms() - 50 * DAY_MS
    gone = put_job(engine, ended_ms, status="failed", batch_id="batch_gone", row=False)
    settings = Settings(redis_url=valkey.url, database_url=url, home=Path(env["HEADGATE_HOME"]))
    with Client(settings) as client:
        for wait in (False, True):
            with pytest.raises(ResultExpired, match="HEADGATE_KEEP_DAYS") as caught:
                client.result(gone, wait=wait)
            assert (caught.value.status, caught.value.finished_at) == ("failed", rfc3339(ended_ms))
        assert client.status(gone) == "failed"
        with pytest.raises(UnknownJob):
            client.status("never was")
    assert reopen(engine, gone, gave_up=True) == NotReopened(
        "was deleted (HEADGATE_KEEP_DAYS); submit it again as a new job"
    )
    assert reopen(engine, "never was", gave_up=True) is None
    engine.dispose()
    shown = headgate(["result", gone], env)
    assert shown.code == 1
    assert f"job {gone} failed at {rfc3339(ended_ms)}; its result was deleted" in shown.err
    shown = headgate(["batch", "status", "batch_gone"], env)
    assert shown.code == 2
    assert "was deleted (HEADGATE_KEEP_DAYS)" in shown.err
    assert "`headgate usage --batch batch_gone`" in shown.err
