"""A vendor's refusal becomes exactly one of our errors, with what a retry has to know."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from multidict import CIMultiDict

from headgate.workers.errors import (
    AttemptError,
    AttemptTimeout,
    Overloaded,
    ProviderFault,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    Unauthorized,
)
from headgate.workers.providers.http import Response
from headgate.workers.providers.key_mask import masked_keys
from headgate.workers.providers.refusals import (
    MESSAGE_LIMIT,
    ModelRefused,
    WrongAddress,
    refusal,
    request_id,
    scrubbed,
    without_key,
)


def of_openai(code: str | None, type_: str | None = None, message: str = "no") -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


def of_anthropic(type_: str, message: str = "no", **details: str) -> dict[str, Any]:
    error = {"type": type_, "message": message} | ({"details": details} if details else {})
    return {"type": "error", "error": error, "request_id": "req_011"}


def answer(status: int, body: object, **headers: str) -> Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, CIMultiDict(named), content)


def refused(status: int, body: object, **headers: str) -> AttemptError:
    return refusal(answer(status, body, **headers), [], "sk-secret-key")


INVALID = "invalid_request_error"
TABLE: list[tuple[int, object, type[AttemptError], str, bool | None]] = [
    # OpenAI, by code
    (429, of_openai("rate_limit_exceeded", "tokens"), RateLimited, "rate_limited", False),
    (429, of_openai("slow_down", "rate_limit_error"), RateLimited, "rate_limited", False),
    (503, of_openai("slow_down"), RateLimited, "rate_limited", False),
    (429, of_openai("credit_balance_exhausted"), QuotaExhausted, "provider_quota", False),
    (429, of_openai("organization_spend_limit_exceeded"), QuotaExhausted, "provider_quota", False),
    (429, of_openai("project_spend_limit_exceeded"), QuotaExhausted, "provider_quota", False),
    (429, of_openai("organization_usage_limit_exceeded"), QuotaExhausted, "provider_quota", False),
    (429, of_openai("insufficient_quota"), QuotaExhausted, "provider_quota", False),
    (429, of_openai(None, "insufficient_quota"), QuotaExhausted, "provider_quota", False),
    (429, of_openai("resource_unavailable"), Overloaded, "overloaded", False),
    (503, of_openai("server_is_overloaded"), Overloaded, "overloaded", False),
    (503, of_openai(None, "service_unavailable_error"), Overloaded, "overloaded", False),
    (401, of_openai("invalid_api_key", INVALID), Unauthorized, "authentication", False),
    (401, of_openai(None, INVALID), Unauthorized, "authentication", False),
    (403, of_openai("unsupported_country_region_territory"), Unauthorized, "permission", False),
    (404, of_openai("model_not_found", INVALID), ModelRefused, "unknown_model", False),
    (400, of_openai("context_length_exceeded", INVALID), ModelRefused, "context_length", False),
    (400, of_openai("content_filter"), RequestRefused, "content_filtered", False),
    (400, of_openai("invalid_value", INVALID), RequestRefused, "invalid_request", False),
    (500, of_openai(None, "server_error"), ProviderFault, "provider_error", None),
    # Anthropic, by details, type or text
    (
        429,
        of_anthropic("rate_limit_error", error_code="enforced_spend_limit_reached"),
        QuotaExhausted,
        "provider_quota",
        False,
    ),
    (
        429,
        of_anthropic("rate_limit_error", error_code="ramp_limit_exceeded"),
        RateLimited,
        "rate_limited",
        False,
    ),
    (
        400,
        of_anthropic(INVALID, "You have reached your specified API usage limits."),
        QuotaExhausted,
        "provider_quota",
        False,
    ),
    (
        400,
        of_anthropic(INVALID, "Your credit balance is too low to access the Anthropic API."),
        QuotaExhausted,
        "provider_quota",
        False,
    ),
    (
        400,
        of_anthropic(INVALID, "prompt is too long: 210000 tokens > 200000 maximum"),
        ModelRefused,
        "context_length",
        False,
    ),
    (
        400,
        of_anthropic(INVALID, "Output blocked by content filtering policy"),
        RequestRefused,
        "content_filtered",
        None,
    ),
    (400, of_anthropic(INVALID), RequestRefused, "invalid_request", False),
    (401, of_anthropic("authentication_error"), Unauthorized, "authentication", False),
    (402, of_anthropic("billing_error"), QuotaExhausted, "provider_quota", False),
    (403, of_anthropic("permission_error"), Unauthorized, "permission", False),
    (404, of_anthropic("not_found_error", "model: claude-x"), ModelRefused, "unknown_model", False),
    (200, of_anthropic("not_found_error", "model: claude-x"), ModelRefused, "unknown_model", False),
    (404, of_anthropic("not_found_error", "Not found"), WrongAddress, "provider_error", False),
    (404, of_openai("unknown_url", INVALID, "Invalid URL (POST /v1/models/chat/completions)"),
     WrongAddress, "provider_error", False),
    (404, of_openai(None, INVALID, "The model `x` does not exist"), ModelRefused, "unknown_model",
     False),
    (404, of_openai("DeploymentNotFound", None, "The API deployment for this resource does not "
     "exist."), ModelRefused, "unknown_model", False),
    (404, {"error": {"message": "No endpoints found for a/b.", "code": 404}}, ModelRefused,
     "unknown_model", False),
    (404, {"error": {"message": 'model "x" not found, try pulling it first'}}, ModelRefused,
     "unknown_model", False),
    (404, [{"error": {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}}],
     ModelRefused, "unknown_model", False),
    (404, {"detail": "Not Found"}, WrongAddress, "provider_error", False),
    (404, {"message": "no Route matched: https://h/models/x"}, WrongAddress, "provider_error",
     False),
    (404, b"<html>404: no model here</html>", WrongAddress, "provider_error", False),
    (405, {"detail": "Method Not Allowed"}, WrongAddress, "provider_error", False),
    (308, b"", WrongAddress, "provider_error", False),
    (409, of_anthropic("conflict_error"), ProviderFault, "provider_error", False),
    (413, of_anthropic("request_too_large"), RequestRefused, "invalid_request", False),
    (429, of_anthropic("rate_limit_error"), RateLimited, "rate_limited", False),
    (500, of_anthropic("api_error"), ProviderFault, "provider_error", None),
    (504, of_anthropic("timeout_error"), AttemptTimeout, "timeout", None),
    (529, of_anthropic("overloaded_error"), Overloaded, "overloaded", False),
    # compatible servers, and errors that came with status 200
    (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], RateLimited, "rate_limited",
     False),
    (200, {"error": {"code": 502, "message": "upstream"}}, ProviderFault, "provider_error", None),
    (200, {"error": {"code": 429, "message": "slow"}}, RateLimited, "rate_limited", False),
    (200, of_anthropic("overloaded_error"), Overloaded, "overloaded", False),
    (200, of_openai(None, INVALID), RequestRefused, "invalid_request", False),
    (200, {"error": "out of memory"}, ProviderFault, "provider_error", None),
    (400, {"object": "error", "message": "maximum context length is 4096", "code": 400},
     ModelRefused, "context_length", False),
    (422, {"detail": [{"loc": ["body"], "msg": "bad", "input": "x"}]}, RequestRefused,
     "invalid_request", False),
    # by status alone, also where the code says no more than "our fault"
    (529, of_openai(None, "server_error"), Overloaded, "overloaded", False),
    (503, of_anthropic("api_error"), Overloaded, "overloaded", None),
    (200, of_anthropic("api_error"), ProviderFault, "provider_error", None),
    (400, b"", RequestRefused, "invalid_request", False),
    (402, b"{}", QuotaExhausted, "provider_quota", False),
    (408, b"", AttemptTimeout, "timeout", None),
    (418, b"null", RequestRefused, "invalid_request", False),
    (429, b"<html>", RateLimited, "rate_limited", False),
    (502, b"<html>bad gateway</html>", ProviderFault, "provider_error", None),
    (503, b"", Overloaded, "overloaded", None),
    (504, b"", AttemptTimeout, "timeout", None),
    (529, b"", Overloaded, "overloaded", False),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "code", "billed"), TABLE)
def test_a_refusal_is_read_by_its_code_first_and_its_status_second(
    status: int, body: object, kind: type[AttemptError], code: str, billed: bool | None
) -> None:
    error = refused(status, body)
    assert (type(error), error.code, error.billed) == (kind, code, billed)
    assert error.http_status == status


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2?key=x", "https://h/v2"),
        ("http://[", "an address that is none"),
        ("https://u:p@new/x#y", "https://new/x"),
    ],
)
def test_any_target_of_a_redirect_is_told_without_its_secrets(location: str, target: str) -> None:
    response = Response(308, CIMultiDict({"location": location}), b"", url="https://u:p@h/v1?k=s")
    message = refusal(response, [], "sk-secret-key").message
    assert f"https://h/v1 redirects to {target}, which is not followed" in message


def test_another_model_may_serve_what_is_too_long_for_this_one() -> None:
    too_long = refused(400, of_openai("context_length_exceeded"))
    assert (too_long.retryable, too_long.falls_back) == (False, True)
    assert not refused(400, of_openai("content_filter")).falls_back


def test_the_request_id_comes_from_the_headers_or_the_body() -> None:
    assert refused(500, b"", x_request_id="req_1").request_id == "req_1"
    assert refused(500, b"", request_id="req_2").request_id == "req_2"
    assert refused(529, of_anthropic("overloaded_error")).request_id == "req_011"


def test_a_refusal_carries_the_wait_however_long_and_what_is_odd_about_it() -> None:
    far = refused(429, of_openai("rate_limit_exceeded"), retry_after="99999999999")
    assert (far.retry_after_ms, far.retry_after_note) == (99_999_999_999_000, "")
    odd = refused(503, b"", retry_after="-5")
    assert (odd.retry_after_ms, odd.retry_after_note) == (
        None,
        "retry-after: '-5' is no time to wait",
    )
    dated = refused(
        429, of_openai("rate_limit_exceeded"), date="Thu, 01 Jan 1970 00:16:40 GMT",
        retry_after="Thu, 01 Jan 1970 00:17:00 GMT",
    )  # fmt: skip
    assert dated.retry_after_ms == 20_000


def test_a_message_shows_neither_key_nor_prompt_and_is_short() -> None:
    key = "my-own-key-of-no-known-form"
    said = (
        f"Incorrect API key provided: weird!key. You sent {key}, sk-proj-abc***xyz and "
        "AIzaSyA1234567890; see https://example.org/api-keys. " + "x" * 1000
    )
    shown = scrubbed(said, [], key)
    for secret in (key, "weird!key", "abc***xyz", "AIzaSy"):
        assert secret not in shown
    assert "see https://example.org/api-keys" in shown
    assert len(shown) == MESSAGE_LIMIT
    prompt = 'My secret plan\nis "this" one'
    assert scrubbed("bad input: 'My secret plan\\nis'", [prompt], key) == "bad input: '[...]"


KEY = "Kq7-own_key/of+no.known~form=9"
ENCODED = base64.b64encode(KEY.encode()).decode()
OTHERS = "sk-proj-abcdefghijkl"


@pytest.mark.parametrize(
    "leak",
    [
        KEY,
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        quote(quote(KEY, safe=""), safe=""),
        "".join(f"%{ord(char):02X}" for char in KEY),
        KEY.replace("/", "\\u002f"),
        f"{KEY[:10]}\n{KEY[10:]}",
        f"{KEY[:10]}\r\n\t  {KEY[10:20]}\n{KEY[20:]}",
        f"{KEY[:10]}\\n{KEY[10:]}",
        f'{KEY[:10]}"\n"{KEY[10:]}',
        quote(f"{KEY[:10]}\n{KEY[10:]}"),
        ENCODED,
        ENCODED.rstrip("="),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        quote(ENCODED, safe=""),
        f"{ENCODED[:20]}\n{ENCODED[20:]}",
        *(base64.b64encode(f"{name}:{KEY}:x".encode()).decode() for name in ("", "a", "ab", "abc")),
    ],
)
def test_our_key_is_masked_in_every_spelling(leak: str) -> None:
    shown = scrubbed(f"the header ({leak}) is wrong; see x-api-keys", [], KEY)
    assert re.fullmatch(r"the header \(.{0,9}\*\*\*.{0,9}\) is wrong; see x-api-keys", shown)


@pytest.mark.parametrize(
    "leak",
    [
        OTHERS,
        quote(OTHERS).replace("-", "%2D"),
        base64.b64encode(OTHERS.encode()).decode(),
        base64.b64encode(f"Bearer {OTHERS}".encode()).decode(),
        base64.urlsafe_b64encode(f"user:{OTHERS}".encode()).decode(),
    ],
)
def test_keys_of_others_are_masked_by_their_prefix(leak: str) -> None:
    shown = scrubbed(f"you sent {leak} to us", [], KEY)
    assert shown == "you sent *** to us"


def test_what_is_no_key_stays() -> None:
    for text in (
        "The quick brown fox jumps over the lazy dog. " * 9,
        "req_011CSHoEeqs5C35K2UUqR7Fy 8f14e45f-ceea-467f-a9d1-2c3a4b5c6d7e",
        "https://platform.openai.com/docs/guides/error-codes/api-errors",
        "sk s k own key of no known form",
    ):
        assert scrubbed(text, [], KEY) == text[:MESSAGE_LIMIT]


@pytest.mark.parametrize("leak", [KEY, ENCODED, OTHERS])
def test_a_key_in_a_request_id_is_masked_like_one_in_a_message(leak: str) -> None:
    for headers in ({"x-request-id": f"id-{leak}"}, {"request-id": f"id-{leak}"}):
        error = refusal(Response(500, CIMultiDict(headers), b""), [], KEY)
        assert error.request_id in ("id-***", "id***", "***")
        assert set(error.headers.values()) == {error.request_id}
        answer = without_key(Response(200, CIMultiDict({**headers, "A": "b"}), b"{}"), KEY)
        assert request_id(answer.headers) == error.request_id
        assert answer.headers["a"] == "b"
    body = orjson.dumps({"error": {"message": "no"}, "request_id": f"id-{leak}"})
    assert refusal(Response(500, {}, body), [], KEY).request_id in ("id-***", "id***", "***")
    plain = Response(200, CIMultiDict({"X-Request-Id": "req_1"}), b"{}")
    assert without_key(plain, KEY) is plain


def test_a_key_of_hexadecimal_digits_is_masked_in_an_id_of_such_digits_too() -> None:
    assert masked_keys("req_3f2a00018c1d2e3f", "3f2a0001") == "req_***8c1d2e3f"
    assert masked_keys("req_3f2a00018c1d2e3f", "sk-3f2a0001") == "req_3f2a00018c1d2e3f"


def test_a_validation_error_does_not_repeat_the_input() -> None:
    body = {"detail": [{"loc": ["body", "n"], "msg": "too big", "input": "the prompt"}]}
    error = refused(422, body)
    assert "too big" in error.message
    assert "the prompt" not in error.message
