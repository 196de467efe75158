"""Answers over HTTP: JSON, and errors in the form of the caller's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from headgate.producer.dialects import errors
from headgate.producer.gateway import headers
from headgate.producer.gateway.faults import Fault
from headgate.shared.job.encoding import dumps
from headgate.shared.job.request import Dialect

JSON = "application/json"


def json_response(
    body: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, status: int = 200
) -> Response:
    """Return an answer with this JSON object."""
    return Response(dumps(body), status, headers=headers, media_type=JSON)


def refusal(dialect: Dialect, fault: Fault, request_id: str) -> Response:
    """Return the answer that says what went wrong."""
    body = error_body(dialect, fault, request_id)
    status = errors.status_in(dialect, fault.code, fault.status)
    return json_response(body, headers.of_fault(fault, request_id), status=status)


def error_body(dialect: Dialect, fault: Fault, request_id: str) -> dict[str, Any]:
    """Return the error in the form of the dialect."""
    return errors.body(
        dialect, fault.code, fault.message, status=fault.status, param=fault.param,
        request_id=request_id, job_id=fault.job_id,
    )  # fmt: skip
