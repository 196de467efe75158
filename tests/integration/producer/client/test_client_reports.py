"""The library has what the commands have: health, limits, budgets, the cache, and a check."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate import AsyncClient, Client, InvalidRequest, Settings, TierLimit, Unreachable
from headgate.producer.admin.limits import amounts_of, change, scope_of
from tests.support.command import headgate
from tests.support.played import ids_of
from tests.support.servers import ValkeyServer

CATALOG = """
tenants."*".tier = "free"
[tiers.free]
rpm = 2
lockout_s = 60
lockout_after = 1
[tenants.broke.budget]
usd_per_day = "1"
[pools."openai/gpt-4o-mini"]
rpm = 60
"""


@pytest.fixture
def settings(valkey: ValkeyServer, tmp_path: Path) -> Settings:
    catalog = tmp_path / "own.toml"
    catalog.write_text(CATALOG)
    return Settings(home=tmp_path, redis_url=valkey.url, catalog=catalog)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as opened:
        yield opened


def test_a_check_says_what_a_request_would_hold_and_takes_nothing(client: Client) -> None:
    asked = {"model": "gpt-4o-mini", "tenant": "acme", "user": "u1", "params": {"max_tokens": 50}}
    for _ in range(5):  # more often than the tier allows
        found = client.check("Hello there", **asked)  # type: ignore[arg-type]
        assert (found.let_in, found.refusal, found.retry_after_s) == (True, None, None)
    assert (found.model, found.provider, found.pool) == (
        "gpt-4o-mini", "openai", "openai/gpt-4o-mini",
    )  # fmt: skip
    assert (found.queue, found.tier, found.priority) == (
        "headgate.standard.fast",
        "free",
        "standard",
    )
    assert (found.output_tokens, found.starts_in_s) == (50, 0.0)
    assert 0 < found.input_tokens < 20
    assert 0 < float(found.max_usd or 0) < 0.001
    assert ids_of(client.open()) == [], "nothing was queued"


def test_a_check_names_the_limit_that_a_submit_would_meet_and_counts_no_refusal(
    client: Client,
) -> None:
    asked = {"model": "gpt-4o-mini", "tenant": "acme", "user": "u1", "on_limit": "refuse"}
    for _ in range(2):
        client.submit("x", **asked)  # type: ignore[arg-type]
    for _ in range(3):
        found = client.check("x", **asked)  # type: ignore[arg-type]
        assert not found.let_in
        assert str(found.refusal).startswith("over 2 calls a minute (tier free)")
        assert 0 < (found.retry_after_s or 0) <= 60
    with pytest.raises(TierLimit) as refused:
        client.submit("x", **asked)  # type: ignore[arg-type]
    assert refused.value.locked_out, "its first refusal: the checks were none"
    locked = client.check("x", **asked)  # type: ignore[arg-type]
    assert "locked out" in str(locked.refusal)
    assert client.check("x", model="gpt-4o-mini", tenant="acme", user="u2").let_in


def test_a_check_names_a_budget_that_is_spent(client: Client) -> None:
    at = client.open()
    [row, *_] = [row for row in client.budgets() if row.scope == "tenant/broke"]
    assert (row.budget_usd, row.spent_usd, row.state) == ("1", "0", "unread")
    period = row.period.replace("-", "")
    at.redis.hset(at.keys.budget("tenant/broke", period), "spent", 2 * 10**12)
    at.redis.hset(at.keys.budget("read", period), "tenant/broke", 1)
    found = client.check("x", model="gpt-4o-mini", tenant="broke")
    assert found.refusal == f"the budget of tenant/broke for {row.period} is spent: 2 of 1 USD"
    assert client.check("x", model="gpt-4o-mini", tenant="acme").let_in


def test_a_check_refuses_what_a_submit_refuses(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="did you mean gpt-4o-mini"):
        client.check("x", model="gpt-4o-minni")


async def test_reports_are_those_of_the_commands_on_both_clients(
    client: Client, settings: Settings, valkey: ValkeyServer, tmp_path: Path
) -> None:
    at = client.open()
    scope = scope_of("pool/openai/gpt-4o-mini", at.catalog)
    change(at, scope, amounts_of(scope, ["tpm=1234"]))
    for one in range(2):
        client.submit(f"x{one}", model="gpt-4o-mini")
    env = {"HEADGATE_HOME": str(tmp_path), "HEADGATE_REDIS_URL": valkey.url,
           "HEADGATE_CATALOG": str(settings.catalog)}  # fmt: skip
    async with AsyncClient(settings) as other:
        health, limits = client.health(), client.limits(pool="openai/gpt-4o-mini")
        assert health.down == (await other.health()).down
        assert health.down[0] == "no worker answers"
        tpm = [row.limit for row in limits.buckets if row.measure == "tpm"]
        assert tpm == [1234] * len(tpm) != []
        assert limits.as_json() == (await other.limits(pool="openai/gpt-4o-mini")).as_json()
        shown = headgate(["budgets", "--json"], env).document
        assert [row.as_json() for row in client.budgets()] == shown
        assert [row.as_json() for row in await other.budgets()] == shown
        assert (
            client.cache_stats().as_json() == headgate(["cache", "stats", "--json"], env).document
        )
        assert (await other.cache_stats()).entries == 0
        assert (await other.check("x", model="gpt-4o-mini")).let_in


def test_reports_need_the_servers(tmp_path: Path) -> None:
    away = Settings(home=tmp_path, redis_url=f"redis+socket://{tmp_path}/none.sock")
    with Client(away) as client, pytest.raises(Unreachable):
        client.health()
