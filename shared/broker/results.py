"""The record that Celery's result backend would have stored of a job."""

from __future__ import annotations

from collections.abc import Sequence
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


def celery_value(result: Result) -> Any:
    """Return what Celery's backend would have encoded as the task's result.

    SUCCESS: the result as `Result.as_json()` returns it. FAILURE (failed, past the deadline): a
    JobFailed with its fields. REVOKED: Celery's own TaskRevokedError.
    """
    match celery_state(result):
        case "SUCCESS":
            return result.as_json()
        case "REVOKED":
            code = result.error.code if result.error is not None else "cancelled"
            return _failure("TaskRevokedError", "celery.exceptions", [code])
    error = result.as_json()["error"] or {}
    message, code = error.get("message", ""), error.get("code", "internal")
    return _failure("JobFailed", "headgate", [message, code, result.id, result.status, error])


def _failure(name: str, module: str, args: list[Any]) -> dict[str, Any]:
    return {"exc_type": name, "exc_message": args, "exc_module": module}


def celery_record(
    result: Result,
    *,
    group: str | None = None,
    parent_id: str | None = None,
    children: Sequence[Any] = (),
) -> bytes:
    """Return what Celery's Redis backend would have stored, for `AsyncResult(id)` of any app.

    `group` and `parent_id`: as in the headers of the job's message. `children`: the tasks that were
    sent when the job ended, as tuples of Celery's.
    """
    fields = {
        "status": celery_state(result),
        "result": celery_value(result),
        "traceback": None,
        "children": [*children],
        "date_done": (result.finished_at or "").replace("Z", "+00:00") or None,
    }
    if group:
        fields["group_id"] = group
    if parent_id:
        fields["parent_id"] = parent_id
    return orjson.dumps({**fields, "task_id": result.id})


def result_in(record: bytes, job_id: str) -> Result | None:
    """Return the result in this record of a job that succeeded; None for any other record.

    Other ends lose fields there. Also None for what no worker of ours wrote.
    """
    try:
        fields = orjson.loads(record)
        if fields["status"] != "SUCCESS" or fields["result"]["id"] != job_id:
            return None
        result = Result.from_json(fields["result"])
    except (ValueError, TypeError, KeyError):
        return None
    return result if result.ended else None


def refusal_record(job_id: str, reason: str) -> bytes:
    """Return what Celery finds under the id of a message that was refused with this reason."""
    code: ErrorCode = "internal" if reason.startswith(GIVEN_UP) else "unreadable"
    refused = Result(
        job_id, "failed", "", error=ErrorReport(code, reason, False), finished_at=rfc3339(now_ms())
    )
    return celery_record(refused)
