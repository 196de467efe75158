"""Errors that only a producer meets; the tree itself is drawn in shared/errors.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import ClassVar

from headgate.shared.errors import (
    ErrorCode,
    HeadgateError,
    InvalidRequest,
    JobFailed,
    Unreachable,
    shown,
)
from headgate.shared.job.result import Result


class ResultExpired(HeadgateError):
    """The job has ended and its result is no longer kept; its audit line is."""

    def __init__(self, job_id: str, status: str, finished_at: str | None) -> None:
        super().__init__(
            f"job {job_id} {status} at {finished_at}; its result has expired "
            "(HEADGATE_RESULT_TTL_S), its audit line is kept"
        )
        self.job_id = job_id
        self.status = status
        self.finished_at = finished_at


class IdempotencyConflict(InvalidRequest):
    """The key stands for another request, that of the job `job_id`.

    `on_record`: of many requests, jobs that were queued before another program took the key.
    """

    http_status: ClassVar[int] = 409

    def __init__(self, key: str, job_id: str, on_record: Sequence[str] = ()) -> None:
        remedy = f"job {job_id} has this key, and its request is another one; give another key"
        if on_record:
            remedy += f"; {len(on_record)} jobs of the same call are on record and will be run"
        super().__init__("idempotency_key", key, remedy)
        self.key = key
        self.job_id = job_id
        self.on_record = tuple(on_record)


class StreamBroken(HeadgateError):
    """The pieces of the answer given so far are void: another worker took the job over.

    The job goes on: ask for its stream again, which begins with the new answer, or for its result.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the answer of job {job_id} begins anew: what was streamed is void")
        self.job_id = job_id


class SubmitInterrupted(Unreachable):
    """A server was lost while jobs were queued: some are on record, and will run.

    `job_ids`: on record, in the order of the requests; submitting them again would pay twice.
    `unsure_ids`: a commit whose answer was lost; ask for their results to know. All later
    requests were not queued.
    """

    def __init__(
        self, server: str, reason: str, job_ids: Sequence[str], unsure_ids: Sequence[str] = ()
    ) -> None:
        remedy = f"{_counted(job_ids)} on record and will be run: do not submit again"
        if unsure_ids:
            remedy = f"{_counted(unsure_ids)} perhaps on record: ask before you submit again"
            if job_ids:
                remedy += f"; {_counted(job_ids)} surely so"
        super().__init__(server, reason, remedy)
        self.job_ids = tuple(job_ids)
        self.unsure_ids = tuple(unsure_ids)


def _counted(ids: Sequence[str]) -> str:
    if len(ids) == 1:
        return f"job {ids[0]} is"
    return f"{len(ids)} jobs ({ids[0]} to {ids[-1]}) are" if ids else "no job is"


def answer_of(result: Result) -> Result:
    """The result if its job succeeded; raises JobFailed with the facts if not."""
    if result.status == "succeeded":
        return result
    error = asdict(result.error) if result.error else {}
    message, code = error.get("message", ""), error.get("code", "internal")
    raise JobFailed(message, code, result.id, result.status, error)


class TierLimit(HeadgateError):
    """A limit of the caller refused a request that asks for it (`on_limit`); nothing was queued.

    `limit`: which one. `retry_after_s`: until it lets the next one through. `index`: which of many
    requests. `locked_out`: so many were refused that none is looked at until then.
    """

    code: ClassVar[ErrorCode] = "tier_limit"

    def __init__(
        self,
        limit: str,
        retry_after_s: float,
        index: int | None = None,
        *,
        locked_out: bool = False,
    ) -> None:
        which = "" if index is None else f"requests[{index}]: "
        super().__init__(f"{which}{limit}: try again in {retry_after_s:g} s")
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.index = index
        self.locked_out = locked_out


class UnknownJob(HeadgateError):
    """No job of this id is on record."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {shown(job_id)} on record; ids are printed by submit and jobs")
        self.job_id = job_id


class JobTimeout(HeadgateError):
    """The job has not ended within `timeout_s`; it goes on, and can be asked for again."""

    def __init__(self, job_id: str, timeout_s: float) -> None:
        super().__init__(f"job {job_id} has not ended after {timeout_s:g} s; it goes on")
        self.job_id = job_id
        self.timeout_s = timeout_s
