"""What a refusal says of its pool, on the vendors' own words; placeholders stand for their ids."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from headgate.workers.errors import AttemptError, Gate, QuotaExhausted, RateLimited
from headgate.workers.providers.http import Response
from headgate.workers.providers.pool_gate import gate_of, wait_in_text_ms
from headgate.workers.providers.refusals import refusal


def refused(status: int, body: object, **headers: str) -> AttemptError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(Response(status, CIMultiDict(named), orjson.dumps(body)), [], "sk-secret-key")


def of_openai(message: str, type_: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


def of_anthropic(type_: str, message: str, **details: object) -> dict[str, Any]:
    error = {"type": type_, "message": message, **({"details": details} if details else {})}
    return {"type": "error", "error": error, "request_id": "req_011"}


NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
#: A midnight some weeks from now, for what reads the clock itself.
COMING = datetime.combine(datetime.now(UTC) + timedelta(days=20), time(), UTC)
COMING_MS = int(COMING.timestamp() * 1000)


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


TPM = (
    "Rate limit reached for gpt-4o-mini in organization org-x on tokens per min (TPM): "
    "Limit 200000, Used 199500, Requested 1200. Please try again in 210ms."
)
RPD = (
    "Rate limit reached for gpt-4o in organization org-x on requests per day (RPD): "
    "Limit 200, Used 200, Requested 1. Please try again in 7m12s."
)
TOO_LARGE = (
    "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, "
    "Requested 40000. The input or output tokens must be reduced in order to run successfully."
)
QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, read the docs."
)
ITPM = (
    "This request would exceed your organization's rate limit of 30,000 input tokens per minute "
    "(org: x, model: claude-sonnet-4-5). Please reduce the prompt length or the maximum tokens "
    "requested, or try again later."
)
RAMP = (
    "This request would exceed your organization's (x) maximum usage increase rate for input "
    "tokens per minute. Please scale up your input tokens usage more gradually to stay within the "
    "acceleration limit."
)
RAMP_WITH_FIGURES = (
    "This request would exceed your organization's maximum usage increase rate for input tokens "
    "per minute (org: x, model: y). Your current limit is 58,276 input tokens per minute, and will "
    "increase to 68,276 at the next minute boundary."
)
SPENT = (
    "You have reached your specified API usage limits. You will regain access on "
    f"{COMING:%Y-%m-%d} at 00:00 UTC."
)

GOLDEN: list[tuple[int, object, Gate | None]] = [
    # OpenAI
    (429, of_openai(TPM, "tokens", "rate_limit_exceeded"), Gate("limited")),
    (429, of_openai(RPD, "requests", "rate_limit_exceeded"), Gate("limited")),
    (429, of_openai(TOO_LARGE, "tokens", "rate_limit_exceeded"), None),
    (429, of_openai("Slow down.", "rate_limit_error", "slow_down"), Gate("slow")),
    (503, of_openai("Slow down.", "service_unavailable_error", "slow_down"), Gate("slow")),
    (
        503,
        of_openai("The server is overloaded.", "service_unavailable_error", "server_is_overloaded"),
        Gate("overloaded"),
    ),
    (429, of_openai("No resources.", "rate_limit_error", "resource_unavailable"), Gate("flex")),
    (429, of_openai(QUOTA, "insufficient_quota", "insufficient_quota"), Gate("money")),
    (429, of_openai(QUOTA, "insufficient_quota", None), Gate("money")),
    (429, of_openai("No credit.", "insufficient_quota", "credit_balance_exhausted"), Gate("money")),
    (429, of_openai("Limit.", None, "project_spend_limit_exceeded"), Gate("money")),
    (500, of_openai("The server had an error.", "server_error", None), None),
    (401, of_openai("Incorrect API key provided.", None, "invalid_api_key"), None),
    (400, of_openai("Too long.", "invalid_request_error", "context_length_exceeded"), None),
    # Anthropic
    (429, of_anthropic("rate_limit_error", ITPM), Gate("limited")),
    (429, of_anthropic("rate_limit_error", RAMP), Gate("slow")),
    (429, of_anthropic("rate_limit_error", RAMP_WITH_FIGURES), Gate("slow")),
    (429, of_anthropic("rate_limit_error", "no", error_code="ramp_limit_exceeded"), Gate("slow")),
    (529, of_anthropic("overloaded_error", "Overloaded"), Gate("overloaded")),
    (200, of_anthropic("overloaded_error", "Overloaded"), Gate("overloaded")),
    (400, of_anthropic("invalid_request_error", SPENT), Gate("money", COMING_MS)),
    (
        400,
        of_anthropic("invalid_request_error", "Your credit balance is too low to access the API."),
        Gate("money"),
    ),
    (
        429,
        of_anthropic("rate_limit_error", "Spend.", error_code="enforced_spend_limit_reached"),
        Gate("money"),
    ),
    (
        429,
        of_anthropic("rate_limit_error", SPENT, error_code="enforced_spend_limit_reached"),
        Gate("money", COMING_MS),
    ),
    (
        429,
        of_anthropic(
            "rate_limit_error",
            "Spend.",
            error_code="contract_spend_limit_reached",
            resets_at=f"{COMING:%Y-%m-%d}T01:30:00+02:00",
        ),
        Gate("money", COMING_MS - 1_800_000),
    ),
    (
        400,
        of_anthropic(
            "invalid_request_error", "no", error_code="linked_organization_spend_limit_reached"
        ),
        None,
    ),
    (402, of_anthropic("billing_error", "Billing."), Gate("money")),
    (
        429,
        of_anthropic("rate_limit_error", "Usage credits are required for long context requests."),
        None,
    ),
    (500, of_anthropic("api_error", "Internal server error"), None),
    # by status alone, and compatible servers
    (429, None, Gate("limited")),
    (503, None, Gate("overloaded")),
    (529, None, Gate("overloaded")),
    (402, None, Gate("money")),
    (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], Gate("limited")),
]


@pytest.mark.parametrize(("status", "body", "gate"), GOLDEN)
def test_a_refusal_says_what_it_means_for_its_pool(
    status: int, body: object, gate: Gate | None
) -> None:
    assert refused(status, body).gate == gate


def test_a_refusal_keeps_the_headers_that_speak_of_limits() -> None:
    error = refused(
        429,
        of_openai(TPM, "tokens", "rate_limit_exceeded"),
        X_RateLimit_Remaining_Tokens="500",
        retry_after="1",
        set_cookie="x",
    )
    assert error.headers == {"x-ratelimit-remaining-tokens": "500", "retry-after": "1"}
    assert error.retry_after_ms == 1000


def test_a_wait_that_only_the_text_names_is_read_from_it() -> None:
    assert refused(429, of_openai(RPD, "requests", "rate_limit_exceeded")).retry_after_ms == 432_000
    google = "You exceeded your current quota. Please retry in 36.552799951s."
    body = [{"error": {"code": 429, "message": google, "status": "RESOURCE_EXHAUSTED"}}]
    assert refused(429, body).retry_after_ms == 36_553
    assert refused(429, body, retry_after="2").retry_after_ms == 2000
    assert refused(500, of_openai(TPM, None, None)).retry_after_ms is None


@pytest.mark.parametrize(
    ("message", "wait_ms"),
    [
        ("Please try again in 6ms.", 6),
        ("Please try again in 1.5s. Visit ...", 1500),
        ("Please try again in 1h2m3s.", 3_723_000),
        ("try again in 2m", None),
        ("try again in 5 minutes", None),
        ("try again in s", None),
        ("try again in 1.2.3s", None),
        ("try again later", None),
    ],
)
def test_only_a_duration_in_the_vendors_words_is_a_wait(message: str, wait_ms: int | None) -> None:
    assert wait_in_text_ms(message) == wait_ms


@pytest.mark.parametrize(
    ("message", "until_ms"),
    [
        ("You will regain access on 2027-01-01.", ms(2027, 1, 1)),
        ("Your limit resets at 2027-01-01T15:30:00Z.", ms(2027, 1, 1, 15, 30)),
        ("You will regain access on 2027-13-01 at 00:00 UTC.", None),
        ("You will regain access on 2027-01-01 at 99:99 UTC.", None),
        ("You will regain access soon. Since 2027-01-01 all is well.", None),
        ("You will regain access on 2026-11-20 at 00:00 UTC.", None),
        ("You will regain access on 9999-12-31 at 00:00 UTC.", None),
    ],
)
def test_the_day_on_which_money_is_there_again_is_read_where_it_is_one(
    message: str, until_ms: int | None
) -> None:
    found = gate_of(QuotaExhausted, ["insufficient_quota"], message, {}, NOW.timestamp())
    assert found == Gate("money", until_ms)


@given(
    message=st.text(max_size=200),
    details=st.dictionaries(st.sampled_from(["resets_at", "reset", "x"]), st.text(max_size=40)),
    known=st.sampled_from([RateLimited, *AttemptError.__subclasses__()]),
)
def test_no_words_of_a_vendor_are_an_error(
    message: str, details: dict[str, object], known: type[AttemptError]
) -> None:
    gate_of(known, [message], message, details, NOW.timestamp())
    wait_in_text_ms(message)
