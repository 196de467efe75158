"""Jobs that came with a gateway key: on record with it, and refused at its limits."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from headgate import Client, InvalidRequest, TierLimit
from headgate.producer.callers import store
from headgate.producer.callers.key_limits import put_limits
from headgate.producer.callers.store import NewKey
from headgate.producer.installation import open_installation
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import jobs
from tests.support.played import settings_for
from tests.support.servers import ValkeyServer

KEY, OTHER = "hgk_0123456789ab", "hgk_ba9876543210"


def test_the_limits_of_a_key_are_put_into_redis_again(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    with closing(open_installation(settings_for(valkey.url, sqlite_url, tmp_path))) as at:
        new = NewKey("web", rpm=5, tpm=1000, budget_usd="2.5", budget_period="month")
        key, _ = store.create(at.engine, new)
        for _ in range(2):
            put_limits(at, key)
            text = b"rpm=5 tpm=1000 usd_per_month=2.5 hard=1"
            assert at.redis.hgetall(at.keys.overrides()) == {f"key/{key.id}".encode(): text}
            at.redis.flushall()
        put_limits(at, key)
        put_limits(at, replace(key, revoked_at_ms=1))
        assert at.redis.exists(at.keys.overrides()) == 0
        plain, _ = store.create(at.engine, NewKey("plain"))
        put_limits(at, plain)
        assert at.redis.exists(at.keys.overrides()) == 0


def test_a_key_over_its_limit_is_refused_by_name(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    with valkey.client() as redis, Client(settings_for(valkey.url, sqlite_url, tmp_path)) as client:
        redis.hset(Keys().overrides(), f"key/{KEY}", "rpm=1")
        job = client.submit("one", key_id=KEY, on_limit="refuse", tier="free", user="u")
        with pytest.raises(TierLimit, match=f"1 calls a minute \\(key {KEY}\\)") as refused:
            client.submit("two", key_id=KEY, on_limit="refuse")
        assert 30 < refused.value.retry_after_s <= 60
        client.submit("three", key_id=OTHER, on_limit="refuse")
        client.submit("four", key_id=KEY)  # it waits
        with pytest.raises(InvalidRequest, match="key_id"):
            client.submit("five", key_id="hgk_1")
    engine = open_engine(sqlite_url)
    with reading(engine) as connection:
        assert connection.scalar(select(jobs.c.key_id).where(jobs.c.id == job.id)) == KEY
    engine.dispose()
