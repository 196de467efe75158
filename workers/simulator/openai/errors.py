"""Errors in OpenAI's form, with OpenAI's texts."""

import math

import orjson

from headgate.workers.simulator.limits import SimulatedRefusal
from headgate.workers.simulator.request import Problem

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
MESSAGES = {
    400: "We could not parse the request as it was sent. (simulated)",
    401: "Incorrect API key provided. (simulated)",
    403: "You are not allowed to sample from this model. (simulated)",
    404: "The requested resource does not exist. (simulated)",
    429: "Rate limit reached for requests. (simulated)",
    500: "The server had an error while processing your request. (simulated)",
    503: "The server is currently overloaded. Please try again later. (simulated)",
    529: "The server is overloaded. (simulated)",
}
CODES = {
    401: "invalid_api_key",
    403: "model_not_allowed",
    429: "rate_limit_exceeded",
    503: "server_is_overloaded",
}

#: The errors of faults that are no bare status, by the fault's kind.
KINDS = {
    "quota": Problem(
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
        code="insufficient_quota",
    ),
    "slow_down": Problem(
        429,
        "rate_limit_error",
        "Slow down: your requests have grown faster than can be served. (simulated)",
        code="slow_down",
    ),
    "flex": Problem(
        429,
        "rate_limit_error",
        "No resources are available for flex processing right now. (simulated)",
        code="resource_unavailable",
    ),
    "filter-400": Problem(
        400,
        "invalid_request_error",
        "Your request was rejected by the content filter.",
        code="content_filter",
        param="messages",
    ),
}


def problem(kind: str, model: str, until: str | None = None) -> Problem:
    """Return the error of a fault of this kind (or status). OpenAI does not use `until`."""
    if kind in KINDS:
        return KINDS[kind]
    if kind == "context":
        return Problem(
            400,
            "invalid_request_error",
            f"This model's maximum context length is exceeded by your messages ({model}). "
            "Please reduce the length of the messages.",
            code="context_length_exceeded",
            param="messages",
        )
    status = int(kind)
    return Problem(
        status,
        TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        MESSAGES.get(status, f"Simulated error {status}."),
        code=CODES.get(status),
    )


def invalid(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """Return the refusal of a body that breaks a rule."""
    return Problem(400, "invalid_request_error", message, code=code, param=param)


def bad_json() -> Problem:
    """Return the refusal of a body that is not JSON."""
    return invalid(
        "We could not parse the JSON body of your request. The OpenAI API expects a JSON payload."
    )


def unknown_model(model: str) -> Problem:
    """Return the refusal of a model that does not exist here."""
    return Problem(
        404,
        "invalid_request_error",
        f"The model `{model}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def unknown_path(method: str, path: str) -> Problem:
    """Return the refusal of an address that does not exist."""
    return Problem(
        404, "invalid_request_error", f"Invalid URL ({method} {path})", code="unknown_url"
    )


def wrong_method(method: str, path: str) -> Problem:
    """Return the refusal of a method that the address does not take."""
    return Problem(
        405,
        "invalid_request_error",
        f"Not allowed to {method} on {path}.",
        code="method_not_supported",
    )


def too_large(limit_bytes: int) -> Problem:
    """Return the refusal of a body above the limit."""
    return Problem(413, TYPES[413], f"Request body is larger than {limit_bytes} bytes.")


def wrong_key(given: str) -> Problem:
    """Return the refusal of a caller. It shows only both ends of the key, as OpenAI does."""
    if not given:
        return Problem(401, "invalid_request_error", "You didn't provide an API key.")
    shown = f"{given[:3]}***{given[-2:]}" if len(given) > 8 else "***"
    return Problem(
        401,
        "invalid_request_error",
        f"Incorrect API key provided: {shown}.",
        code="invalid_api_key",
    )


def over_limit(model: str, refusal: SimulatedRefusal) -> Problem:
    """Return the refusal of a request that its bucket cannot take now, or ever."""
    measure = "RPM" if refusal.kind == "requests" else "TPM"
    head = f"{model} in organization org-simulated on {refusal.kind} per min ({measure}): "
    if refusal.wait_s is None:
        return Problem(
            429,
            refusal.kind,
            f"Request too large for {head}Limit {refusal.per_minute}, "
            f"Requested {refusal.amount}. The input or output tokens must be reduced in order "
            "to run successfully.",
            code="rate_limit_exceeded",
        )
    wait_ms = max(1, math.ceil(refusal.wait_s * 1000))
    wait = f"{wait_ms}ms" if wait_ms < 1000 else f"{wait_ms / 1000:g}s"
    return Problem(
        429,
        refusal.kind,
        f"Rate limit reached for {head}Limit {refusal.per_minute}, Used {refusal.used}, "
        f"Requested {refusal.amount}. Please try again in {wait}.",
        code="rate_limit_exceeded",
        retry_after_s=str(math.ceil(refusal.wait_s) or 1),
        retry_after_ms=str(wait_ms),
    )


def error_body(error: Problem, request_id: str) -> bytes:
    """Return the JSON body of an error. OpenAI sends the request id only in a header."""
    fields = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    return orjson.dumps({"error": fields})
