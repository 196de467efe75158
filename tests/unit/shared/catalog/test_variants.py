"""Snapshots and fine-tunes run although the catalog does not list them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from headgate.shared.catalog.catalog import MAX_VARIANTS, Catalog, load
from headgate.shared.cost.price import price
from headgate.shared.errors import CatalogError, InvalidRequest
from headgate.shared.job.result import Usage

BUILT_IN = load()
MILLION = Usage(input_tokens=1_000_000)


def usd(name: str, catalog: Catalog = BUILT_IN) -> Decimal | None:
    """The price of a million tokens of input."""
    return price(MILLION, catalog.model(name), catalog, datetime(2026, 11, 20, tzinfo=UTC))


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5-latest", "claude-haiku-4-5"),
        ("command-a-03-2025", "command-a"),
        ("mistral-small-latest", "mistral-small-2603"),
        ("ft:gpt-4o-mini:acme::abc", "gpt-4o-mini"),
        ("ft:gpt-4o-mini-2024-07-18:acme:suffix:abc:ckpt-step-90", "gpt-4o-mini"),
        ("text-embedding-3-small-latest", "text-embedding-3-small"),
    ],
)
def test_all_but_the_name_is_that_of_the_model_in_the_catalog(name: str, of: str) -> None:
    found, base = BUILT_IN.model(name), BUILT_IN.model(of)
    full = name.removeprefix("openai/")
    assert (found.name, found.provider_name, found.variant_of) == (full, full, of)
    assert found == base.model_copy(update={"name": full, "provider_name": full}) or (
        found.model_dump(exclude={"name", "provider_name"})
        == base.model_dump(exclude={"name", "provider_name"})
    )
    assert (found.dialect, found.pool_key) == (base.dialect, base.pool_key)
    assert BUILT_IN.provider(found) is BUILT_IN.provider(base)
    assert found.name not in BUILT_IN.models
    assert BUILT_IN.chain(found)[1:] == BUILT_IN.chain(base)[1:]


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-minni", "gpt-4o-2025", "mistral-small-2402", "mistral-latest",
        "gpt-4o-2024-8-6", "anthropic/gpt-4o-2024-08-06", "ft:",
        "ft:gpt-4o-mini", "ft:gpt-4o-mini:", "ft:nope:acme::1", "gpt-4o-2024-08-06|x", "latest",
        "gpt-4o-latest-2024-08-06", "ft:gpt-4o:" + "x" * 128, "gpt-4o-\u0661\u0662\u0663-08-06",
    ],
)  # fmt: skip
def test_other_names_are_unknown_as_before(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        BUILT_IN.model(name)
    assert caught.value.code == "unknown_model"
    assert "`headgate models` lists what there is" in caught.value.remedy
    if name.startswith("ft:"):
        assert "a fine-tune is named ft:MODEL:..." in caught.value.remedy


def test_the_nearest_name_is_still_suggested() -> None:
    with pytest.raises(InvalidRequest, match="did you mean gpt-4o-mini"):
        BUILT_IN.model("gpt-4o-minni")


def test_a_name_of_the_operators_own_has_no_snapshots(tmp_path: Path) -> None:
    catalog = overlay(
        tmp_path,
        """
        [models."cheap"]
        provider = "openai"
        provider_name = "gpt-4o-mini"
        class = "fast"
        context_tokens = 1000
        max_output_tokens = 100
        source = "a test"
        checked = 2026-11-20
    """,
    )
    with pytest.raises(InvalidRequest):
        catalog.model("cheap-2024-07-18")


def test_prices_are_those_of_the_full_name_and_never_of_the_model_it_is_of(tmp_path: Path) -> None:
    assert usd("gpt-4o-2024-05-13") == Decimal("5.0")
    assert usd("gpt-4o-2024-08-06") == usd("gpt-4o") == Decimal("2.5")
    assert usd("ft:gpt-4o-mini-2024-07-18:acme::1") == Decimal("0.3")
    assert usd("ft:gpt-4.1-mini-2025-04-14:acme::1") is None
    catalog = overlay(
        tmp_path,
        """
        [prices."gpt-4o"]
        input = "7"
        [prices."gpt-4o-2024-08-06"]
        input = "8"
        [prices."ft:gpt-4.1-mini:acme::1"]
        input = "9"
    """,
    )
    assert usd("gpt-4o", catalog) == Decimal("7.0")
    assert usd("gpt-4o-2024-08-06", catalog) == Decimal("8.0")
    assert usd("gpt-4o-2024-11-20", catalog) == Decimal("2.5"), "its own, not that of gpt-4o"
    assert usd("ft:gpt-4.1-mini:acme::1", catalog) == Decimal("9.0")
    assert usd("ft:gpt-4.1-mini:acme::2", catalog) is None


def test_the_price_of_a_fine_tune_is_not_that_of_its_model_in_the_price_list(
    tmp_path: Path,
) -> None:
    # genai-prices has the fine-tunes of gpt-4-0613 under gpt-4 itself.
    catalog = overlay(
        tmp_path,
        """
        [models."gpt-4-0613"]
        provider = "openai"
        class = "smart"
        context_tokens = 8192
        max_output_tokens = 8192
        source = "a test"
        checked = 2026-11-20
    """,
    )
    assert usd("gpt-4-0613", catalog) == 30
    assert usd("ft:gpt-4-0613:acme::1", catalog) is None


def test_a_catalog_may_name_them(tmp_path: Path) -> None:
    catalog = overlay(
        tmp_path,
        """
        [models."gpt-4o"]
        fallback = ["gpt-4o-mini-2024-07-18"]
        [templates.t]
        prompt = "x"
        model = "ft:gpt-4o:acme::1"
        [tiers.free.models."gpt-4o-2024-08-06"]
        rpm = 1
    """,
    )
    assert [one.name for one in catalog.chain(catalog.model("gpt-4o"))[1:]] == [  # type: ignore[union-attr]
        "gpt-4o-mini-2024-07-18"
    ]
    for fault in (
        '[prices."gpt-4o-2024"]\ninput = "1"',
        '[models."gpt-4o"]\nfallback = ["text-embedding-3-small-latest"]',
        'budget = {usd_per_day = "1", at_soft = "gpt-4o-2024-08-06"}',
    ):
        with pytest.raises(CatalogError):
            overlay(tmp_path, fault)


def test_callers_cannot_fill_the_memory_with_names() -> None:
    catalog = load()
    for n in range(MAX_VARIANTS + 10):
        catalog.model(f"ft:gpt-4o:acme::{n}")
    assert len(catalog.variants) <= MAX_VARIANTS
    assert catalog.model("ft:gpt-4o:acme::0").variant_of == "gpt-4o"


def overlay(folder: Path, text: str) -> Catalog:
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)
