"""At a limit of its caller a job waits, or is refused at submit: the caller chooses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from headgate import AsyncClient, Client, InvalidRequest, RequestFields, TierLimit
from headgate.producer.installation import Installation
from headgate.producer.submit.admission import ASKED_AT_ONCE, AdmitReply, AdmitRequest, Mode, admit
from headgate.shared.admission import limits
from headgate.shared.admission.scopes import user_scope
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import jobs, script
from headgate.shared.broker.keys import Keys
from headgate.shared.job.ids import new_id
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.played import ids_of, row_of, settings_for
from tests.support.servers import ValkeyServer

CATALOG = """
[tiers.small]
rpm = 3
lockout_s = 0.4
[tiers.narrow]
rpm = 100
tpm = 1000
models."gpt-4o".rpm = 1
[tiers.daily]
rpd = 2
[tenants.strict]
rpm = 2
[users."acme/slow"]
rpm = 1
"""

Opened = Callable[..., Client]


@pytest.fixture
def opened(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path) -> Iterator[Opened]:
    """Return a function that opens a client with the catalog above."""
    file = tmp_path / "catalog.toml"
    file.write_text(CATALOG)
    clients: list[Client] = []

    def make(**options: Any) -> Client:
        chosen = settings_for(valkey.url, sqlite_url, tmp_path, catalog=file, **options)
        clients.append(Client(chosen))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(opened: Opened) -> Client:
    return opened(key_prefix="acme:")


def ask(client: Client, **fields: Any) -> str:
    # Equal requests would join the first in flight, which takes nothing.
    words: dict[str, Any] = {"prompt": "Hello", "tenant": "acme", "share": False}
    request = {**words, "on_limit": "refuse", **fields}
    return client.submit(**request).id


def refused(client: Client, **fields: Any) -> TierLimit:
    with pytest.raises(TierLimit) as caught:
        ask(client, **fields)
    return caught.value


def level(at: Installation, scope: str, measure: str = "rpm") -> float | None:
    found: Any = at.redis.hget(at.keys.bucket(scope), f"{measure}.level")
    return None if found is None else float(found)


def now_ms(at: Installation) -> int:
    """Return the time of Redis."""
    s, us = at.redis.time()
    return int(s) * 1000 + int(us) // 1000


def environment_of(at: Installation) -> dict[str, str]:
    """Return the environment that leads a command to the same servers."""
    chosen = at.settings
    return {
        "HEADGATE_REDIS_URL": chosen.redis_url or "",
        "HEADGATE_DATABASE_URL": chosen.database_url or "",
        "HEADGATE_HOME": str(chosen.home),
        "HEADGATE_CATALOG": str(chosen.catalog),
        "HEADGATE_KEY_PREFIX": chosen.key_prefix,
    }


def test_over_its_limit_a_request_is_refused_with_the_time_to_come_back(client: Client) -> None:
    ids = [ask(client, user="u1", tier="small") for _ in range(3)]
    error = refused(client, user="u1", tier="small")
    assert error.code == "tier_limit"
    assert error.limit == "over 3 calls a minute (tier small)"
    assert 0 < error.retry_after_s <= 20
    assert str(error) == f"{error.limit}: try again in {error.retry_after_s:g} s"
    assert sorted(ids_of(client.open())) == sorted(ids), "nothing of it is on record"
    assert client.open().redis.llen(client.open().keys.queue("headgate.standard.fast")) == 3


def test_users_have_buckets_of_their_own_and_tenants_do_not_meet(client: Client) -> None:
    for _ in range(3):
        for tenant, user in (("acme", "u1"), ("acme", "u/2"), ("acme", None), ("other", "u1")):
            ask(client, tenant=tenant, user=user, tier="small")
    for tenant, user in (("acme", "u1"), ("acme", "u/2"), ("acme", None), ("other", "u1")):
        assert refused(client, tenant=tenant, user=user, tier="small").retry_after_s > 0


def test_who_waits_is_never_refused_and_takes_nothing_at_submit(client: Client) -> None:
    for _ in range(5):
        ask(client, user="u1", tier="small", on_limit="wait")
    assert level(client.open(), "tier/small/acme/u1") is None
    assert ask(client, user="u1", tier="small")


def test_without_a_tier_nothing_limits_a_caller(client: Client) -> None:
    for _ in range(5):
        ask(client)


def test_a_model_may_be_limited_more_tightly_within_a_tier(client: Client) -> None:
    ask(client, tier="narrow", model="gpt-4o")
    assert refused(client, tier="narrow", model="gpt-4o").limit == (
        "over 1 calls a minute (tier narrow for gpt-4o)"
    )
    for variant in ("gpt-4o-2024-08-06", "ft:gpt-4o-2024-08-06:acme::1"):
        assert refused(client, tier="narrow", model=variant).limit == (
            "over 1 calls a minute (tier narrow for gpt-4o)"
        )
    ask(client, tier="narrow", model="gpt-4o-mini")
    assert level(client.open(), "tier/narrow/acme/") == pytest.approx(98, abs=1)


def test_tokens_count_as_they_will_be_held(client: Client) -> None:
    ask(client, tier="narrow", params={"max_tokens": 900})
    error = refused(client, tier="narrow", params={"max_tokens": 900})
    assert error.limit == "over 1000 tokens a minute (tier narrow)"
    assert 30 < error.retry_after_s < 60
    assert ask(client, tier="narrow", params={"max_tokens": 20})


def test_what_can_never_pass_is_refused_at_once(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="more than 1000 tokens a minute") as caught:
        ask(client, tier="narrow", params={"max_tokens": 5000})
    assert caught.value.code == "tier_limit"
    assert ids_of(client.open()) == []


def test_a_day_s_calls_are_counted_by_the_day(client: Client) -> None:
    ask(client, tier="daily")
    ask(client, tier="daily")
    error = refused(client, tier="daily")
    assert error.limit == "over 2 calls a day (tier daily)"
    assert 0 < error.retry_after_s <= 86_400


def test_limits_of_one_user_count_besides_the_tier(client: Client) -> None:
    ask(client, user="slow", tier="small")
    assert refused(client, user="slow", tier="small").limit == "over 1 calls a minute (user slow)"


def test_a_tenant_that_has_nothing_left_is_refused_but_charged_by_the_governor(
    client: Client,
) -> None:
    ask(client, tenant="strict")
    at = client.open()
    assert level(at, "tenant/strict") is None
    spent: dict[Any, Any] = {"running": 0, "rpm.level": 0, "rpm.at": now_ms(at)}
    at.redis.hset(at.keys.bucket("tenant/strict"), mapping=spent)
    assert refused(client, tenant="strict").limit == "over 2 calls a minute (tenant strict)"


def test_an_operators_limit_counts_at_once(client: Client) -> None:
    ask(client, user="slow")
    refused(client, user="slow")
    at = client.open()
    at.redis.hset(at.keys.overrides(), user_scope("acme", "slow"), "rpm=none")
    assert ask(client, user="slow")


def test_the_command_line_ends_with_one_and_the_refusal(client: Client) -> None:
    at = client.open()
    argv = ["submit", "--tier", "daily", "--user", "u1", "--on-limit", "refuse", "Hello"]
    ended = [headgate(argv, environment_of(at)) for _ in range(3)]
    assert [one.code for one in ended] == [0, 0, 1]
    assert ended[2].out == ""
    assert "headgate: over 2 calls a day (tier daily): try again in" in ended[2].err
    wrong = headgate(["submit", "--tier", "smal", "Hello"], environment_of(at))
    assert (wrong.code, wrong.out) == (2, "")
    assert "tier: 'smal': no such tier" in wrong.err
    assert headgate(["submit", "--on-limit", "hope", "Hello"], environment_of(at)).code == 2


async def test_the_async_client_is_refused_alike(client: Client) -> None:
    settings = client.open().settings
    async with AsyncClient(settings) as other:
        for _ in range(3):
            await other.submit("Hello", tier="small", on_limit="refuse")
        with pytest.raises(TierLimit, match="over 3 calls a minute"):
            await other.submit("Hello", tier="small", on_limit="refuse")


def granted(client: Client) -> int:
    """How many jobs a worker would get now."""
    at = client.open()
    command = jobs.fetch(
        at.keys, owner=new_id(), lease_ms=60_000, want=50, queues=["headgate.standard.fast"]
    )
    return len(script.run(at.redis, command).taken)


def test_who_waits_is_held_to_the_limit_by_the_governor(client: Client) -> None:
    limits.write(client.open().redis, client.open().keys, client.open().catalog, lambda _: 1)
    for _ in range(5):
        ask(client, user="u1", tier="small", on_limit="wait")
    assert granted(client) == 3
    assert granted(client) == 0


def test_what_was_let_in_is_not_charged_again_by_the_governor(client: Client) -> None:
    for _ in range(3):
        ask(client, user="u1", tier="small")
    assert granted(client) == 3
    total = client.open().redis.hget(client.open().keys.bucket("tier/small/acme/u1"), "rpm.total")
    assert total == b"3.000"


# ------------------------------------------------------------------ many at once


def test_of_many_that_ask_together_all_are_let_in_or_none(client: Client) -> None:
    asking: RequestFields = {"prompt": "a", "tier": "small", "on_limit": "refuse"}
    with pytest.raises(TierLimit, match=r"^requests\[4\]: over 3 calls") as caught:
        client.submit_many(["free", asking, asking, asking, asking])
    assert caught.value.index == 4
    assert ids_of(client.open()) == []
    assert len(client.submit_many(["free", asking, asking, asking])) == 4
    with pytest.raises(TierLimit, match=r"requests\[0\]"):
        client.submit_many([asking])


def test_all_or_none_holds_for_more_than_one_question_takes(client: Client) -> None:
    at = client.open()
    at.redis.hset(at.keys.overrides(), "tier/small", f"rpm={2 * ASKED_AT_ONCE} rpd=900")
    asking: RequestFields = {"prompt": "a", "tier": "small", "on_limit": "refuse"}
    with pytest.raises(TierLimit) as caught:
        client.submit_many([asking] * (3 * ASKED_AT_ONCE))
    assert caught.value.index is not None
    assert caught.value.index >= 2 * ASKED_AT_ONCE
    bucket = at.keys.bucket("tier/small/default/")
    assert at.redis.hmget(bucket, "rpm.total", "rpd.used") == [b"0.000", b"0.000"]
    assert ids_of(at) == []
    assert len(client.submit_many([asking] * (2 * ASKED_AT_ONCE))) == 2 * ASKED_AT_ONCE


def test_a_request_that_can_never_pass_is_named_among_many(client: Client) -> None:
    large: RequestFields = {
        "prompt": "a",
        "tier": "narrow",
        "on_limit": "refuse",
        "params": {"max_tokens": 5000},
    }
    with pytest.raises(InvalidRequest, match=r"^requests\[1\]\.prompt"):
        client.submit_many(["a", large])


def test_refused_lines_of_a_batch_become_error_lines(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"prompt": "a", "tier": "small", "on_limit": "refuse"}\n' * 5 + '{"prompt": "b"}\n'
    )
    at = client.open()
    ended = headgate(["batch", "submit", source], environment_of(at))
    assert len(ids_of(at)) == 4, ended
    for number in (4, 5):
        assert f"line {number}: over 3 calls a minute (tier small): try again in" in ended.err


# ------------------------------------------------------------------ the lockout


def test_refused_calls_within_a_minute_lock_out_and_each_lockout_doubles(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        ask(client, user="u1", tier="small")
    with caplog.at_level(logging.WARNING, "headgate.admit"):
        plain = [refused(client, user="u1", tier="small") for _ in range(2)]
        assert not any(error.locked_out for error in plain)
        assert caplog.messages == []
        assert refused(client, user="u1", tier="small").locked_out
    [told] = caplog.messages
    assert told.startswith("tenant 'acme', user 'u1': locked out for")
    at = client.open()
    lock = at.keys.lockout("acme", "u1")
    assert at.redis.hget(lock, "count") == b"1"
    assert 86_000 < int(at.redis.ttl(lock)) <= 86_401
    at.redis.hset(lock, mapping={"until": 0})
    before_ms = now_ms(at)
    for n in range(3):
        assert refused(client, user="u1", tier="small").locked_out == (n == 2)
    assert at.redis.hget(lock, "count") == b"2"
    until_ms = int(at.redis.hget(lock, "until") or 0)
    twice_ms = 800  # the first one's 0.4 s, twice
    assert before_ms + twice_ms <= until_ms <= now_ms(at) + twice_ms


def test_while_locked_out_every_call_is_refused_and_none_is_counted(client: Client) -> None:
    for _ in range(3):
        ask(client, user="u1", tier="small")
    for _ in range(3):
        refused(client, user="u1", tier="small")
    at = client.open()
    lock = at.keys.lockout("acme", "u1")
    ends_ms = int(at.redis.hget(lock, "until") or 0) + 60_000
    at.redis.hset(lock, "until", ends_ms)
    at.redis.delete(at.keys.bucket("tier/small/acme/u1"))
    for _ in range(5):
        error = refused(client, user="u1", tier="small")
        assert error.locked_out
        assert error.limit == "locked out after too many refusals"
        assert 50 < error.retry_after_s <= 61
    assert at.redis.hgetall(lock) == {
        b"until": str(ends_ms).encode(), b"count": b"1", b"refused": b"",
    }  # fmt: skip
    assert ask(client, user="u2", tier="small"), "others are not"
    assert ask(client, user="u1", tier="small", on_limit="wait"), "who waits, waits"
    at.redis.hset(lock, "until", 0)
    assert ask(client, user="u1", tier="small")


def test_a_lockout_ends_by_itself(client: Client) -> None:
    for _ in range(3):
        ask(client, user="u1", tier="small")
    assert [refused(client, user="u1", tier="small").locked_out for _ in range(3)][-1]
    at = client.open()
    until_ms = int(at.redis.hget(at.keys.lockout("acme", "u1"), "until") or 0)
    at.redis.delete(at.keys.bucket("tier/small/acme/u1"))

    def is_let_in() -> bool:
        try:
            return bool(ask(client, user="u1", tier="small"))
        except TierLimit:
            return False

    wait_until(is_let_in, 30, "the lockout to end")
    assert now_ms(at) >= until_ms


def test_calls_that_are_let_in_never_lock_out(client: Client) -> None:
    for _ in range(3):
        ask(client, user="u1", tier="small")
    assert not client.open().redis.exists(client.open().keys.lockout("acme", "u1"))


def test_a_tenant_s_limit_locks_none_of_its_users_out(client: Client) -> None:
    at = client.open()
    empty: dict[Any, Any] = {"running": 0, "rpm.level": -9, "rpm.at": 2**45}
    at.redis.hset(at.keys.bucket("tenant/strict"), mapping=empty)
    for _ in range(6):
        assert not refused(client, tenant="strict", user="u1", tier="small").locked_out
    assert not at.redis.exists(at.keys.lockout("strict", "u1"))


# ------------------------------------------------------------------ tiers


def test_a_tier_that_does_not_exist_is_refused_by_name(client: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"did you mean small\?") as caught:
        client.submit("Hello", tier="smal")
    assert (caught.value.field, caught.value.value) == ("tier", "smal")


def test_the_tier_of_a_job_is_on_record(client: Client) -> None:
    job = client.submit("Hello", tier="small")
    assert '"tier":"small"' in row_of(client.open(), job.id).envelope


# ------------------------------------------------------------------ the script


def ticket(**fields: Any) -> Ticket:
    given = {"pool": "openai/m", "model": "m", "priority": "standard", "tenant": "t", "user": "u",
             "tier": "x", "rule": "o", "input_tokens": 10, "output_tokens": 0, "arrival_ms": 1,
             "deadline_ms": 2**42}  # fmt: skip
    return Ticket(**{**given, **fields})


def test_a_call_that_is_sent_twice_counts_once(valkey: ValkeyServer) -> None:
    keys, call = Keys("p:"), new_id()
    with valkey.client() as client:
        client.hset(keys.limits(), "tier/x", "rpm=2")
        for _ in range(4):
            command = admit(keys, call=call, asked=[AdmitRequest(ticket())], mode="together")
            assert script.run(client, command) == [AdmitReply("let in")]
        assert float(client.hget(keys.bucket("tier/x/t/u"), "rpm.level") or 0) == 1
        assert client.pttl(keys.admitted(call)) > 0


def test_a_server_without_limits_says_so_and_is_given_them(
    valkey: ValkeyServer, client: Client
) -> None:
    with valkey.client() as plain:
        command = admit(Keys(), call="c", asked=[AdmitRequest(ticket())], mode="together")
        assert script.run(plain, command) is None
    ask(client, tier="small")
    at = client.open()
    assert at.redis.hget(at.keys.limits(), "tier/small") == b"rpm=3"


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rpm=st.integers(1, 40),
    tpm=st.integers(50, 5000),
    asked=st.lists(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 400)), min_size=1, max_size=8),
        max_size=12,
    ),
    together=st.booleans(),
)
def test_no_more_is_let_in_than_the_buckets_hold(
    valkey: ValkeyServer, rpm: int, tpm: int, asked: list[list[tuple[str, int]]], together: bool
) -> None:
    keys = Keys(new_id() + ":")
    calls: dict[str, int] = {"a": 0, "b": 0}
    tokens: dict[str, int] = {"a": 0, "b": 0}
    with valkey.client() as client:
        client.hset(keys.limits(), "tier/x", f"rpm={rpm} tpm={tpm}")
        began = client.time()
        for group in asked:
            mode: Mode = "together" if together else "each"
            wanted = [AdmitRequest(ticket(user=user, input_tokens=n)) for user, n in group]
            command = admit(keys, call=new_id(), asked=wanted, mode=mode)
            answers = script.run(client, command)
            assert answers is not None
            if not together:
                assert len(answers) == len(group)
            elif any(answer.way != "let in" for answer in answers):
                continue
            for (user, n), answer in zip(group, answers, strict=True):
                if answer.way == "let in":
                    calls[user] += 1
                    tokens[user] += n
                else:
                    assert (answer.way == "too large") == (n > tpm)
        ended = client.time()
        minutes = (ended[0] - began[0] + (ended[1] - began[1]) / 1e6) / 60
        for user in "ab":
            assert calls[user] <= rpm * (1 + minutes) + 1e-3
            assert tokens[user] <= tpm * (1 + minutes) + 1e-3
            left: Any = client.hmget(keys.bucket(f"tier/x/t/{user}"), "rpm.total", "tpm.total")
            assert [float(n or 0) for n in left] == [calls[user], tokens[user]]
