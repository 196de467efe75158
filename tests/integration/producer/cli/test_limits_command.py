"""`headgate limits`, `pause`, `resume` and `catalog reload` from outside, and what they leave."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from headgate.producer.admin.limits import operator
from headgate.shared.broker.keys import Keys
from tests.support import redis_forms
from tests.support.command import Ended, headgate
from tests.support.rig import BULK, STANDARD
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL, Rooms

KEYS = Keys()


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client(decode_responses=True) as opened:
        yield opened


@pytest.fixture
def hand(client: redis.Redis) -> Rooms:
    return Rooms(client, KEYS)


@pytest.fixture
def env(valkey: ValkeyServer, tmp_path: Path) -> dict[str, str]:
    return {"HEADGATE_REDIS_URL": valkey.url, "HEADGATE_HOME": str(tmp_path / "home")}


def done(env: dict[str, str], *arguments: str) -> Ended:
    ended = headgate(arguments, env)
    assert ended.code == 0, ended
    return ended


def woken(client: redis.Redis, *queues: str) -> set[str]:
    return {queue for queue in queues if client.llen(KEYS.wake(queue)) == 1}


def test_limits_are_set_measure_by_measure_and_unset_again(
    env: dict[str, str], client: redis.Redis
) -> None:
    scope = f"pool/{POOL}"
    done(env, "limits", "set", scope, "rpm=600", "tpm=none")
    assert client.hget(KEYS.overrides(), scope) == "rpm=600 tpm=none"
    result = done(env, "limits", "set", scope, "rpm=60", "concurrent=5", "--json").document
    assert result == {"scope": scope, "set": {"rpm": 60, "tpm": None, "concurrent": 5}}
    done(env, "limits", "unset", scope, "rpm", "tpm")
    assert client.hget(KEYS.overrides(), scope) == "concurrent=5"
    ended = done(env, "limits", "unset", scope)
    assert ended.out == f"{scope} uses the catalog\n"
    assert client.exists(KEYS.overrides()) == 0


def test_names_of_callers_are_quoted_in_scopes(env: dict[str, str], client: redis.Redis) -> None:
    done(env, "limits", "set", "tenant/a b|c/d", "weight=2.5")
    done(env, "limits", "set", "tenant/*", "rpd=100")
    ended = done(env, "limits", "set", "user/acme/u%2F1", "rpm=5")
    assert ended.out == "user/acme/u%2F1 rpm=5\n"
    assert client.hgetall(KEYS.overrides()) == {
        "tenant/a%20b%7Cc%2Fd": "weight=2.5",
        "tenant/*": "rpd=100",
        "user/acme/u%2F1": "rpm=5",
    }


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["pool/gpt-4o-mini", "rpm=1"], "did you mean openai/gpt-4o-mini?"),
        (["global", "rpm=-5"], "rpm: '-5'"),
        (["global"], "MEASURE=VALUE"),
    ],
)
def test_an_invalid_limit_is_refused_and_changes_nothing(
    env: dict[str, str], client: redis.Redis, arguments: list[str], fault: str
) -> None:
    ended = headgate(["limits", "set", *arguments], env)
    assert ended.code == 2, ended
    assert fault in ended.err
    assert client.exists(KEYS.overrides()) == 0


def test_a_new_limit_wakes_the_jobs_that_waited_for_the_old_one(
    env: dict[str, str], client: redis.Redis, hand: Rooms
) -> None:
    hand.wait("j1")
    hand.park("t|acme", hand.now_ms() + 3_600_000)
    done(env, "limits", "set", "tenant/acme", "rpm=600")
    assert client.zscore(KEYS.waiting_queue(STANDARD, POOL, "parked"), "t|acme") == 0
    assert woken(client, STANDARD, BULK) == {STANDARD}


def test_pauses_are_listed_and_resumed_with_their_tenants_tried_again(
    env: dict[str, str], client: redis.Redis, hand: Rooms
) -> None:
    hand.wait("j1", tenant="a b")
    done(env, "pause", "tenant", "a b")
    done(env, "pause", "pool", POOL)
    done(env, "pause", "queue", BULK)
    assert done(env, "pause", "queue", BULK).out == f"queue {BULK} is paused already\n"
    assert client.smembers(KEYS.paused()) == {"tenant/a%20b", f"pool/{POOL}", f"queue/{BULK}"}
    listed = [line.split("\t") for line in done(env, "pause").out.splitlines()[1:]]
    assert [words[:2] for words in listed] == [["pool", POOL], ["queue", BULK], ["tenant", "a b"]]
    assert {words[3] for words in listed} == {operator()}
    shown = done(env, "limits", "--json").document
    assert shown["paused"] == [f"pool/{POOL}", f"queue/{BULK}", "tenant/a b"]
    hand.park("t|a%20b", float("inf"))
    assert done(env, "resume", "tenant", "a b").out == "tenant a b is resumed\n"
    assert client.zscore(KEYS.waiting_queue(STANDARD, POOL, "parked"), "t|a%20b") == 0
    assert woken(client, STANDARD, BULK) == {STANDARD}
    done(env, "resume", "queue", BULK)
    assert woken(client, STANDARD, BULK) == {STANDARD, BULK}
    assert done(env, "resume", "queue", BULK).out == f"queue {BULK} was not paused\n"
    done(env, "resume", "pool", POOL)
    assert done(env, "pause", "--json").out == ""


def test_resume_opens_the_gates_of_a_pool_whatever_shut_them_and_no_other_gate(
    env: dict[str, str], client: redis.Redis, hand: Rooms
) -> None:
    hand.limit("keys/openai", "n=2")
    hand.shut(10**9, "money", key="key0")
    hand.shut(10**9, "money", key="key1")
    hand.shut(10**9, "limited", pool="openai/gpt-4o")
    client.hset(KEYS.gate(POOL, "key1"), "pace", "0.5")
    result = done(env, "resume", "pool", POOL, "--json").document
    assert (result["changed"], result["gates_opened"]) == (False, 2)
    assert client.hgetall(KEYS.gate(POOL, "key0")) == {}
    assert client.hgetall(KEYS.gate(POOL, "key1")) == {"pace": "0.5"}
    assert [(one["key"], one["why"]) for one in result["gates"]] == [
        ("key0", "money"), ("key1", "money"),
    ]  # fmt: skip
    assert client.hget(KEYS.gate("openai/gpt-4o", "key0"), "why") == "limited"
    until = result["gates"][0]["until"]
    client.hset(KEYS.gate("openai/gpt-4o", "key0"), "asked", 4_102_444_800_000)
    shown = done(env, "resume", "pool", "openai/gpt-4o").out.splitlines()
    assert shown[0] == "pool openai/gpt-4o was not paused"
    assert shown[1].startswith("opened openai/gpt-4o (key0), which was shut until ")
    assert shown[1].endswith(
        "Z: its provider had refused a call by a limit, and had asked us to wait until "
        "2100-01-01T00:00:00.000Z"
    )
    assert until is not None
    assert client.hgetall(KEYS.gate("openai/gpt-4o", "key0")) == {}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["pool", "gpt-4o-mini"], "did you mean openai/gpt-4o-mini?"),
        (["queue", "headgate.bulk.fst"], "did you mean headgate.bulk.fast?"),
        (["tenant", ""], "1 to 128"),
        (["model", "gpt-4o-mini"], "model"),
        (["pool"], "headgate pause pool NAME"),
    ],
)
def test_what_cannot_be_paused_is_refused(
    env: dict[str, str], arguments: list[str], fault: str
) -> None:
    ended = headgate(["pause", *arguments], env)
    assert ended.code == 2, ended
    assert fault in ended.err


def test_a_queue_of_an_operators_own_can_be_paused(
    env: dict[str, str], client: redis.Redis
) -> None:
    client.lpush("their.queue", "message")
    done(env, "pause", "queue", "their.queue")
    client.delete("their.queue")
    done(env, "resume", "queue", "their.queue")


def test_a_reload_puts_the_file_in_force_and_a_bad_file_changes_nothing(
    env: dict[str, str], client: redis.Redis, hand: Rooms, tmp_path: Path
) -> None:
    file = tmp_path / "own.toml"
    env["HEADGATE_CATALOG"] = str(file)
    hand.limit("keys/openai", "n=3")
    hand.wait("j1")
    file.write_text(f'[pools."{POOL}"]\nrpm = 60\n')
    assert done(env, "catalog", "reload", "--json").document["version"] == 1
    assert client.hget(KEYS.limits(), f"pool/{POOL}") == "rpm=60"
    assert client.hget(KEYS.limits(), "keys/openai") == "n=3"
    assert woken(client, STANDARD) == {STANDARD}
    file.write_text(f'[pools."{POOL}"]\nrpm = 0\n')
    ended = headgate(["catalog", "reload"], env)
    assert ended.code == 2
    assert "rpm" in ended.err
    assert client.get(KEYS.version()) == "1"
    assert client.hget(KEYS.limits(), f"pool/{POOL}") == "rpm=60"


def test_a_ramp_that_holds_a_pool_is_told(env: dict[str, str], hand: Rooms) -> None:
    hand.limit(f"pool/{POOL}", "tpm=30000000")
    hand.wait("j1")
    assert "ramp" not in done(env, "limits").err
    done(env, "limits", "set", f"pool/{POOL}", "ramp_from=1000000")
    result = done(env, "limits")
    told = f"pool/{POOL}: a ramp lets 1000000 of 30000000 tpm through now"
    assert told in result.out + result.err
    [bucket] = [one for one in done(env, "limits", "--json").document["buckets"] if one["ramp"]]
    assert (bucket["measure"], bucket["ramp"]) == ("tpm", 1_000_000)
    assert (
        "ramp_from=1000000000000" in done(env, "limits", "set", f"pool/{POOL}", "ramp_from=off").out
    )
    assert "a ramp lets" not in done(env, "limits").err
    ended = headgate(["limits", "set", "tenant/acme", "ramp_from=1000000"], env)
    assert ended.code == 2
    assert "only pools have a ramp" in ended.err


def test_a_pool_that_was_told_to_grow_slower_is_told_of(
    env: dict[str, str], hand: Rooms, client: redis.Redis
) -> None:
    hand.limit(f"pool/{POOL}", "tpm=30000000")
    hand.wait("j1")
    seconds, _ = client.time()
    gate: dict[Any, Any] = {"pace": "0.25", "pace_at": int(seconds) * 1000}
    client.hset(KEYS.gate(POOL, "key0"), mapping=gate)
    result = done(env, "limits")
    assert f"{POOL}: its provider asked for slower growth; a ramp lets 25%" in (
        result.out + result.err
    )


def test_the_tables_show_buckets_gates_pools_and_tenants(env: dict[str, str], hand: Rooms) -> None:
    hand.limit(f"pool/{POOL}", "rpm=60")
    hand.fill(f"pool/{POOL}", "key0", rpm=0)
    hand.shut(3_600_000, "limited")
    hand.wait("j1", "j2", tenant="a\x1b[2Jb", age_ms=125_000)
    result = done(env, "limits").out
    assert f"pool/{POOL}\trpm\t60\tcatalog\t" in result
    assert f"{POOL}\tshut\tlimited\t" in result
    assert f"{POOL}\t2\t-\t2\t-\t2m" in result
    assert f"{POOL}\ta\\x1b[2Jb\t2\t-" in result
    only = done(env, "limits", "--pool", POOL, "--json").document
    assert [one["pool"] for one in only["pools"]] == [POOL]
    assert headgate(["limits", "--pool", POOL, "set", "global", "rpm=1"], env).code == 2


def test_the_user_of_the_acl_file_may_do_all_of_it(tmp_path: Path) -> None:
    with redis_forms.opened("acl and prefix") as server:
        env = {**server.env, "HEADGATE_HOME": str(tmp_path)}
        done(env, "catalog", "reload")
        done(env, "limits", "set", "tenant/acme", "rpm=6")
        done(env, "pause", "tenant", "acme")
        [job] = done(env, "submit", "x", "--tenant", "acme").out.split()
        done(env, "jobs", "--status", "deferred")
        assert headgate(["result", job], env).code == 1
        shown = done(env, "limits", "--tenant", "acme", "--json").document
        assert shown["buckets"][0]["limit"] == 6
        done(env, "resume", "tenant", "acme")
        done(env, "limits", "unset", "tenant/acme")
