"""Errors in both dialects, as the official SDKs read them."""

from collections.abc import Callable
from typing import Any, get_args

import anthropic
import httpx2
import openai
import pytest
from anthropic.types import ErrorResponse

from headgate.producer.dialects.errors import (
    CODES,
    ERRORS,
    DoorCode,
    error_body,
    should_retry,
    status_of,
)
from headgate.shared.errors import ErrorCode
from headgate.shared.job.request import Dialect

OPENAI = {
    400: openai.BadRequestError, 401: openai.AuthenticationError, 403: openai.PermissionDeniedError,
    404: openai.NotFoundError, 409: openai.ConflictError, 422: openai.UnprocessableEntityError,
    429: openai.RateLimitError, 500: openai.InternalServerError, 502: openai.InternalServerError,
    503: openai.InternalServerError, 504: openai.InternalServerError,
}  # fmt: skip
ANTHROPIC = {
    400: anthropic.BadRequestError, 401: anthropic.AuthenticationError,
    402: anthropic.PaymentRequiredError, 403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError, 408: anthropic.RequestTimeoutError, 409: anthropic.ConflictError,
    413: anthropic.ContentTooLargeError, 422: anthropic.UnprocessableEntityError,
    429: anthropic.RateLimitError, 431: anthropic.RequestHeaderFieldsTooLargeError,
    499: anthropic.ClientClosedRequestError, 500: anthropic.InternalServerError,
    503: anthropic.ServiceUnavailableError, 504: anthropic.GatewayTimeoutError,
    529: anthropic.OverloadedError,
}  # fmt: skip


def server(dialect: Dialect, code: str) -> Callable[[httpx2.Request], httpx2.Response]:
    """Return a server that refuses every call with this code."""
    body = error_body(dialect, code, "words", request_id="req_1")
    headers = {"x-should-retry": "true" if should_retry(code) else "false", "request-id": "req_1"}
    status = status_of(code, dialect)
    return lambda _: httpx2.Response(status, json=body, headers=headers)


def asked_openai(code: str) -> openai.APIStatusError:
    """Return what OpenAI's SDK raises."""
    http = httpx2.Client(transport=httpx2.MockTransport(server("openai", code)))
    with openai.OpenAI(api_key="k", base_url="http://x/v1", http_client=http, max_retries=0) as one:
        with pytest.raises(openai.APIStatusError) as raised:
            one.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        return raised.value


def asked_anthropic(code: str) -> anthropic.APIStatusError:
    """Return what Anthropic's SDK raises."""
    http = httpx2.Client(transport=httpx2.MockTransport(server("anthropic", code)))
    client = anthropic.Anthropic(api_key="k", base_url="http://x", http_client=http, max_retries=0)
    with client, pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    return raised.value


def test_every_code_has_its_form() -> None:
    assert set(ERRORS) == {*get_args(ErrorCode), *get_args(DoorCode)} == CODES


@pytest.mark.parametrize("code", sorted(CODES))
def test_openais_client_raises_the_error_of_the_status(code: str) -> None:
    error = asked_openai(code)
    assert type(error) is OPENAI.get(error.status_code, openai.APIStatusError)
    assert error.status_code == status_of(code, "openai")
    assert error.type
    assert error.code
    assert "words" in error.message


@pytest.mark.parametrize("code", sorted(CODES))
def test_anthropics_client_raises_the_error_of_the_status(code: str) -> None:
    error = asked_anthropic(code)
    status = error.status_code
    others = anthropic.InternalServerError if status >= 500 else anthropic.APIStatusError
    assert type(error) is ANTHROPIC.get(status, others)
    assert error.request_id == "req_1"
    assert "words" in (error.api_message or "")
    body: Any = error.body
    assert body["error"]["type"] == error.type
    assert body["request_id"] == "req_1"
    if error.type not in ("conflict_error", "request_too_large"):  # the SDK has no type of these
        ErrorResponse.model_validate(body, strict=True)


@pytest.mark.parametrize(
    ("code", "openai_status", "anthropic_status"),
    [("overloaded", 503, 529), ("budget_exceeded", 402, 402), ("authentication", 502, 502),
     ("invalid_api_key", 401, 401), ("request_too_large", 413, 413), ("cancelled", 499, 499)],
)  # fmt: skip
def test_the_status_of_a_code(code: str, openai_status: int, anthropic_status: int) -> None:
    assert status_of(code, "openai") == openai_status
    assert status_of(code, "anthropic") == anthropic_status


def test_a_prompt_that_is_too_long_is_known_by_its_words() -> None:
    words = error_body("anthropic", "context_length", "at most 200000 tokens")["error"]["message"]
    assert words == "prompt is too long: at most 200000 tokens"
    same = "Prompt is too long: 5 > 4"
    assert error_body("anthropic", "context_length", same)["error"]["message"] == same
    error = error_body("openai", "context_length", same)["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


def test_the_field_at_fault_is_named_where_the_form_has_it() -> None:
    assert error_body("openai", "invalid_request", "x", param="top_p")["error"]["param"] == "top_p"
    assert error_body("openai", "unknown_model", "x")["error"]["param"] == "model"


def test_asking_again_is_advised_only_where_it_can_help() -> None:
    helped = {code for code in CODES if should_retry(code)}
    assert helped == {
        "rate_limited", "overloaded", "timeout", "connection", "provider_error", "breaker_open",
        "invalid_output", "tier_limit", "internal", "request_timeout", "key_limit", "unavailable",
    }  # fmt: skip
    assert not should_retry("overloaded", retryable=False)


def test_a_code_that_we_do_not_know_is_our_fault() -> None:
    assert status_of("from_a_newer_release", "openai") == 500
    assert error_body("openai", "newer", "x")["error"]["code"] == "newer"
    error = error_body("anthropic", "newer", "x", status=429)["error"]
    assert error["type"] == "rate_limit_error"
