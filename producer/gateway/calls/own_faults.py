"""What went wrong at an address of ours, as its answer says it: OpenAI's fields, and our facts."""

from __future__ import annotations

import re

from starlette.responses import Response

from headgate.producer.dialects.errors import error_body, status_of
from headgate.producer.dialects.fields import Fields
from headgate.producer.dialects.own_errors import error_facts
from headgate.producer.errors import IdempotencyConflict
from headgate.producer.gateway.calls import headers
from headgate.producer.gateway.calls.faults import CallFault, CallRefused, fault_of
from headgate.producer.gateway.calls.replies import json_response
from headgate.shared.errors import HeadgateError, InvalidRequest, WrongUse
from headgate.shared.job.request import KEY_ID

_OF_A_KEY = re.compile(rf"^{KEY_ID}[0-9a-f]{{12}}/")
"""What the gateway puts before the idempotency keys of a caller."""


def own_fault_of(error: HeadgateError) -> CallFault:
    """Return what the error means for the caller; fields have the names of a request's fields."""
    match error:
        case IdempotencyConflict():
            return CallFault("conflict", str(error), "idempotency_key")
        case InvalidRequest():
            return CallFault(error.code, str(error), error.field)
    if type(error) is WrongUse:
        return CallFault("invalid_request", str(error), error.field)
    return fault_of(error)


def own_error(error: HeadgateError) -> Fields:
    """Return the error as a body has it under `error`."""
    error = _as_given(error)
    fault = own_fault_of(error)
    body: Fields = error_body("openai", fault.code, fault.message, param=fault.param)["error"]
    return {**body, "headgate": _facts(error)}


def own_refusal(error: HeadgateError, request_id: str) -> Response:
    """Return the answer that says what went wrong."""
    fault = own_fault_of(error)
    status = status_of(fault.code, "openai")
    told = headers.of_fault(fault, status, request_id)
    return json_response({"error": own_error(error)}, told, status=status)


def _as_given(error: HeadgateError) -> HeadgateError:
    """Return the error with the idempotency key as the caller gave it."""
    if not isinstance(error, IdempotencyConflict):
        return error
    return IdempotencyConflict(_OF_A_KEY.sub("", error.key), error.job_id, error.on_record)


def _facts(error: HeadgateError) -> Fields:
    if isinstance(error, CallRefused):
        facts = {"code": error.code, "param": error.param, "retry_after_s": error.retry_after_s}
        return {"kind": "CallRefused", **facts}
    return error_facts(error)
