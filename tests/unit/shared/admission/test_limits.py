"""Limits as the scripts read them, and what an operator may set."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.admission import limits
from headgate.shared.admission.scopes import user_scope
from headgate.shared.catalog.catalog import Catalog, load
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.errors import WrongUse


def catalog_of(folder: Path, text: str) -> Catalog:
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def one_key(_: ProviderConfig) -> int:
    return 1


def two_for_openai(provider: ProviderConfig) -> int:
    return 2 if provider.name == "openai" else 0


def test_each_table_of_the_catalog_has_its_scopes(tmp_path: Path) -> None:
    catalog = catalog_of(
        tmp_path,
        """
        limits = {rpm = 90000, burst_s = 0.5}
        providers.openai.limits = {concurrent = 700}
        [pools."openai/gpt-4o"]
        rpm = 6000
        input_tpm = 600000
        [pools."openai/gpt-4o-mini"]
        tpm = 30_000_000
        burst_s = 2
        ramp_from = 1_000_000
        [pools."openai/gpt-4.1"]
        tpm = 30_000_000
        ramp_from = "off"
        [tenants."*"]
        rpm = 100
        concurrent = 5
        [tenants."acme & sons/north"]
        rpm = 600
        weight = 2.5
        [tenants.plain]
        tier = "pro"
        [users."acme/u 1/2"]
        tpm = 9
        [tiers.free]
        models."gpt-4o".rpm = 2
        """,
    )
    found = limits.scopes(catalog, two_for_openai)
    assert found["global"] == "rpm=90000 burst_s=0.5"
    assert found["provider/openai"] == "concurrent=700"
    assert "provider/anthropic" not in found
    assert found["pool/openai/gpt-4o"] == "rpm=6000 input_tpm=600000"
    assert found["pool/openai/gpt-4o-mini"] == "tpm=30000000 burst_s=2 ramp_from=1000000"
    # Workers of the release before read numbers only: above every limit there is no ramp.
    assert found["pool/openai/gpt-4.1"] == "tpm=30000000 ramp_from=1000000000000"
    assert found["tenant/*"] == "rpm=100 concurrent=5"
    assert found["tenant/acme%20%26%20sons%2Fnorth"] == "rpm=600 concurrent=5 weight=2.5"
    assert "tenant/plain" not in found
    assert found["user/acme/u%201%2F2"] == "tpm=9"
    assert found["tier/free"] == "rpm=10"
    assert found["tier/free/gpt-4o"] == "rpm=2"
    assert (found["keys/openai"], found["keys/anthropic"]) == ("n=2", "n=1")


def test_a_tenant_with_a_slash_in_its_name_may_have_users_of_its_own(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, '[users."a%2Fb/c"]\nrpm = 3')
    assert limits.scopes(catalog, one_key)[user_scope("a/b", "c")] == "rpm=3"


@given(
    st.dictionaries(
        st.sampled_from(limits.MEASURES),
        st.none() | st.integers(1, 10**12) | st.integers(1, 10**6).map(lambda n: n / 1000),
    )
)
def test_what_is_written_is_read_again(amounts: dict[str, float | None]) -> None:
    text = limits.written(amounts)
    assert limits.parsed(text) == amounts
    assert all(word.partition("=")[2].replace("none", "0").replace(".", "").isdecimal()
               for word in text.split())  # fmt: skip


@pytest.mark.parametrize(
    ("measure", "text", "amount"),
    [
        ("rpm", "6000", 6000),
        ("tpm", "2_000_000", 2_000_000),
        ("burst_s", "0.5", 0.5),
        ("weight", "1000", 1000),
        ("rpd", "none", None),
        ("ramp_from", "1_000_000", 1_000_000),
        ("ramp_from", "off", 1e12),
    ],
)
def test_an_operators_figure_is_a_number_in_range_or_none(
    measure: str, text: str, amount: float | None
) -> None:
    assert limits.amount_of(measure, text) == amount


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        ("rpm", "0"), ("rpm", "-5"), ("rpm", "1.5"), ("rpm", "many"), ("rpm", "nan"),
        ("tpm", "1e30"), ("weight", "0"), ("weight", "inf"), ("burst_s", "7200"), ("rps", "5"),
        ("ramp_from", "slow"),
    ],
)  # fmt: skip
def test_a_limit_of_zero_negative_or_absurd_size_is_refused_with_the_remedy(
    measure: str, text: str
) -> None:
    with pytest.raises(WrongUse, match=r"give a|no such limit") as caught:
        limits.amount_of(measure, text)
    assert (caught.value.field, caught.value.value) == (measure, text)
