"""The simulator's buckets, on a clock that the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.workers.simulator.anthropic.replies import limit_headers as anthropic_headers
from headgate.workers.simulator.limits import (
    Kind,
    LimitTable,
    SimulatedCharge,
    SimulatedLimit,
    SimulatedPools,
    SimulatedRefusal,
    table_from,
)
from headgate.workers.simulator.openai.replies import duration
from headgate.workers.simulator.openai.replies import limit_headers as openai_headers


def take(
    pools: SimulatedPools, now_s: float, model: str = "m", **amounts: int
) -> SimulatedRefusal | None:
    kinds: dict[str, Kind] = {
        "requests": "requests",
        "tokens": "tokens",
        "inputs": "input-tokens",
        "outputs": "output-tokens",
    }
    charges = tuple(SimulatedCharge(kinds[name], amount) for name, amount in amounts.items())
    split = "inputs" in amounts or "outputs" in amounts
    return pools.of(model, split, "", now_s).take(now_s, charges, count_refused=False)


def test_a_bucket_holds_one_second_of_the_rate_and_says_how_long_to_wait() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(rpm=600)), burst_s=1.0)
    assert [take(pools, 0.0, requests=1) for _ in range(10)] == [None] * 10
    refusal = take(pools, 0.0, requests=1)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(0.1)
    assert take(pools, 0.1, requests=1) is None


def test_a_refused_request_charges_no_bucket() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(rpm=600, tpm=6000)), burst_s=1.0)
    assert take(pools, 0.0, requests=1, tokens=100) is None
    refusal = take(pools, 0.0, requests=1, tokens=100)
    assert refusal is not None
    assert refusal.kind == "tokens"
    assert pools.of("m", False, "", 0.0).buckets["requests"].level == 9


def test_a_request_larger_than_the_bucket_passes_when_it_is_full_and_leaves_a_debt() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(tpm=6000)), burst_s=1.0)
    assert take(pools, 0.0, tokens=1100) is None
    refusal = take(pools, 0.0, tokens=1)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(10.01)


def test_a_request_above_the_whole_minute_never_passes() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(tpm=6000)), burst_s=1.0)
    refusal = take(pools, 0.0, tokens=6001)
    assert refusal is not None
    assert refusal.wait_s is None


def test_output_needs_only_a_bucket_that_is_not_in_debt() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(output_tpm=600)), burst_s=1.0)
    assert take(pools, 0.0, requests=1, inputs=5, outputs=700) is None
    refusal = take(pools, 0.0, requests=1, inputs=5, outputs=1)
    assert refusal is not None
    assert refusal.kind == "output-tokens"


def test_models_have_buckets_of_their_own_unless_a_pattern_joins_them() -> None:
    table = LimitTable(SimulatedLimit(rpm=60), {"claude-opus-*": SimulatedLimit(rpm=60)})
    pools = SimulatedPools(table, burst_s=1.0)
    assert take(pools, 0.0, model="a", requests=1) is None
    assert take(pools, 0.0, model="b", requests=1) is None
    assert take(pools, 0.0, model="claude-opus-4", requests=1) is None
    assert take(pools, 0.0, model="claude-opus-5", requests=1) is not None


def test_a_change_of_limits_keeps_the_debt() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(rpm=60)), burst_s=1.0)
    assert take(pools, 0.0, requests=1) is None
    pools.change(table_from({"rpm": 600}, pools.table, "limits"), 0.0)
    assert take(pools, 0.0, requests=1) is not None
    assert take(pools, 0.1, requests=1) is None


def test_a_wrong_limit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown limit 'rmp'"):
        table_from({"rmp": 1}, LimitTable(), "limits")
    with pytest.raises(ValueError, match="rpm must be a whole number"):
        table_from({"models": {"m": {"rpm": -1}}}, LimitTable(), "limits")


@given(
    gaps=st.lists(st.floats(0, 0.5), min_size=50, max_size=150),
    amounts=st.lists(st.integers(1, 400), min_size=150, max_size=150),
)
def test_no_order_of_arrivals_passes_more_than_rate_and_one_bucket(
    gaps: list[float], amounts: list[int]
) -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(tpm=6000)), burst_s=1.0)
    now_s = passed = largest = 0.0
    for gap_s, amount in zip(gaps, amounts, strict=False):
        now_s += gap_s
        if take(pools, now_s, tokens=amount) is None:
            passed += amount
            largest = max(largest, amount)
    # What passes may leave a debt of what the last one was above a full bucket.
    assert passed <= 100 + now_s * 100 + max(0.0, largest - 100) + 1e-6


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0ms"),
        (0.12, "120ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (59.9996, "1m0s"),
        (360.0, "6m0s"),
        (3725.25, "1h2m5.25s"),
    ],
)
def test_openai_sends_resets_as_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_headers_give_limit_remaining_and_reset_that_agree() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(rpm=600, tpm=60000)), burst_s=1.0)
    take(pools, 0.0, requests=1, tokens=500)
    assert openai_headers(pools.of("m", False, "", 0.0)) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "59500",
        "x-ratelimit-reset-tokens": "500ms",
    }


def test_anthropic_sends_resets_as_moments_and_rounds_tokens_to_the_thousand() -> None:
    pools = SimulatedPools(
        LimitTable(SimulatedLimit(rpm=600, input_tpm=60000, output_tpm=30000)), burst_s=1.0
    )
    take(pools, 0.0, requests=1, inputs=700, outputs=400)
    headers = anthropic_headers(pools.of("m", True, "", 0.0), now_epoch_s=1_795_219_200.0)
    assert headers["anthropic-ratelimit-requests-remaining"] == "599"
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "59000"
    assert headers["anthropic-ratelimit-output-tokens-limit"] == "30000"
    assert headers["anthropic-ratelimit-tokens-limit"] == "30000"
    assert headers["anthropic-ratelimit-input-tokens-reset"] == "2026-11-21T00:00:01Z"


def test_a_limit_that_is_not_set_has_no_header() -> None:
    pools = SimulatedPools(LimitTable(), burst_s=1.0)
    assert openai_headers(pools.of("m", False, "", 0.0)) == {}


# ---- buckets of their own depth, and fixed windows


@pytest.mark.parametrize("depth_s", [1.0, 10.0, 60.0])
def test_a_fixed_window_lets_its_whole_amount_through_and_no_more_until_it_ends(
    depth_s: float,
) -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(rpm=60)), burst_s=depth_s, fixed=True)
    began_s = 6 * depth_s + 0.75
    taken = [take(pools, began_s, requests=1) for _ in range(int(depth_s))]
    assert taken == [None] * int(depth_s)
    refusal = take(pools, began_s + 0.125, requests=1)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(depth_s - 0.875)
    assert take(pools, 7 * depth_s - 0.001, requests=1) is not None
    taken = [take(pools, 7 * depth_s, requests=1) for _ in range(int(depth_s))]
    assert taken == [None] * int(depth_s)
    assert take(pools, 7 * depth_s, requests=1) is not None


def test_a_request_larger_than_a_fixed_window_leaves_a_debt_of_several_windows() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(tpm=600)), burst_s=1.0, fixed=True)
    assert take(pools, 0.25, tokens=25) is None
    refusal = take(pools, 0.25, tokens=6)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(2.75)
    assert take(pools, 2.0, tokens=5) is None


def test_headers_of_the_style_bucket_say_what_the_bucket_itself_holds() -> None:
    continuous = SimulatedPools(LimitTable(SimulatedLimit(tpm=600_000)), burst_s=1.0)
    assert take(continuous, 5.25, tokens=100) is None
    assert openai_headers(continuous.of("m", False, "", 5.25), of_bucket=True) == {
        "x-ratelimit-limit-tokens": "600000",
        "x-ratelimit-remaining-tokens": "9900",
        "x-ratelimit-reset-tokens": "10ms",
    }
    fixed = SimulatedPools(LimitTable(SimulatedLimit(tpm=600_000)), burst_s=1.0, fixed=True)
    assert take(fixed, 5.25, tokens=100) is None
    assert openai_headers(fixed.of("m", False, "", 5.25), of_bucket=True) == {
        "x-ratelimit-limit-tokens": "600000",
        "x-ratelimit-remaining-tokens": "9900",
        "x-ratelimit-reset-tokens": "750ms",
    }


def test_moments_of_a_fixed_window_are_its_end() -> None:
    pools = SimulatedPools(LimitTable(SimulatedLimit(input_tpm=60_000)), burst_s=10.0, fixed=True)
    assert take(pools, 13.5, inputs=2000) is None
    headers = anthropic_headers(pools.of("m", True, "", 13.5), 1_000_000.0, of_bucket=True)
    assert headers["anthropic-ratelimit-input-tokens-limit"] == "60000"
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "8000"
    assert headers["anthropic-ratelimit-input-tokens-reset"] == "1970-01-12T13:46:47Z"
    assert headers["anthropic-ratelimit-tokens-remaining"] == "8000"
