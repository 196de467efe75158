"""Money is exact: golden figures by hand, and equality with genai-prices over many usages."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headgate.shared.catalog.catalog import Catalog, load
from headgate.shared.cost.price import from_pico, price, text, to_pico
from headgate.shared.job.result import Usage

BUILT_IN = load()
PRICED = sorted(BUILT_IN.models.keys() - BUILT_IN.prices.keys())
NIGHT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MORNING = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)


def cost(name: str, usage: Usage, at: datetime = NIGHT, catalog: Catalog = BUILT_IN) -> str:
    amount = price(usage, catalog.model(name), catalog, at)
    assert amount is not None
    return text(amount)


GOLDEN = [
    # 200 * 2.50 + 800 * 1.25 + 100 * 10 USD per million
    ("gpt-4o", Usage(1000, 800, 0, 100, 0), "0.0025"),
    ("gpt-4o", Usage(1000, 0, 0, 0, 0), "0.0025"),
    # the example of the documents: 12 * 0.15 + 34 * 0.60
    ("gpt-4o-mini", Usage(12, 0, 0, 34, 0), "0.0000222"),
    # reasoning is a part of the output and costs no more than it
    ("gpt-5.4", Usage(100, 0, 0, 50, 40), "0.001"),
    # Anthropic: 100 fresh at 1, 300 read at 0.1, 600 written at 1.25, 10 out at 5
    ("claude-haiku-4-5", Usage(1000, 300, 600, 10, 0), "0.00093"),
    # above 272,000 tokens of input the whole request costs more
    ("gpt-5.4", Usage(272_000, 0, 0, 1000, 0), "0.695"),
    ("gpt-5.4", Usage(272_001, 0, 0, 1000, 0), "1.382505"),
    # Gemini 3.1 Pro above 200,000
    ("gemini-3.1-pro-preview", Usage(200_000, 0, 0, 0, 0), "0.4"),
    ("gemini-3.1-pro-preview", Usage(200_001, 0, 0, 0, 0), "0.800004"),
    # Haiku 5.5 above 100,000: also reads and writes of the cache
    ("claude-haiku-5-5", Usage(100_001, 100_000, 0, 0, 0), "0.0050005"),
    ("text-embedding-3-small", Usage(1000, 0, 0, 0, 0), "0.00002"),
    # no price for cached input is known: it costs as input
    ("command-a", Usage(1000, 1000, 0, 0, 0), "0.0025"),
    ("custom-chat", Usage(1000, 10, 0, 1000, 5), "0"),
    ("gpt-4o", Usage(), "0"),
]


@pytest.mark.parametrize(("name", "usage", "usd"), GOLDEN)
def test_an_attempt_costs_what_is_reckoned_by_hand(name: str, usage: Usage, usd: str) -> None:
    assert cost(name, usage) == usd


def test_a_price_may_depend_on_the_time_of_day() -> None:
    usage = Usage(1_000_000, 0, 0, 0, 0)
    assert cost("deepseek-flash", usage, NIGHT) == "0.15"
    assert cost("deepseek-flash", usage, MORNING) == "0.3"


def test_a_price_is_of_the_day_of_the_request() -> None:
    usage = Usage(100_000, 0, 0, 0, 0)
    assert cost("gpt-5.6-luna", usage, datetime(2026, 7, 29, tzinfo=UTC)) == "0.1"
    assert cost("gpt-5.6-luna", usage, datetime(2026, 7, 30, tzinfo=UTC)) == "0.02"


usages = st.builds(
    lambda fresh, cached, written, out, thought: Usage(
        fresh + cached + written, cached, written, out + thought, thought
    ),
    *[st.integers(0, 400_000)] * 5,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PRICED), usages, st.sampled_from([NIGHT, MORNING]))
@example("gpt-5.4", Usage(272_000, 0, 0, 1, 0), NIGHT)
@example("claude-haiku-5-5", Usage(100_000, 0, 0, 1, 0), NIGHT)
def test_prices_equal_those_of_genai_prices(name: str, usage: Usage, at: datetime) -> None:
    model = BUILT_IN.model(name)
    theirs = calc_price(
        TheirUsage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_input_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
            output_reasoning_tokens=usage.reasoning_tokens,
        ),
        model.provider_name,
        provider_id=model.provider,
        genai_request_timestamp=at,
    ).total_price
    ours = price(usage, model, BUILT_IN, at)
    assert ours == theirs
    assert ours is not None
    assert from_pico(to_pico(ours)) == ours


def test_every_built_in_model_has_a_price_that_the_tables_can_hold() -> None:
    for model in BUILT_IN.models.values():
        amount = price(Usage(3, 1, 1, 3, 1), model, BUILT_IN)
        assert amount is not None, model.name
        is_free = model.provider == "custom" or model.answer_kind == "moderation"
        assert amount > 0 or is_free, model.name
        to_pico(amount)


def overlaid(folder: Path, content: str) -> Catalog:
    file = folder / "own.toml"
    file.write_text(content, encoding="utf-8")
    return load(file)


def test_the_catalog_s_own_price_comes_first(tmp_path: Path) -> None:
    mine = overlaid(
        tmp_path,
        '[prices."gpt-4o"]\ninput = "1"\ncached_input = "0.5"\ncache_write = "2"\noutput = "4"',
    )
    assert cost("gpt-4o", Usage(1000, 200, 300, 10, 5), catalog=mine) == "0.00124"
    assert cost("gpt-4o", Usage(1000, 0, 0, 0, 0)) == "0.0025"


def test_an_own_price_without_cache_prices_takes_cached_input_as_input(tmp_path: Path) -> None:
    mine = overlaid(tmp_path, '[prices."gpt-4o"]\ninput = "1"\noutput = "4"')
    assert cost("gpt-4o", Usage(1000, 200, 300, 10, 5), catalog=mine) == "0.00104"


ADDED = """
[providers.mine]
dialect = "openai"
base_url = "{url}"
[models."added"]
provider = "mine"
provider_name = "gpt-4o"
class = "fast"
context_tokens = 1000
max_output_tokens = 100
source = "a test"
checked = 2026-11-20
"""


def test_a_model_that_nobody_knows_has_no_price(tmp_path: Path) -> None:
    mine = overlaid(tmp_path, ADDED.format(url="http://127.0.0.1:9/v1"))
    assert price(Usage(1, 0, 0, 1, 0), mine.model("added"), mine) is None


def test_an_added_provider_is_known_by_its_address(tmp_path: Path) -> None:
    mine = overlaid(tmp_path, ADDED.format(url="https://api.openai.com/v1"))
    assert cost("added", Usage(1000, 0, 0, 0, 0), catalog=mine) == "0.0025"


def test_more_cached_than_input_is_never_paid_back() -> None:
    assert cost("gpt-4o", Usage(100, 800, 0, 0, 900)) == "0.01"


def test_pricing_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in BUILT_IN.models.values():
            price(Usage(10, 2, 2, 5, 1), model, load())


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_whole_picos_survive_the_way_there_and_back(pico: int) -> None:
    assert to_pico(from_pico(pico)) == pico


@pytest.mark.parametrize("amount", ["0.0000000000001", "1E-13", "NaN", "Infinity", "10000000"])
def test_what_is_no_whole_pico_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match=r"no whole number|no amount"):
        to_pico(Decimal(amount))


@pytest.mark.parametrize(
    ("amount", "plain"),
    [
        ("2.22E-5", "0.0000222"),
        ("0", "0"),
        ("0E-12", "0"),
        ("-0.00", "0"),
        ("1E+2", "100"),
        ("100", "100"),
        ("1.500", "1.5"),
        ("-0.10", "-0.1"),
    ],
)
def test_money_is_written_plainly(amount: str, plain: str) -> None:
    assert text(Decimal(amount)) == plain
