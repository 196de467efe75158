"""The record that Celery's result backend would have stored of a job."""

from __future__ import annotations

from typing import Any

import orjson

from headgate.shared.errors import ErrorCode
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.result import ErrorReport, Result

GIVEN_UP = "given up"
"""The beginning of the reason, for a job that took too many workers down."""

_CELERY_STATES = {"succeeded": "SUCCESS", "cancelled": "REVOKED"}


def celery_state(result: Result) -> str:
    """Return the state that Celery has for this end: SUCCESS, FAILURE or REVOKED.

    A job past its `deadline_s` is FAILURE. One past the `expires` of its message is REVOKED.
    """
    if result.error is not None and result.error.code == "expired":
        return "REVOKED"
    return _CELERY_STATES.get(result.status, "FAILURE")


def why_given_up(result: Result) -> str | None:
    """Return the reason if the job was given up, or None."""
    words = result.error.message if result.error is not None else ""
    return words if words.startswith(f"{GIVEN_UP}: ") else None


def celery_record(result: Result) -> bytes:
    """Return what Celery's Redis backend would have stored, for `AsyncResult(id)` of any app.

    SUCCESS holds the result as `Result.as_json()` returns it. FAILURE (failed, past the deadline)
    holds a JobFailed with its fields. REVOKED holds Celery's own TaskRevokedError.
    """
    state = celery_state(result)
    value: Any = result.as_json()
    if state == "FAILURE":
        error = value["error"] or {}
        value = {
            "exc_type": "JobFailed",
            "exc_module": "headgate",
            "exc_message": [
                error.get("message", ""), error.get("code", "internal"), result.id, result.status,
                error,
            ],
        }  # fmt: skip
    elif state == "REVOKED":
        value = {
            "exc_type": "TaskRevokedError",
            "exc_module": "celery.exceptions",
            "exc_message": [result.error.code if result.error is not None else "cancelled"],
        }
    return orjson.dumps(
        {
            "task_id": result.id,
            "status": state,
            "result": value,
            "traceback": None,
            "children": [],
            "date_done": result.finished_at,
        }
    )


def refusal_record(job_id: str, reason: str) -> bytes:
    """Return what Celery finds under the id of a message that was refused with this reason."""
    code: ErrorCode = "internal" if reason.startswith(GIVEN_UP) else "unreadable"
    refused = Result(
        job_id, "failed", "", error=ErrorReport(code, reason, False), finished_at=rfc3339(now_ms())
    )
    return celery_record(refused)
