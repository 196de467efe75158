"""Errors in Anthropic's form, with Anthropic's texts."""

import math

import orjson

from headgate.workers.simulator.limits import SimulatedRefusal
from headgate.workers.simulator.request import Problem

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MESSAGES = {
    401: "invalid x-api-key",
    402: "Your credit balance is too low. (simulated)",
    403: "Your API key does not have permission to use this model. (simulated)",
    404: "Not found",
    429: "This request would exceed your organization's rate limit. (simulated)",
    500: "Internal server error",
    529: "Overloaded",
}

#: The errors of faults that are no bare status, by the fault's kind.
KINDS = {
    "quota": Problem(
        429,
        "rate_limit_error",
        "Your organization has reached its spend limit.",
        code="enforced_spend_limit_reached",
    ),
    "slow_down": Problem(
        429,
        "rate_limit_error",
        "This request would exceed your organization's maximum usage increase rate for "
        "input tokens per minute. Please scale up your input tokens usage more gradually "
        "to stay within the acceleration limit.",
        code="ramp_limit_exceeded",
    ),
    "filter-400": Problem(
        400, "invalid_request_error", "Output blocked by content filtering policy"
    ),
}


def problem(kind: str, model: str, until: str | None = None) -> Problem:
    """Return the error of a fault of this kind (or status).

    A spending limit that users set themselves is a 400 that names the day when it ends: `until`.
    """
    if kind == "quota" and until is not None:
        return invalid(
            "You have reached your specified API usage limits. You will regain access on "
            f"{until} at 00:00 UTC."
        )
    if kind in KINDS:
        return KINDS[kind]
    if kind == "context":
        return invalid(f"prompt is too long: above the maximum of {model}")
    status = 529 if kind == "flex" else int(kind)  # Anthropic has no flex tier
    return Problem(
        status,
        TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error"),
        MESSAGES.get(status, f"Simulated error {status}."),
    )


def invalid(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """Return the refusal of a body that breaks a rule. Anthropic names the field in the text."""
    named = f"{param}: {message}" if param else message
    return Problem(400, "invalid_request_error", named)


def bad_json() -> Problem:
    """Return the refusal of a body that is not JSON."""
    return invalid("The request body is not valid JSON")


def unknown_model(model: str) -> Problem:
    """Return the refusal of a model that does not exist here."""
    return Problem(404, "not_found_error", f"model: {model}")


def unknown_path(method: str, path: str) -> Problem:
    """Return the refusal of an address that does not exist."""
    return Problem(404, "not_found_error", "Not found")


def wrong_method(method: str, path: str) -> Problem:
    """Return the refusal of a method that the address does not take."""
    return Problem(405, "invalid_request_error", "Method Not Allowed")


def too_large(limit_bytes: int) -> Problem:
    """Return the refusal of a body above the limit."""
    return Problem(413, TYPES[413], "Request exceeds the maximum size")


def wrong_key(given: str) -> Problem:
    """Return the refusal of a caller."""
    reason = MESSAGES[401] if given else "x-api-key header is required"
    return Problem(401, TYPES[401], reason)


def over_limit(model: str, refusal: SimulatedRefusal) -> Problem:
    """Return the refusal of a request that its bucket cannot take now, or ever."""
    unit = refusal.kind.replace("-", " ")
    return Problem(
        429,
        "rate_limit_error",
        f"This request would exceed your organization's rate limit of {refusal.per_minute} "
        f"{unit} per minute (model: {model}).",
        retry_after_s=None if refusal.wait_s is None else str(math.ceil(refusal.wait_s) or 1),
    )


def error_body(error: Problem, request_id: str) -> bytes:
    """Return the JSON body of an error, with the request id."""
    fields: dict[str, object] = {"type": error.type, "message": error.message}
    if error.code is not None:
        fields["details"] = {"error_code": error.code}
    return orjson.dumps({"type": "error", "error": fields, "request_id": request_id})
