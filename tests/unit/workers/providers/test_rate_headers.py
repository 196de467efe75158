"""What the headers of real answers say of limits, and that no header is ever an error."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headgate.workers.provider import RateSeen, Reset
from headgate.workers.providers.rate_headers import duration_s, seen

NOW_S = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC).timestamp()


def openai(kind: str, limit: str, remaining: str, reset: str | None) -> dict[str, str]:
    headers = {f"x-ratelimit-limit-{kind}": limit, f"x-ratelimit-remaining-{kind}": remaining}
    return headers if reset is None else headers | {f"x-ratelimit-reset-{kind}": reset}


def anthropic(kind: str, limit: str, remaining: str, reset: str | None) -> dict[str, str]:
    headers = {
        f"anthropic-ratelimit-{kind}-limit": limit,
        f"anthropic-ratelimit-{kind}-remaining": remaining,
    }
    return headers if reset is None else headers | {f"anthropic-ratelimit-{kind}-reset": reset}


SOON = "2026-11-21T12:00:03Z"


def limits_in(headers: dict[str, str], now_s: float) -> tuple[RateSeen, ...]:
    """What is read, without the resets."""
    return tuple(replace(one, reset=None) for one in seen(headers, now_s))


def test_a_reset_of_openai_is_a_duration_from_the_request_on() -> None:
    (tokens,) = seen(openai("tokens", "600000", "9900", "900ms"), NOW_S)
    assert tokens.reset == Reset(0.9, 0.001)
    (azure,) = seen(openai("requests", "100", "40", "12"), NOW_S)
    assert azure.reset == Reset(12.0, 1.0)


@pytest.mark.parametrize("clock_s", [NOW_S, NOW_S - 3600, NOW_S + 3600])
def test_a_reset_of_anthropic_is_read_against_the_date_of_its_own_answer(clock_s: float) -> None:
    headers = anthropic("requests", "50", "49", SOON) | {"date": "Sat, 21 Nov 2026 12:00:01 GMT"}
    (one,) = seen(headers, clock_s)
    assert one.reset == Reset(2.0, 2.0, of_answer=True)
    (past,) = seen(headers | {"date": "Sat, 21 Nov 2026 12:00:09 GMT"}, clock_s)
    assert past.reset == Reset(0.0, 2.0, of_answer=True)


@pytest.mark.parametrize(
    "date", ["", "soon", "Sat, 21 Nov 2026", "Sun, 22 Nov 2026 12:00:04 GMT", "9" * 50, "1" * 30,
             "Sat, 21 Nov 2026 11:00:00 GMT", "Sat, 21 Nov 99999 12:00:00 GMT"],
)  # fmt: skip
def test_without_a_date_that_fits_the_limits_of_anthropic_are_read_without_a_reset(
    date: str,
) -> None:
    headers = anthropic("requests", "50", "49", SOON)
    assert seen(headers | {"date": date}, NOW_S) == (RateSeen("rpm", 50.0, 49.0, 1.0),)
    assert seen(headers, NOW_S) == (RateSeen("rpm", 50.0, 49.0, 1.0),)


def test_openais_headers_give_requests_and_tokens_per_minute() -> None:
    headers = openai("requests", "5000", "4999", "12ms") | openai(
        "tokens", "160000", "159976", "9ms"
    )
    assert limits_in(headers, NOW_S) == (
        RateSeen("rpm", 5000.0, 4999.0, 1.0),
        RateSeen("tpm", 160000.0, 159976.0, 1.0),
    )


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "measure"),
    [
        ("10000", "9999", "8.64s", "rpd"),  # OpenAI
        ("200", "199", "7m12s", "rpd"),
        ("14400", "14370", "2m59.56s", "rpd"),  # Groq
        ("10000", "9999", "6ms", "rpm"),
        ("30000", "29999", "2ms", "rpm"),
        ("60", "59", "1s", "rpm"),
        ("3", "1", "40s", "rpm"),
        ("3", "0", "59.9s", "rpm"),
        ("200", "0", "23h58m0s", "rpd"),
        # Rounded up to whole requests, what is missing may be nearly twice what the reset says.
        ("60", "58", "1.05s", "rpm"),
        ("100", "40", "12", "rpm"),  # Azure: whole seconds until the next window of a minute
        ("6000", "99", "10ms", "rpm"),  # a bucket that holds a second of the rate
        ("60000", "30000", "1s", "rpm"),  # or half a minute
        ("60000", "59999", "41s", "rpm"),  # a fixed minute
        ("6000", "98", "900ms", "rpm"),  # a fixed second
    ],
)
def test_a_limit_of_requests_is_of_a_minute_or_of_a_day_by_when_it_is_full_again(
    limit: str, remaining: str, reset: str, measure: str
) -> None:
    (one,) = limits_in(openai("requests", limit, remaining, reset), NOW_S)
    assert one == RateSeen(measure, float(limit), float(remaining), 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("remaining", "least"), [("590000", 50000.0), ("40000", 40000.0)])
def test_of_organisation_and_project_the_smaller_figures_count(
    remaining: str, least: float
) -> None:
    headers = openai("tokens", "600000", remaining, "1s")
    headers |= openai("project-tokens", "60000", "50000", "10s")
    assert limits_in(headers, NOW_S) == (RateSeen("tpm", 60000.0, least, 1.0),)


def test_tokens_that_are_full_again_at_the_end_of_a_fixed_minute_count() -> None:
    assert limits_in(openai("tokens", "60000", "59000", "41s"), NOW_S) == (
        RateSeen("tpm", 60000.0, 59000.0, 1.0),
    )


def test_names_with_their_unit_need_no_reset() -> None:
    mistral = openai("tokens-minute", "5000000", "4999911", None)
    mistral |= openai("req-minute", "720", "717", None)
    assert set(limits_in(mistral, NOW_S)) == {
        RateSeen("tpm", 5000000.0, 4999911.0, 1.0),
        RateSeen("rpm", 720.0, 717.0, 1.0),
    }
    cerebras = openai("requests-day", "14400", "14399", "33011.382867")
    assert limits_in(cerebras, NOW_S) == (RateSeen("rpd", 14400.0, 14399.0, 1.0),)


def test_anthropics_headers_give_input_and_output_apart_rounded_to_the_thousand() -> None:
    # A real answer: its resets lie before its own date, its third group is the sum of the others.
    headers = (
        anthropic("requests", "1000", "999", "2025-08-21T12:40:59Z")
        | anthropic("input-tokens", "80000", "80000", "2025-08-21T12:40:59Z")
        | anthropic("output-tokens", "16000", "15000", "2025-08-21T12:41:00Z")
        | anthropic("tokens", "96000", "95000", "2025-08-21T12:40:59Z")
    )
    answered_at_s = datetime(2025, 8, 21, 12, 41, 0, tzinfo=UTC).timestamp()
    assert limits_in(headers, answered_at_s) == (
        RateSeen("rpm", 1000.0, 999.0, 1.0),
        RateSeen("input_tpm", 80000.0, 80000.0, 1000.0),
        RateSeen("output_tpm", 16000.0, 15000.0, 1000.0),
    )


def test_anthropics_tokens_group_is_read_only_alone() -> None:
    alone = anthropic("tokens", "40000", "39000", SOON)
    assert limits_in(alone, NOW_S) == (RateSeen("tpm", 40000.0, 39000.0, 1000.0),)
    assert limits_in(alone | anthropic("input-tokens", "bad", "39000", SOON), NOW_S) == ()


def test_what_remains_may_be_rounded_above_the_limit_and_counts_as_the_limit() -> None:
    headers = anthropic("input-tokens", "8500", "9000", SOON)
    assert limits_in(headers, NOW_S) == (RateSeen("input_tpm", 8500.0, 8500.0, 1000.0),)


def test_a_clock_that_is_an_hour_off_changes_nothing() -> None:
    headers = anthropic("requests", "50", "49", "2026-11-21T14:00:00+02:00")
    assert (
        limits_in(headers, NOW_S - 3600)
        == limits_in(headers, NOW_S + 3600)
        == (RateSeen("rpm", 50.0, 49.0, 1.0),)
    )


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [
        ("-1", "-1", "0"),  # Azure, for "not known"
        ("0", "79", "1s"),  # Azure
        ("60000", "60000", "0s"),  # all is left, though a request was just counted
        ("60000", "60001", "1s"),
        ("60000", "-5", "1s"),
        ("nan", "nan", "nan"),
        ("inf", "5", "1s"),
        ("1e9", "5", "1s"),
        ("9" * 40, "5", "1s"),
        ("\uff16\uff10\uff10", "\uff15", "1s"),  # digits, but of another script
        ("60000", "", "1s"),
        ("60000", "30000", ""),
        ("60000", "30000", "soon"),
        ("60000", "30000", "-1s"),
        ("60000", "30000", "nan"),
        ("60000", "30000", "2026-11-21T12:00:03Z"),
        ("60000", "30000", "5h"),  # half is missing: neither of a minute nor of a day
        ("60000", "30000", "999999h"),
        ("60000", "30000", None),
    ],
)
def test_what_makes_no_sense_leaves_out_its_measure_and_no_other(
    limit: str, remaining: str, reset: str | None
) -> None:
    good = openai("tokens", "160000", "159976", "9ms")
    headers = good | openai("requests", limit, remaining, reset)
    assert limits_in(headers, NOW_S) == (RateSeen("tpm", 160000.0, 159976.0, 1.0),)


def test_a_limit_of_tokens_of_a_day_is_not_taken_for_one_of_a_minute() -> None:
    assert limits_in(openai("tokens", "200000", "100000", "12h0m0s"), NOW_S) == ()


@pytest.mark.parametrize(
    "reset",
    [None, "", "soon", "3s", "2026-11-21T12:00:03", "2026-11-29T12:00:03Z", "1970-01-01T00:00:00Z",
     "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-11-21T25:00:00Z", "Z" * 99],
)  # fmt: skip
def test_a_reset_that_is_no_moment_of_these_days_leaves_out_its_measure(reset: str | None) -> None:
    good = anthropic("requests", "50", "49", SOON)
    headers = good | anthropic("input-tokens", "40000", "39000", reset)
    assert limits_in(headers, NOW_S) == (RateSeen("rpm", 50.0, 49.0, 1.0),)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120ms", 0.12),
        ("0s", 0.0),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("1d0h", 86400.0),
        ("17\u00b5s", 17e-6),
        ("59", 59.0),
        ("33011.382867", 33011.382867),
    ],
)
def test_durations_are_read_in_all_their_forms(text: str, seconds: float) -> None:
    found = duration_s(text)
    assert found is not None
    assert found[0] == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "ms", "1 s", "1s2m", "-1s", "1e3s", "1.2.3s", "\n"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert duration_s(text) is None


NAMES = sorted(
    {name for kind in ("requests", "tokens", "project-tokens", "req-minute", "requests-day")
     for name in openai(kind, "", "", "")}
    | {name for kind in ("requests", "tokens", "input-tokens", "output-tokens")
       for name in anthropic(kind, "", "", "")}
)  # fmt: skip
AMOUNTS = st.integers(-(10**15), 10**15).map(str) | st.floats().map(str)
VALUES = (
    st.text(max_size=30)
    | AMOUNTS
    | st.builds("{}{}".format, AMOUNTS, st.sampled_from(["s", "ms", "m", "h", "m0s"]))
    | st.datetimes().map(lambda at: at.isoformat() + "Z")
)


@given(
    headers=st.dictionaries(
        st.sampled_from([*NAMES, "date"]) | st.text(max_size=20), VALUES, max_size=20
    ),
    now_s=st.floats(allow_nan=True),
)
@example(headers=openai("requests", "1000000000000", "999999999999.999999999", "1ms"), now_s=0.0)
def test_no_headers_are_an_error_and_what_is_read_makes_sense(
    headers: dict[str, str], now_s: float
) -> None:
    found = seen(headers, now_s)
    assert len({one.measure for one in found}) == len(found)
    for one in found:
        assert 1 <= one.limit <= 1e12
        assert 0 <= one.remaining <= one.limit
        assert one.reset is None or 0 <= one.reset.after_s < 1e13


@given(limit=st.integers(1, 10**7), counted=st.floats(0, 1, exclude_min=True), daily=st.booleans())
def test_a_bucket_of_any_size_is_read_with_its_own_unit(
    limit: int, counted: float, daily: bool
) -> None:
    # As a provider makes them: `remaining` in whole requests, the reset in whole milliseconds.
    outstanding = max(1.0, limit * counted)
    remaining = int(limit - outstanding)
    window_s = 86_400 if daily else 60
    reset_ms = round(outstanding / limit * window_s * 1000)
    found = seen(openai("requests", str(limit), str(remaining), f"{reset_ms}ms"), NOW_S)
    assert [one.measure for one in found] == ["rpd" if daily else "rpm"]
