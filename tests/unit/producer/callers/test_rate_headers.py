"""What is left of limits, in the headers of both vendors."""

from __future__ import annotations

import pytest

from headgate.producer.callers.rate_headers import (
    NO_RATES,
    CallerRates,
    RateLeft,
    anthropic_headers,
    duration,
    of_own,
    of_pool,
    openai_headers,
)
from headgate.producer.waits.levels import levels, limits_in_force

NOW = 1_764_504_000_000
BUCKET = {"rpm.level": "30", "rpm.at": str(NOW), "tpm.level": "-5", "tpm.at": str(NOW)}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (0.0121, "13ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (3603, "1h0m3s"),
        (86_400, "24h0m0s"),
    ],
)
def test_times_are_written_as_openai_does(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_the_tightest_limit_is_named() -> None:
    own = levels(limits_in_force("rpm=60 tpm=6000"), BUCKET, NOW, of_provider=False)
    wide = levels(limits_in_force("rpm=1000 rpd=5000"), {}, NOW, of_provider=False)
    rates = CallerRates(NOW, [*of_own(wide, NOW), *of_own(own, NOW)])
    assert openai_headers(rates) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "30",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m0.05s",
    }


def test_anthropic_has_input_and_output_apart() -> None:
    rates = CallerRates(
        NOW, [RateLeft("rpm", 50, 49, 1.2), RateLeft("input_tpm", 1000, 900, 6),
              RateLeft("output_tpm", 500, 0, 60)],
    )  # fmt: skip
    assert anthropic_headers(rates) == {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2025-11-30T12:00:02Z",
        "anthropic-ratelimit-tokens-limit": "500",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2025-11-30T12:01:00Z",
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "900",
        "anthropic-ratelimit-input-tokens-reset": "2025-11-30T12:00:06Z",
        "anthropic-ratelimit-output-tokens-limit": "500",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2025-11-30T12:01:00Z",
    }


def test_the_keys_of_a_provider_count_together() -> None:
    in_force = limits_in_force("rpm=600")
    half = {"rpm.level": "2.5", "rpm.at": str(NOW)}
    keys = [levels(in_force, one, NOW, of_provider=True) for one in ({}, half)]
    [found] = of_pool(keys, NOW)
    assert (found.measure, found.limit) == ("rpm", 1200)
    assert found.left == pytest.approx(900)


def test_without_limits_nothing_is_said() -> None:
    assert openai_headers(NO_RATES) == anthropic_headers(NO_RATES) == {}
