"""The built-in catalog has no faults, and a user's file overrides it key by key."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.catalog.catalog import BUILT_IN, Catalog, load, overridden
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.errors import CatalogError, InvalidRequest


@pytest.fixture(scope="module")
def built_in() -> Catalog:
    return load()


def overlay(folder: Path, text: str) -> Catalog:
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def test_the_built_in_catalog_has_current_models_of_all_seven_providers(built_in: Catalog) -> None:
    assert len(built_in.models) >= 24
    assert {m.provider for m in built_in.models.values()} == {
        *("openai", "anthropic", "google", "deepseek", "mistral", "cohere", "custom"),
    }
    assert {"gpt-4o", "gpt-4o-mini", "claude-haiku-4-5", "gpt-5.4"} <= built_in.models.keys()
    assert {m.model_class for m in built_in.models.values()} == set(built_in.classes)


def test_every_built_in_model_says_where_its_figures_come_from_and_when(built_in: Catalog) -> None:
    for model in built_in.models.values():
        assert model.source, model.name
        assert model.checked == date(2026, 11, 20), model.name


def test_no_built_in_model_is_unknown_to_its_vendor_s_sdk_or_to_the_price_list(
    built_in: Catalog,
) -> None:
    from anthropic.types.model import Model as AnthropicName
    from genai_prices.data_snapshot import get_snapshot
    from openai.types.embedding_model import EmbeddingModel
    from openai.types.moderation_model import ModerationModel
    from openai.types.shared.chat_model import ChatModel

    listed = {
        "openai": {*get_args(ChatModel), *get_args(EmbeddingModel), *get_args(ModerationModel)},
        "anthropic": {name for part in get_args(AnthropicName) for name in get_args(part)},
    }
    for model in built_in.models.values():
        if model.provider in listed:
            assert model.provider_name in listed[model.provider], model.name
        if model.provider != "custom":
            get_snapshot().find_provider_model(model.provider_name, None, model.provider, None)


def test_every_chain_ends_and_asks_no_model_twice(built_in: Catalog) -> None:
    for model in built_in.models.values():
        chain = built_in.chain(model)
        names = [entry.name for entry in chain if isinstance(entry, Model)]
        assert names[0] == model.name
        assert len(names) == len(set(names))
        assert all(
            entry.answer_kind == model.answer_kind for entry in chain if isinstance(entry, Model)
        )


def test_models_of_one_family_share_a_pool(built_in: Catalog) -> None:
    opus = {built_in.model(f"claude-opus-4-{n}").pool_key for n in (6, 7, 8)}
    assert opus == {"anthropic/claude-opus-4"}
    assert built_in.model("claude-opus-5").pool_key == "anthropic/claude-opus-5"


def test_a_model_is_found_with_and_without_its_provider(built_in: Catalog) -> None:
    assert built_in.model("openai/gpt-4o-mini") is built_in.model("gpt-4o-mini")
    assert built_in.model("command-a").provider_name == "command-a-03-2025"
    assert built_in.provider(built_in.model("command-a")).api_key_env == ("COHERE_API_KEY",)


@pytest.mark.parametrize("wrong", ["gpt4o-mini", "anthropic/gpt-4o-mini", "GPT-4o-mini"])
def test_an_unknown_model_is_refused_with_the_name_that_is_meant(
    built_in: Catalog, wrong: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"did you mean .*gpt-4o-mini\?") as caught:
        built_in.model(wrong)
    assert (caught.value.field, caught.value.value) == ("model", wrong)
    assert caught.value.code == "unknown_model"


def test_a_model_may_be_partly_overridden(tmp_path: Path, built_in: Catalog) -> None:
    mine = overlay(tmp_path, '[models."gpt-4o"]\ntimeout_s = 7.5\nmax_attempts = 2\nbackoff_s = 3')
    model, before = mine.model("gpt-4o"), built_in.model("gpt-4o")
    assert (model.timeout_s, model.max_attempts, model.backoff_s) == (7.5, 2, 3)
    same = {"timeout_s": 7.5, "max_attempts": 2, "backoff_s": 3.0}
    assert before.model_copy(update=same) == model
    assert mine.digest != built_in.digest


def test_a_provider_and_a_model_may_be_added(tmp_path: Path) -> None:
    mine = overlay(
        tmp_path,
        """
        [providers.groq]
        dialect = "openai"
        base_url = "https://api.groq.example/openai/v1/"
        api_key_env = ["GROQ_API_KEY", "GROQ_API_KEY_2"]
        [models."fast-one"]
        provider = "groq"
        provider_name = "vendor/fast-one"
        class = "lightning"
        context_tokens = 8192
        max_output_tokens = 1024
        source = "groq"
        checked = 2026-11-20
        [pools."groq/fast-one"]
        rpm = 30
        """,
    )
    model = mine.model("groq/fast-one")
    assert model.pool_key == "groq/fast-one"
    assert mine.provider(model).base_url == "https://api.groq.example/openai/v1"
    assert mine.provider(model).api_key_env == ("GROQ_API_KEY", "GROQ_API_KEY_2")
    assert mine.classes == ("fast", "smart", "reasoning", "embedding", "lightning")


def test_limits_of_a_pool_bind_and_absent_ones_do_not(tmp_path: Path) -> None:
    mine = overlay(tmp_path, '[pools."openai/gpt-4o-mini"]\nrpm = 6000\ntpm = 600000')
    pool = mine.pool(mine.model("gpt-4o-mini"))
    assert (pool.key, pool.rpm, pool.tpm, pool.burst_s) == (
        "openai/gpt-4o-mini",
        6000,
        600000,
        None,
    )
    assert (pool.rpd, pool.concurrent, pool.input_tpm, pool.output_tpm) == (None,) * 4
    other = mine.pool(mine.model("gpt-4o"))
    assert (other.key, other.rpm, other.tpm) == ("openai/gpt-4o", None, None)


def test_a_tier_limits_all_models_and_some_more_tightly(tmp_path: Path) -> None:
    mine = overlay(tmp_path, '[tiers.free]\nrpm = 10\nlockout_s = 300\nmodels."gpt-4o".rpm = 2')
    tier = mine.tiers["free"]
    assert (tier.name, tier.rpm, tier.lockout_s, tier.models["gpt-4o"].rpm) == ("free", 10, 300, 2)


def test_the_built_in_tiers_are_those_of_the_readme(built_in: Catalog) -> None:
    told = {name: (tier.rpm, tier.lockout_s) for name, tier in built_in.tiers.items()}
    assert told == {
        "free": (10, 300), "pro": (50, 60), "expert": (200, 30), "master": (1000, 0),
    }  # fmt: skip
    assert {tier.lockout_after for tier in built_in.tiers.values()} == {3}


def test_tenants_users_providers_and_everything_may_be_limited(tmp_path: Path) -> None:
    mine = overlay(
        tmp_path,
        """
        limits.rpm = 9000
        providers.openai.limits = {concurrent = 50, burst_s = 2}
        tenants.acme = {rpm = 600, concurrent = 5, weight = 2, tier = "pro"}
        users."acme/u1" = {tpm = 1000, tier = "free"}
        """,
    )
    assert (mine.limits.rpm, mine.limits.tpm, mine.limits.burst_s) == (9000, None, None)
    assert mine.providers["openai"].limits.concurrent == 50
    assert mine.providers["anthropic"].limits.concurrent is None
    tenant, user = mine.tenants["acme"], mine.users["acme/u1"]
    assert (tenant.rpm, tenant.concurrent, tenant.weight, tenant.tier) == (600, 5, 2, "pro")
    assert (user.rpm, user.tpm, user.tier) == (None, 1000, "free")


def test_an_unknown_tier_is_refused_with_the_name_that_is_meant(built_in: Catalog) -> None:
    assert built_in.tier("pro").rpm == 50
    with pytest.raises(InvalidRequest, match=r"has free, pro, .*did you mean master\?") as caught:
        built_in.tier("mater")
    assert (caught.value.field, caught.value.value) == ("tier", "mater")


def names_of(chain: tuple[Model | StaticText, ...]) -> list[str]:
    return [e.name if isinstance(e, Model) else f"static:{e.text}" for e in chain]


def test_a_chain_is_the_own_list_of_the_model_and_no_others(tmp_path: Path) -> None:
    mine = overlay(
        tmp_path,
        """
        models."custom-chat".fallback = ["gemini-2.5-flash", "deepseek-flash", "static:Sorry."]
        models."gemini-2.5-flash".fallback = ["ministral-8b-2512"]
        models."deepseek-flash".fallback = ["ministral-8b-2512", "static:Try later."]
        """,
    )
    assert names_of(mine.chain(mine.model("custom-chat"))) == [
        *("custom-chat", "gemini-2.5-flash", "deepseek-flash"),
        "static:Sorry.",
    ]


def test_a_static_text_ends_the_chain(tmp_path: Path) -> None:
    mine = overlay(tmp_path, 'models."gpt-4o-mini".fallback = ["gpt-4o", "static:Busy."]')
    assert names_of(mine.chain(mine.model("gpt-4o-mini"))) == [
        "gpt-4o-mini",
        "gpt-4o",
        "static:Busy.",
    ]


def test_a_request_may_name_its_own_chain_or_none(built_in: Catalog) -> None:
    model = built_in.model("gpt-4o-mini")
    assert names_of(built_in.chain(model, False)) == ["gpt-4o-mini"]
    wished = ["openai/gpt-4o", "gpt-4o-mini", "command-a", "gpt-4o"]
    assert names_of(built_in.chain(model, wished)) == ["gpt-4o-mini", "gpt-4o", "command-a"]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("gpt-4oo", "did you mean"), ("mistral-embed", "cannot replace each other")],
)
def test_a_wished_chain_holds_only_models_that_can_stand_in(
    built_in: Catalog, name: str, remedy: str
) -> None:
    with pytest.raises(InvalidRequest, match=remedy) as caught:
        built_in.chain(built_in.model("gpt-4o-mini"), ["gpt-4o", name])
    assert caught.value.field == "fallback[1]"


def test_the_automatic_choice_is_refused_by_name(built_in: Catalog) -> None:
    with pytest.raises(InvalidRequest, match="auto lets routing choose"):
        built_in.model("auto")


def test_the_catalog_cannot_be_changed(built_in: Catalog) -> None:
    with pytest.raises(TypeError):
        built_in.models["x"] = built_in.model("gpt-4o")  # type: ignore[index]
    with pytest.raises(ValueError, match="frozen"):
        built_in.model("gpt-4o").timeout_s = 1  # type: ignore[misc]


def test_equal_catalogs_and_no_others_have_the_same_digest(
    tmp_path: Path, built_in: Catalog
) -> None:
    assert load().digest == built_in.digest
    assert overlay(tmp_path, "# nothing").digest == built_in.digest
    assert overlay(tmp_path, '[pools."openai/gpt-4o"]\nrpm = 1').digest != built_in.digest


tables = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
)
documents = st.dictionaries(st.sampled_from("abcd"), tables, max_size=4)


@given(documents, documents)
def test_laying_over_keeps_what_is_not_named_and_takes_what_is(
    below: dict[str, Any], above: dict[str, Any]
) -> None:
    assert overridden(below, {}) == below
    assert overridden({}, above) == above
    assert overridden(above, above) == above
    merged = overridden(below, above)
    assert merged.keys() == below.keys() | above.keys()
    for key, value in above.items():
        if not isinstance(value, dict):
            assert merged[key] == value
    assert overridden(merged, above) == merged


def test_the_built_in_file_overridden_itself_is_itself(built_in: Catalog) -> None:
    content = tomllib.loads(BUILT_IN.read_text(encoding="utf-8"))
    assert overridden(content, content) == content
    assert load(BUILT_IN).digest == built_in.digest


def test_a_catalog_error_is_a_single_error_when_there_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        overlay(tmp_path, 'models."gpt-4o".timeout_s = -1')
    assert not hasattr(caught.value, "errors")
    assert caught.value.key == 'models."gpt-4o".timeout_s'
