"""Answers over HTTP: JSON, and errors in the form of the caller's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from headgate.producer.dialects import errors
from headgate.producer.gateway.calls import headers
from headgate.producer.gateway.calls.faults import CallFault
from headgate.shared.job.encoding import dumps
from headgate.shared.job.request import Dialect

JSON = "application/json"


def json_response(
    body: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, status: int = 200
) -> Response:
    """Return an answer with this JSON object."""
    return Response(dumps(body), status, headers=headers, media_type=JSON)


def refusal(
    dialect: Dialect, fault: CallFault, request_id: str, facts: Mapping[str, str] | None = None
) -> Response:
    """Return the answer that says what went wrong. `facts`: the headers of a job that failed."""
    status = errors.status_of(fault.code, dialect)
    body = errors.error_body(
        dialect, fault.code, fault.message, param=fault.param, request_id=request_id
    )
    told = {**(facts or {}), **headers.of_fault(fault, status, request_id)}
    return json_response(body, told, status=status)
