"""No attempt uses or costs more than its upper bound."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.catalog.catalog import load
from headgate.shared.cost.price import from_pico, pico_at, price, upper_bound_steps, usd_text
from headgate.shared.cost.rates import BillingTerms
from headgate.shared.cost.tokens import input_tokens, output_ceiling
from headgate.shared.cost.upper_bound import input_bound, upper_bound_pico_usd
from headgate.shared.job.request import Request
from headgate.shared.job.result import Usage
from tests.unit.shared.cost.test_tokens import COUNTED

CATALOG = load()
MINI, SONNET = CATALOG.model("gpt-4o-mini"), CATALOG.model("claude-sonnet-5")
CHATS = sorted(name for name, model in CATALOG.models.items() if not model.embeds)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(("prompt", "true"), COUNTED)
def test_no_text_has_more_tokens_than_its_bound(prompt: str, true: int) -> None:
    assert true + 7 <= input_bound(Request(prompt=prompt), MINI)


def blocks_with(text: str) -> list[dict[str, Any]]:
    said = {"type": "text", "text": text}
    image = {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}}
    return [
        {"type": "tool_result", "tool_use_id": "a", "content": text},
        {"type": "tool_result", "tool_use_id": "a", "content": [said, image]},
        {"type": "tool_use", "id": "a", "name": text, "input": {"x": text}},
        {"type": "thinking", "thinking": text, "signature": "s"},
        {"type": "document", "source": {"type": "text", "data": text}},
        {"type": "document", "source": {"type": "content", "content": [said, image]}},
    ]


def in_anthropics_form(block: dict[str, Any]) -> Request:
    return Request(messages=[{"role": "user", "content": [block]}], dialect="anthropic")


@given(TEXTS)
def test_the_bound_is_over_the_estimate(prompt: str) -> None:
    for request in (
        Request(prompt=prompt),
        Request(messages=[{"role": "user", "content": prompt}] * 3),
        Request(messages=[{"role": "user", "content": [{"type": "text", "text": prompt}]}]),
        Request(input=[prompt, prompt]),
        Request(prompt="a", params={"tools": [{"type": "function", "description": prompt}]}),
        Request(prompt="a", params={"system": prompt}, dialect="anthropic"),
        *(in_anthropics_form(block) for block in blocks_with(prompt)),
    ):
        assert input_tokens(request) <= input_bound(request, MINI)


@given(TEXTS)
def test_the_bound_is_over_the_count_of_the_vocabulary(prompt: str) -> None:
    bpe = pytest.importorskip("bpe_openai", reason="the extra `bpe` is not installed")
    for name in ("o200k_base", "cl100k_base"):
        true = len(bpe.get_encoding(name).encode_ordinary(prompt)) + 7
        assert true <= input_bound(Request(prompt=prompt), MINI)


def test_no_prompt_is_charged_for_more_than_the_window() -> None:
    assert input_bound(Request(prompt="a" * 1_000_000), MINI) == MINI.context_tokens


def test_a_document_of_text_counts_as_its_text_and_a_file_as_the_window() -> None:
    text = in_anthropics_form({"type": "document", "source": {"type": "text", "data": "a" * 50}})
    assert input_bound(text, SONNET) < 300
    file = in_anthropics_form({"type": "document", "source": {"type": "url", "url": "https://x"}})
    assert input_bound(file, SONNET) == SONNET.context_tokens


def test_tools_of_anthropic_that_the_caller_runs_have_a_bound() -> None:
    def of(*kinds: str) -> int | None:
        tools = [{"type": kind, "name": "x"} for kind in kinds]
        request = Request(prompt="a", params={"tools": tools, "max_tokens": 9}, dialect="anthropic")
        return upper_bound_pico_usd(request, SONNET, CATALOG)

    one, two = of("bash_20250124"), of("bash_20250124", "text_editor_20250728")
    assert one is not None
    assert two is not None
    assert two > one
    assert of("web_search_20250305") is None
    assert of("bash_20250124", "mcp_toolset") is None


@pytest.mark.parametrize(
    ("part", "name", "tokens"),
    [
        ({"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}, "gpt-4o-mini", 48_169),
        ({"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}, "gpt-5.4", 24_600),
        ({"type": "image", "source": {"type": "url", "url": "u"}}, "claude-opus-5", 4_784),
        (
            {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}},
            "gemini-2.5-pro",
            24_600,
        ),
        ({"type": "file", "file": {"file_data": "A" * 90}}, "gpt-4o-mini", 128_000),
    ],
)
def test_an_attachment_counts_as_the_most_that_it_can_hold(
    part: dict[str, Any], name: str, tokens: int
) -> None:
    model = CATALOG.model(name)
    bare = Request(messages=[{"role": "user", "content": []}])
    with_it = Request(messages=[{"role": "user", "content": [part]}])
    assert input_bound(with_it, model) == min(
        input_bound(bare, model) + tokens, model.context_tokens
    )


def bound_of(model: str, **fields: Any) -> str | None:
    request = Request(**{"prompt": "a" * 28, **fields})  # 28 + 8 + 64: a bound of 100 tokens
    return usd_text(upper_bound_pico_usd(request, CATALOG.model(model), CATALOG))


def test_the_bound_is_all_input_at_its_highest_rate_and_the_output_asked_for() -> None:
    # 100 * 0.15 + 200 * 0.60 USD per million
    assert bound_of("gpt-4o-mini", params={"max_tokens": 200}) == "0.000135"
    # 100 * 0.15 + 16,384 * 0.60
    assert bound_of("gpt-4o-mini") == "0.0098454"
    # all of it written to the cache: 100 * 2.50 + 200 * 10
    assert bound_of("claude-sonnet-5", params={"max_tokens": 200}) == "0.00225"


def test_a_cache_mark_of_an_hour_is_reckoned_with() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    system = [{"type": "text", "text": "a", "cache_control": mark}]
    hour = upper_bound_pico_usd(
        Request(prompt="a", params={"system": system, "max_tokens": 1}), SONNET, CATALOG
    )
    system = [{"type": "text", "text": "a", "cache_control": {**mark, "ttl": "5m"}}]
    short = upper_bound_pico_usd(
        Request(prompt="a", params={"system": system, "max_tokens": 1}), SONNET, CATALOG
    )
    assert hour is not None
    assert short is not None
    assert (hour - 10_000_000) * 250 == (short - 10_000_000) * 400  # 4.00 and 2.50 a million


def test_a_tier_that_may_be_served_as_another_counts_at_the_higher_price() -> None:
    params = {"max_tokens": 200}
    # 100 * 0.25 + 200 * 1.00
    assert bound_of("gpt-4o-mini", params={**params, "service_tier": "priority"}) == "0.000225"
    assert bound_of("gpt-4o-mini", params={**params, "service_tier": "flex"}) == "0.000135"
    # 2.50 * 1.1 and 10 * 1.1 a million
    assert bound_of("claude-sonnet-5", params={**params, "inference_geo": "us"}) == "0.002475"


@pytest.mark.parametrize(
    "params",
    [
        {"service_tier": "priority"},  # no price at gpt-5.5
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"web_search_options": {}, "audio": {"voice": "alloy"}},
    ],
)
def test_a_bill_without_a_bound_is_none(params: dict[str, Any]) -> None:
    assert bound_of("gpt-5.5", params=params) is None


def test_sound_has_no_bound() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}
    asked = {"prompt": None, "messages": [{"role": "user", "content": [sound]}]}
    assert bound_of("gpt-4o-mini", **asked) is None


def test_without_a_price_there_is_no_bound(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        '[providers.mine]\ndialect = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
        '[models.mine]\nprovider = "mine"\nclass = "fast"\ncontext_tokens = 1000\n'
        'max_output_tokens = 100\nsource = "a test"\nchecked = 2026-11-20\n'
    )
    own = load(file)
    assert upper_bound_pico_usd(Request(prompt="a"), own.model("mine"), own) is None


@st.composite
def used(draw: st.DrawFn, most_in: int, most_out: int) -> Usage:
    """Any usage within these bounds."""
    inputs = draw(st.integers(0, most_in))
    cached = draw(st.integers(0, inputs))
    written = draw(st.integers(0, inputs - cached))
    output = draw(st.integers(0, most_out))
    return Usage(inputs, cached, written, output, draw(st.integers(0, output)))


@given(st.data(), st.sampled_from(CHATS), st.integers(1, 900_000), st.booleans(), st.booleans())
def test_no_usage_within_the_bounds_costs_more_than_the_bound(
    data: st.DataObject, name: str, most_in: int, hour: bool, in_us: bool
) -> None:
    model, in_us = CATALOG.model(name), in_us and name.startswith("claude")
    usage = data.draw(used(most_in, model.max_output_tokens))
    terms = BillingTerms(in_us=in_us, hour_write_tokens=usage.cache_write_tokens if hour else 0)
    steps = upper_bound_steps(model, CATALOG, "", in_us, hour)
    cost = price(usage, model, CATALOG, terms=terms)
    assert steps is not None
    assert cost is not None
    assert cost <= from_pico(pico_at(steps, most_in, model.max_output_tokens))


def test_a_million_tokens_cost_the_rate_of_a_million() -> None:
    steps = upper_bound_steps(CATALOG.model("gpt-4o"), CATALOG, "", False, False)
    assert steps is not None
    assert from_pico(pico_at(steps, 1_000_000, 0)) == Decimal("2.5")
    assert output_ceiling(None, MINI) == 16_384
