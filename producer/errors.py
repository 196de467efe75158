"""Errors that only a producer meets. `headgate` exports them all.

HeadgateError                   shared/errors.py draws the whole tree
|-- WrongUse
|   `-- InvalidRequest
|       `-- IdempotencyConflict the key belongs to a job that asked for something else
|-- Unreachable
|   `-- SubmitInterrupted       a server was lost while jobs were queued
|-- SubmitStopped               submitting in slices ended early; some jobs are on record
|-- TierLimit                   a limit of the caller refused a request with on_limit="refuse"
|-- UnknownJob                  no job of that id is on record
|-- JobTimeout                  the job did not end in time; it goes on
|-- JobFailed
|   `-- MapFailed               of several jobs together at least one failed
|-- ResultExpired               the job has ended and its result was deleted
`-- StreamBroken                the streamed text is void: another worker took over the job
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from headgate.shared.errors import (
    ErrorCode,
    HeadgateError,
    InvalidRequest,
    JobFailed,
    Unreachable,
    shown,
)
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import Result, Status
from headgate.shared.job.waiting_for import WaitingFor


class IdempotencyConflict(InvalidRequest):
    """The idempotency key belongs to another job, whose request was not the same.

    `key`: the key. `job_id`: the job that has it. `on_record`: with `submit_many`, the jobs of the
    same call that are on record already and will be run.
    """

    http_status: ClassVar[int] = 409

    def __init__(self, key: str, job_id: str, on_record: Sequence[str] = ()) -> None:
        remedy = f"job {job_id} has this key for a different request; use another key"
        if on_record:
            remedy += f"; {len(on_record)} jobs of the same call are on record and will be run"
        super().__init__("idempotency_key", key, remedy)
        self.key = key
        self.job_id = job_id
        self.on_record = tuple(on_record)


class SubmitInterrupted(Unreachable):
    """A server was lost while jobs were queued. Some jobs are on record and will be run.

    `job_ids`: jobs on record, in the order of the requests; do not submit them again.
    `unsure_ids`: jobs whose commit was not confirmed; look up their results before you submit them
    again. Requests after these were not queued.
    """

    def __init__(
        self, server: str, reason: str, job_ids: Sequence[str], unsure_ids: Sequence[str] = ()
    ) -> None:
        remedy = f"{_counted(job_ids)} on record and will be run: do not submit again"
        if unsure_ids:
            remedy = f"{_counted(unsure_ids)} perhaps on record: look before you submit again"
            if job_ids:
                remedy += f"; {_counted(job_ids)} on record and will be run"
        super().__init__(server, reason, remedy)
        self.job_ids = tuple(job_ids)
        self.unsure_ids = tuple(unsure_ids)


class SubmitStopped(HeadgateError):
    """An error ended `submit_many` or `map` after some slices. Their jobs will be run.

    `job_ids`: jobs on record, in the order of the requests; do not submit them again.
    `unsure_ids`: jobs whose commit was not confirmed; look up their results before you submit them
    again. `__cause__`: the error, which may be the caller's own: of the requests' iterator, or of
    the callback.
    """

    def __init__(
        self, job_ids: Sequence[str], unsure_ids: Sequence[str] = (), cause: Exception | None = None
    ) -> None:
        why = str(cause) if isinstance(cause, HeadgateError) else type(cause).__name__
        super().__init__(f"{_counted(job_ids)} on record and will be run, the rest is not: {why}")
        self.job_ids = tuple(job_ids)
        self.unsure_ids = tuple(unsure_ids)


def _counted(ids: Sequence[str]) -> str:
    if len(ids) == 1:
        return f"job {ids[0]} is"
    return f"{len(ids)} jobs ({ids[0]} to {ids[-1]}) are" if ids else "no job is"


class TierLimit(HeadgateError):
    """A limit of the caller refused a request with `on_limit="refuse"`. Nothing was queued.

    `limit`: which limit. `retry_after_s`: seconds until the limit lets the next request through.
    `index`: with `submit_many`, the place of the request. `locked_out`: the caller had too many
    refusals, so all its requests are refused until then.
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
    """The job has not ended within `timeout_s` seconds. It goes on; ask for its result again.

    `waiting_for`: what the job waits for; None if it runs, or if that is not known. `job_ids`: of a
    wait for several jobs, all of them in order; `job_id` is the first one that has not ended.
    """

    def __init__(
        self,
        job_id: str,
        timeout_s: float,
        waiting_for: WaitingFor | None = None,
        job_ids: Sequence[str] = (),
    ) -> None:
        doing = "it goes on" if waiting_for is None else waiting_for.in_words(now_ms())
        super().__init__(f"job {job_id} has not ended after {timeout_s:g} s; {doing}")
        self.job_id = job_id
        self.timeout_s = timeout_s
        self.waiting_for = waiting_for
        self.job_ids = tuple(job_ids) or (job_id,)


class ResultExpired(HeadgateError):
    """The job has ended and its result was deleted after HEADGATE_KEEP_DAYS days.

    `status` and `finished_at` (RFC 3339 in UTC) are still known; the audit line is kept.
    """

    def __init__(self, job_id: str, status: Status, finished_at: str | None) -> None:
        super().__init__(
            f"job {job_id} {status} at {finished_at}; its result was deleted "
            "(HEADGATE_KEEP_DAYS), its audit line is kept"
        )
        self.job_id = job_id
        self.status: Status = status
        self.finished_at = finished_at


class StreamBroken(HeadgateError):
    """The text streamed so far is void: another worker took over the job.

    The job goes on. Throw the text away, then stream again to read the new answer.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"another worker took over job {job_id}: discard the streamed text and stream again"
        )
        self.job_id = job_id


class MapFailed(JobFailed):
    """Of the jobs of `map` at least one did not succeed. It has the facts of the first such job.

    `results`: the results of all jobs, in the order of the prompts.
    """

    def __init__(
        self,
        message: str = "",
        code: str = "internal",
        job_id: str = "",
        status: str = "failed",
        error: dict[str, Any] | None = None,
        results: list[Result] | None = None,
    ) -> None:
        super().__init__(message, code, job_id, status, error)
        self.results = results or []


def answer_of(result: Result) -> Result:
    """Return the result if its job succeeded; raise JobFailed with the facts if it did not."""
    if result.status == "succeeded":
        return result
    error = asdict(result.error) if result.error else {}
    message, code = error.get("message", ""), error.get("code", "internal")
    raise JobFailed(message, code, result.id, result.status, error)
