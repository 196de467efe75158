"""Errors in Anthropic's words and shape."""

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


def problem(kind: str, model: str, until: str | None = None) -> Problem:
    """The error that a fault of this kind (or status) is told with.

    A spending limit that users set themselves is told with the day on which it ends, and with 400.
    """
    match kind:
        case "quota" if until is not None:
            return Problem(
                400,
                "invalid_request_error",
                "You have reached your specified API usage limits. You will regain access on "
                f"{until} at 00:00 UTC.",
            )
        case "quota":
            return Problem(
                429,
                "rate_limit_error",
                "Your organization has reached its spend limit.",
                code="enforced_spend_limit_reached",
            )
        case "slow_down":
            return Problem(
                429,
                "rate_limit_error",
                "This request would exceed your organization's maximum usage increase rate for "
                "input tokens per minute. Please scale up your input tokens usage more gradually "
                "to stay within the acceleration limit.",
                code="ramp_limit_exceeded",
            )
        case "flex":  # a tier that Anthropic does not have
            return problem("529", model)
        case "context":
            return invalid(f"prompt is too long: above the maximum of {model}", None, None)
        case "filter-400":
            return invalid("Output blocked by content filtering policy", None, None)
        case _:
            status = int(kind)
            return Problem(
                status,
                TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error"),
                MESSAGES.get(status, f"Simulated error {status}."),
            )


def invalid(message: str, param: str | None, code: str | None) -> Problem:
    """The refusal of a body that breaks a rule; Anthropic names the field in the text."""
    named = f"{param}: {message}" if param else message
    return Problem(400, "invalid_request_error", named)


def bad_json() -> Problem:
    """The refusal of a body that is not JSON."""
    return invalid("The request body is not valid JSON", None, None)


def unknown_model(model: str) -> Problem:
    """The refusal of a model that does not exist here."""
    return Problem(404, "not_found_error", f"model: {model}")


def unknown_path(method: str, path: str) -> Problem:
    """The refusal of an address that is none."""
    return Problem(404, "not_found_error", "Not found")


def wrong_method(method: str, path: str) -> Problem:
    """The refusal of a method that the address does not take."""
    return Problem(405, "invalid_request_error", "Method Not Allowed")


def too_large(limit_bytes: int) -> Problem:
    """The refusal of a body above the limit."""
    return Problem(413, TYPES[413], "Request exceeds the maximum size")


def wrong_key(given: str) -> Problem:
    """The refusal of a caller."""
    said = MESSAGES[401] if given else "x-api-key header is required"
    return Problem(401, TYPES[401], said)


def over_limit(model: str, refusal: SimulatedRefusal) -> Problem:
    """The refusal of a request that its bucket cannot take now, or ever."""
    unit = refusal.kind.replace("-", " ")
    return Problem(
        429,
        "rate_limit_error",
        f"This request would exceed your organization's rate limit of {refusal.per_minute} "
        f"{unit} per minute (model: {model}).",
        retry_after_s=None if refusal.wait_s is None else str(math.ceil(refusal.wait_s) or 1),
    )


def error_body(told: Problem, request_id: str) -> bytes:
    """The JSON body of an error, with the request id."""
    error: dict[str, object] = {"type": told.type, "message": told.message}
    if told.code is not None:
        error["details"] = {"error_code": told.code}
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id})
