"""One job over HTTP: its result, and what cannot be the id of a job."""

from __future__ import annotations

from typing import Any

from headgate.producer.client.http.address import job_path
from headgate.producer.client.http.connections import Connections
from headgate.producer.dialects.own_errors import error_from
from headgate.producer.errors import UnknownJob
from headgate.shared.errors import HeadgateError
from headgate.shared.job.result import Result

LONGEST_ID = 128


def no_job(job_id: str) -> None:
    """Raise UnknownJob for a text that is no part of an address, and so no id of a job."""
    is_path = job_id in ("", ".", "..") or "/" in job_id
    if is_path or len(job_id) > LONGEST_ID or not job_id.isprintable():
        raise UnknownJob(job_id)


def result_in(fields: dict[str, Any]) -> Result:
    """Return the result in the gateway's answer."""
    return Result.from_json(fields)


def end_in(fields: dict[str, Any]) -> Result | HeadgateError:
    """Return the result of one of many jobs, or why it has none."""
    is_error = "error" in fields and "status" not in fields
    return error_from(fields) if is_error else result_in(fields)


async def shown_result(at: Connections, job_id: str) -> Result:
    """Return the result as it is now."""
    answer = await at.call("GET", job_path(job_id))
    return result_in(answer.body)
