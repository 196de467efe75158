"""How long a call may take: the model's own limit holds, and the setting where it has none."""

from dataclasses import dataclass
from typing import Any

import pytest

from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.errors import SettingError
from headgate.workers.stages.call import Call, Upstream


@pytest.mark.parametrize("setting_s", [2, 120, 3600])
def test_the_models_own_timeout_holds_and_the_setting_is_for_models_without_one(
    setting_s: float,
) -> None:
    models = catalog.load(None)
    call = Call(models, lambda _: [], timeout_s=setting_s)
    reasoning, plain = models.model("gpt-5.4"), models.model("gpt-4o-mini")
    assert (reasoning.timeout_s, plain.timeout_s) == (300, None)
    assert call.timeout_s(reasoning) == 300
    assert call.timeout_s(plain) == setting_s


async def test_a_provider_that_a_new_catalog_makes_unusable_fails_its_jobs_with_the_reason() -> (
    None
):
    def make(_: ProviderConfig) -> list[Upstream]:
        raise SettingError("OPENAI_API_KEY", "***", "copy the key again")

    models = catalog.load(None)
    call = Call(models, make, timeout_s=1)
    model = models.model("gpt-4o-mini")
    assert await call.upstream(model) is None
    error = call.no_key(model)
    assert (error.code, error.message) == (
        "authentication", "OPENAI_API_KEY: '***': copy the key again",
    )  # fmt: skip


@dataclass
class Opened:
    """A provider that was opened with a key."""

    key: str

    async def close(self) -> None: ...


async def test_a_key_that_has_changed_is_used_after_a_reload_and_others_stay_open() -> None:
    models = catalog.load(None)
    keys = {"openai": ["old"], "anthropic": ["same"]}

    def keys_of(entry: ProviderConfig) -> list[str]:
        return keys.get(entry.name, [])

    def make(entry: ProviderConfig) -> list[Upstream]:
        opened: list[Any] = [Opened(key) for key in keys_of(entry)]
        return [Upstream(one, f"key{n}") for n, one in enumerate(opened)]

    call = Call(models, make, timeout_s=1, keys_of=keys_of)
    openai, claude = models.model("gpt-4o-mini"), models.model("claude-haiku-4-5")
    first = [await call.upstream(model) for model in (openai, claude)]
    keys["openai"] = ["new"]
    assert await call.upstream(openai) is first[0], "not before the reload"
    call.follow(models)
    again = [await call.upstream(model) for model in (openai, claude)]
    opened: list[Any] = [one and one.provider for one in again]
    assert opened == [Opened("new"), Opened("same")]
    assert again[1] is first[1], "its connections are kept"
    keys["openai"] = []
    call.follow(models)
    assert await call.upstream(openai) is None
    assert call.no_key(openai).message == "no key for openai: set OPENAI_API_KEY"
    await call.close()


async def test_without_any_key_a_job_is_told_the_three_ways_on() -> None:
    models = catalog.load(None)

    def keys_of(entry: ProviderConfig) -> list[str]:
        return ["none"] if entry.api_key_optional else []

    call = Call(models, lambda _: [], timeout_s=1, keys_of=keys_of)
    model = models.model("command-a")
    assert await call.upstream(model) is None
    told = call.no_key(model, is_chosen=True).message
    assert "\n" not in told
    assert "COHERE" not in told
    for way in ("set OPENAI_API_KEY", "`headgate up --simulate`", "a local server"):
        assert way in told
