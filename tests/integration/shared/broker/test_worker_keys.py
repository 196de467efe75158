"""Which providers have keys: what running workers wrote, and nothing of those that are gone."""

from pathlib import Path
from typing import Any

import pytest
import redis

from headgate.producer.admin.provider_keys import provider_keys
from headgate.producer.submit.model_status import ModelStatuses
from headgate.shared.broker import worker_keys
from headgate.shared.broker.keys import Keys
from headgate.shared.catalog import catalog
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Request
from headgate.shared.routing.router import Router
from headgate.shared.settings import Settings
from tests.support.servers import ValkeyServer

KEYS = Keys()


def server_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def write(client: redis.Redis, written: str, before: str | None = None, late_ms: int = 0) -> None:
    for command in worker_keys.write(KEYS, written, before, server_ms(client) - late_ms):
        send(client, *command)


def forget(client: redis.Redis, written: str) -> None:
    for command in worker_keys.forget(KEYS, written):
        send(client, *command)


def send(client: redis.Redis, *words: Any) -> None:
    execute: Any = client.execute_command
    execute(*words)


def test_the_keys_of_several_workers_are_one_and_a_new_count_replaces_the_old(
    valkey: ValkeyServer,
) -> None:
    with valkey.client() as client:
        assert worker_keys.read(client, KEYS) is None
        first = worker_keys.member("w 1@host", {"openai": 1, "anthropic": 0})
        write(client, first)
        write(client, worker_keys.member("w2@host", {"openai": 0, "anthropic": 2}))
        assert worker_keys.read(client, KEYS) == {"openai": 1, "anthropic": 2}
        second = worker_keys.member("w 1@host", {"openai": 0, "anthropic": 0})
        write(client, second, first)
        assert worker_keys.read(client, KEYS) == {"openai": 0, "anthropic": 2}
        client.hset(KEYS.keyed(), mapping={"openai": 0})
        forget(client, second)
        assert not client.exists(KEYS.keyed())
        assert client.zcard(KEYS.worker_keys()) == 1


def test_what_a_dead_worker_wrote_is_forgotten_in_seconds(valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        written = worker_keys.member("w@host", {"openai": 0})
        write(client, written)
        kept_ms = client.pttl(KEYS.worker_keys())
        assert 0 < kept_ms <= worker_keys.KEPT_S * 1000 <= 15_000
        write(client, worker_keys.member("dead@host", {"openai": 9}), late_ms=20_000)
        assert worker_keys.read(client, KEYS) == {"openai": 0}
        write(client, written)
        assert client.zcard(KEYS.worker_keys()) == 1, "the next write removes it"


def test_workers_of_the_release_before_are_known_by_their_hash(valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        client.hset(KEYS.keyed(), mapping={"openai": 1, "anthropic": 0})
        assert worker_keys.read(client, KEYS) == {"openai": 1, "anthropic": 0}


def test_a_newcomers_second_try_with_a_key_is_not_refused_for_the_first_without(
    valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, chosen = catalog.load(), Settings(home=tmp_path, redis_url=valkey.url)
    for provider in models.providers.values():
        for name in provider.api_key_env:
            monkeypatch.delenv(name, raising=False)
    request = Request(prompt="hi")
    with valkey.client() as client:
        counts = {name: int(one.api_key_optional) for name, one in models.providers.items()}
        written = worker_keys.member("w@host", counts)
        write(client, written)
        router = Router(models, ModelStatuses(client, KEYS, chosen, models))
        with pytest.raises(InvalidRequest) as caught:
            router.model(request)
        assert "no provider has a key: set OPENAI_API_KEY" in caught.value.remedy
        assert "\n" not in str(caught.value)
        forget(client, written)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
        router = Router(models, ModelStatuses(client, KEYS, chosen, models))
        assert router.model(request).provider == "openai"


def test_models_shows_the_workers_keys_and_without_a_worker_its_own(
    valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, chosen = catalog.load(), Settings(home=tmp_path, redis_url=valkey.url)
    openai, anthropic = models.providers["openai"], models.providers["anthropic"]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    ours = provider_keys(chosen)
    assert (ours.has_key(openai), ours.has_key(anthropic), ours.of_workers) == (True, False, None)
    with valkey.client() as client:
        write(client, worker_keys.member("w@host", {"openai": 0, "anthropic": 1}))
    theirs = provider_keys(chosen)
    assert (theirs.has_key(openai), theirs.has_key(anthropic)) == (False, True)
    assert theirs.has_key(models.providers["custom"]), "it needs none"


def test_models_does_without_a_redis_that_is_away(tmp_path: Path) -> None:
    away = Settings(home=tmp_path, redis_url=f"redis+socket://{tmp_path}/none.sock")
    assert provider_keys(away).of_workers is None
    assert provider_keys(Settings(home=tmp_path)).of_workers is None
