"""Translates a vendor's refusal into our errors: by its code first, by the HTTP status second.

Sources: the vendors' error guides and the installed SDKs (`anthropic.types.shared`), 2026-11.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit, urlunsplit

from headgate.shared.errors import ErrorCode
from headgate.workers.errors import (
    AttemptError,
    AttemptTimeout,
    InvalidOutput,
    Overloaded,
    ProviderFault,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    Unauthorized,
)
from headgate.workers.policy import retry_after
from headgate.workers.providers.http import Response
from headgate.workers.providers.key_mask import masked_keys
from headgate.workers.providers.lenient_json import read_json
from headgate.workers.providers.pool_gate import gate_of, wait_in_text_ms
from headgate.workers.providers.reply_fields import fields_of, limit_and_id_headers

MESSAGE_LIMIT = 500
_MASKED_CHARS = 20 * MESSAGE_LIMIT
"""How much of a message is searched for keys; the search takes about 0.1 us a character."""


class ModelRefused(RequestRefused):
    """This model cannot take the request (too long, not served), but another model may."""

    falls_back = True


class WrongAddress(AttemptError):
    """The address serves no such endpoint: the base URL is wrong, not the request."""

    retryable = False


Fault = tuple[type[AttemptError], ErrorCode, bool | None]  # class, our code, was it billed

_REFUSED: Fault = (RequestRefused, "invalid_request", False)
_TOO_LONG: Fault = (ModelRefused, "context_length", False)
_NO_ENDPOINT: Fault = (WrongAddress, "provider_error", False)
_NO_MODEL: Fault = (ModelRefused, "unknown_model", False)
# Another vendor's filter may pass it, but only the caller may decide to go around a filter.
_FILTERED: Fault = (RequestRefused, "content_filtered", False)
_BAD_KEY: Fault = (Unauthorized, "authentication", False)
_FORBIDDEN: Fault = (Unauthorized, "permission", False)
_NO_MONEY: Fault = (QuotaExhausted, "provider_quota", False)
_LIMITED: Fault = (RateLimited, "rate_limited", False)
_BUSY: Fault = (Overloaded, "overloaded", False)
_CONFLICT: Fault = (ProviderFault, "provider_error", False)
# Work may have been done before these errors; no vendor says whether it is billed.
_TIMED_OUT: Fault = (AttemptTimeout, "timeout", None)
_FAULT: Fault = (ProviderFault, "provider_error", None)

#: `invalid_request_error`, `server_error` and `api_error` are missing: the status says more.
_CODES: dict[str, Fault] = {
    # OpenAI, `error.code` or `error.type`
    "credit_balance_exhausted": _NO_MONEY,
    "organization_spend_limit_exceeded": _NO_MONEY,
    "project_spend_limit_exceeded": _NO_MONEY,
    "organization_usage_limit_exceeded": _NO_MONEY,
    "insufficient_quota": _NO_MONEY,
    "billing_hard_limit_reached": _NO_MONEY,
    "billing_not_active": _NO_MONEY,
    "rate_limit_exceeded": _LIMITED,
    "slow_down": _LIMITED,
    "server_is_overloaded": _BUSY,
    "service_unavailable_error": _BUSY,
    "resource_unavailable": _BUSY,  # the flex tier is full just now; not billed
    "context_length_exceeded": _TOO_LONG,
    "string_above_max_length": _TOO_LONG,
    "content_filter": _FILTERED,
    "content_policy_violation": _FILTERED,
    "ResponsibleAIPolicyViolation": _FILTERED,
    # OpenAI, `error.code` of a Response that failed
    "invalid_prompt": _FILTERED,
    "image_content_policy_violation": _FILTERED,
    "bio_policy": _FILTERED,
    "misalignment_policy_violation": _FILTERED,
    "data_residency_mismatch": _FORBIDDEN,
    "empty_image_file": _REFUSED,
    "failed_to_download_image": _REFUSED,
    "image_file_not_found": _REFUSED,
    "image_file_too_large": _REFUSED,
    "image_parse_error": _REFUSED,
    "image_too_large": _REFUSED,
    "image_too_small": _REFUSED,
    "invalid_base64_image": _REFUSED,
    "invalid_image": _REFUSED,
    "invalid_image_format": _REFUSED,
    "invalid_image_mode": _REFUSED,
    "invalid_image_url": _REFUSED,
    "unsupported_image_media_type": _REFUSED,
    "invalid_api_key": _BAD_KEY,
    "account_deactivated": _BAD_KEY,
    "invalid_organization": _BAD_KEY,
    "unsupported_country_region_territory": _FORBIDDEN,
    "insufficient_permissions": _FORBIDDEN,
    "model_not_found": _NO_MODEL,
    "model_not_active": _NO_MODEL,
    "model_decommissioned": _NO_MODEL,
    # Anthropic, `error.details.error_code`
    "enforced_spend_limit_reached": _NO_MONEY,
    "contract_spend_limit_reached": _NO_MONEY,
    "linked_organization_spend_limit_reached": _NO_MONEY,
    "linked_organization_billing_unavailable": _NO_MONEY,
    "organization_on_hold": _FORBIDDEN,
    "ramp_limit_exceeded": _LIMITED,
    # both, `error.type`
    "authentication_error": _BAD_KEY,
    "permission_error": _FORBIDDEN,
    "billing_error": _NO_MONEY,
    "rate_limit_error": _LIMITED,
    "overloaded_error": _BUSY,
    "request_too_large": _REFUSED,
    "conflict_error": _CONFLICT,
    "timeout_error": _TIMED_OUT,
    # Google's names, on its OpenAI-compatible address
    "RESOURCE_EXHAUSTED": _LIMITED,
    "UNAVAILABLE": _BUSY,
    "UNAUTHENTICATED": _BAD_KEY,
    "PERMISSION_DENIED": _FORBIDDEN,
    "DEADLINE_EXCEEDED": _TIMED_OUT,
}

_STATUSES: dict[int, Fault] = {
    401: _BAD_KEY,
    402: _NO_MONEY,
    403: _FORBIDDEN,
    405: _NO_ENDPOINT,
    408: _TIMED_OUT,
    409: _CONFLICT,
    410: _NO_MODEL,
    429: _LIMITED,
    # A proxy may send a 503 after it has passed the request on. With a code it is the vendor's.
    503: (Overloaded, "overloaded", None),
    504: _TIMED_OUT,
    529: _BUSY,
}

#: Anthropic and many compatible servers give these facts only as text, under the general
#: `invalid_request_error`. The text is read only if code and status say no more than "400".
_TEXTS: list[tuple[re.Pattern[str], Fault]] = [
    (re.compile(r"API usage limits|credit balance is too low|spend(ing)? limit", re.I), _NO_MONEY),
    (
        re.compile(r"prompt is too long|context (length|limit|window)|too many tokens", re.I),
        _TOO_LONG,
    ),
    # The output was generated before it was blocked, so it may be billed.
    (re.compile(r"content filter", re.I), (RequestRefused, "content_filtered", None)),
]

#: A 404 means the model only if its text says so: "model: claude-x" (Anthropic), "The model `x`
#: does not exist" (vLLM), "No endpoints found for x" (OpenRouter), "The API deployment for this
#: resource does not exist" (Azure). Paths that it repeats do not count.
_NAMES_MODEL = re.compile(r"\bmodels?\b|\bdeployment\b|\bendpoints found\b", re.I)
_PATHS = re.compile(r"(?<![\w-])(?:\w+:/)?/\S+")


def refusal(response: Response, private: Iterable[str], secret: str) -> AttemptError:
    """Return the error that this response stands for; also for an error with status 200.

    `private` are the texts of the request: the vendor's message is cut where it begins to repeat
    one of them. `secret` is the API key.
    """
    response = without_key(response, secret)
    try:
        body = read_json(response.content)
    except ValueError:
        body = None
    status, error = response.status, read_error(body)
    if error.status is not None and status < 400:
        status = error.status
    kind, code, billed = fault(status, error)
    now_s = time.time()
    asked = retry_after.read(response.headers, now_s)
    wait_ms = asked.wait_ms
    if wait_ms is None and issubclass(kind, RateLimited):
        wait_ms = wait_in_text_ms(error.message)
    message = f"HTTP {status}, with no reason given"
    if error.message:
        message = f"HTTP {status}: {scrubbed(error.message, private, secret)}"
    if kind is WrongAddress:
        message += f"; {_address_remedy(response)}"
    return kind(
        message,
        code=code,
        http_status=response.status,
        retry_after_ms=wait_ms,
        retry_after_note=asked.note,
        billed=billed,
        request_id=request_id(response.headers) or masked_or_none(error.request_id, secret),
        headers=limit_and_id_headers(response.headers),
        gate=gate_of(kind, error.codes, error.message, error.details, now_s),
    )  # fmt: skip


def _address_remedy(response: Response) -> str:
    """Return what to do about a wrong base URL; queries, which may hold keys, are left out."""
    asked = _plain_address(response.url)
    where = "set the provider's base URL (base_url in the catalog, OPENAI_BASE_URL, "
    where += "ANTHROPIC_BASE_URL)"
    location = response.headers.get("location", "")
    if 300 <= response.status < 400 and location:
        target = _plain_address(location, response.url)
        return f"{asked} redirects to {target}, which is not followed; {where} to where it leads"
    return f"{asked} is no endpoint; {where} to what precedes the endpoint's path"


def _plain_address(url: str, base: str = "") -> str:
    """Return the address without user, password and query; a redirect's may be any text."""
    try:
        parts = urlsplit(urljoin(base, url))
    except ValueError:
        return "an address that is none"
    plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return plain[:MESSAGE_LIMIT]


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error body says. `codes` begin with the most specific one."""

    codes: list[str]
    status: int | None
    message: str
    request_id: str | None
    details: dict[str, object]


def read_error(body: object) -> ErrorBody:
    """Read a decoded error body.

    Shapes: `{"error": {...}}` (OpenAI, Anthropic), the same in a list (Google), `{"error": "..."}`,
    a bare `{"message", "type", "code"}` (vLLM, Mistral, Cohere), `{"detail": ...}` (FastAPI).
    """
    if isinstance(body, list) and body:
        body = body[0]
    outer = fields_of(body)
    raw = outer.get("error", outer)
    inner = fields_of(raw)
    details = fields_of(inner.get("details"))
    named = [details.get("error_code"), inner.get("code"), inner.get("type"), inner.get("status")]
    numbers = [value for value in named if isinstance(value, int) and 400 <= value <= 599]
    message = raw if isinstance(raw, str) else inner.get("message")
    if not isinstance(message, str):
        message = _detail(outer.get("detail"))
    request = outer.get("request_id")
    return ErrorBody(
        codes=[value for value in named if isinstance(value, str)],
        status=numbers[0] if numbers else None,
        message=message,
        request_id=request if isinstance(request, str) else None,
        details=details,
    )


def _detail(detail: object) -> str:
    """Return FastAPI's reason, without the `input` that it repeats."""
    if isinstance(detail, str):
        return detail
    reasons = [fields_of(item) for item in detail] if isinstance(detail, list) else []
    return "; ".join(f"{reason.get('loc')}: {reason.get('msg')}" for reason in reasons)


def fault(status: int, error: ErrorBody) -> Fault:
    """Choose our error: by the first code we know, else by the status, else by the text."""
    for code in error.codes:
        if code in _CODES:
            return _CODES[code]
    if status == 404 or "not_found_error" in error.codes:
        return _NO_MODEL if _NAMES_MODEL.search(_PATHS.sub("", error.message)) else _NO_ENDPOINT
    if 300 <= status < 400:
        return _NO_ENDPOINT
    if status in _STATUSES:
        return _STATUSES[status]
    if status >= 500 or (status < 400 and "invalid_request_error" not in error.codes):
        return _FAULT
    for pattern, found in _TEXTS:
        if pattern.search(error.message):
            return found
    return _REFUSED


def scrubbed(message: str, private: Iterable[str], secret: str) -> str:
    """Return the message without keys and the request's texts, at most 500 characters."""
    for text in private:
        # A vendor may cut or escape what it repeats, so we look for the first run of plain text.
        start = re.search(r"[^\s\"'\\][^\"'\\\n\r\t]{7,11}", text)
        at = message.find(start.group()) if start else -1
        if at >= 0:
            message = message[:at] + "[...]"
    message = masked_keys(message[:_MASKED_CHARS], secret)
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 3] + "..."


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the vendor's request id: `x-request-id` (OpenAI) or `request-id` (Anthropic)."""
    return headers.get("x-request-id") or headers.get("request-id")


def without_key(response: Response, secret: str) -> Response:
    """Return the response with keys masked in its request ids; a proxy may put one there."""
    shown = {}
    for name in ("x-request-id", "request-id"):
        given = response.headers.get(name, "")
        if (masked := masked_keys(given, secret)) != given:
            shown[name] = masked
    if not shown:
        return response
    headers = {name.lower(): value for name, value in response.headers.items()}
    return replace(response, headers=headers | shown)


def masked_or_none(name: str | None, secret: str) -> str | None:
    """Return the name with keys masked; None where there is none."""
    return None if name is None else masked_keys(name, secret)


def unusable(response: Response, why: str) -> InvalidOutput:
    """Return the InvalidOutput for a 200 without an answer; it may be billed."""
    return InvalidOutput(
        f"the answer is unusable: {why}",
        http_status=response.status,
        billed=None,
        request_id=request_id(response.headers),
    )
