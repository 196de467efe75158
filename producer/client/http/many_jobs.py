"""Many jobs over HTTP: submit them, or cancel them, in as many calls as it takes."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence

from headgate.producer.callers.refused import KeyRefused
from headgate.producer.client.http.connections import Connections
from headgate.producer.client.http.job_bodies import Slice, renamed
from headgate.producer.client.http.one_job import end_in, no_job
from headgate.producer.client.many.ends import result_of
from headgate.producer.errors import IdempotencyConflict, SubmitStopped, TierLimit, UnknownJob
from headgate.shared.errors import HeadgateError, InvalidRequest
from headgate.shared.job.encoding import dumps
from headgate.shared.job.result import Result

_PLACE = re.compile(r"\Ajobs\[(\d+)\]", re.ASCII)

MOST_IDS = 1000

MOST_WAIT_S = 86_400.0
"""No gateway waits longer."""


async def submit_all(at: Connections, parts: Sequence[Slice], samples: int) -> list[str]:
    """Submit the requests of all parts; return the ids of their jobs in order.

    Those of one part are queued together or not at all. Raises SubmitStopped if a later part is
    refused.
    """
    ids: list[str] = []
    for part in parts:
        try:
            ids += await _submit_part(at, part, samples)
        except HeadgateError as error:
            if not ids:
                raise
            found = [*ids, *getattr(error, "job_ids", ())]
            raise SubmitStopped(found, getattr(error, "unsure_ids", ()), error) from error
    return ids


async def _submit_part(at: Connections, part: Slice, samples: int) -> list[str]:
    headers = {"idempotency-key": uuid.uuid4().hex}
    try:
        body = part.body(samples)
        answer = await at.call("POST", "/v1/jobs", body, headers=headers, submits=True)
    except IdempotencyConflict:
        raise
    except InvalidRequest as error:
        raise renamed(error, part.first) from None
    except TierLimit as error:
        index = None if error.index is None else error.index + part.first
        raise TierLimit(
            error.limit, error.retry_after_s, index, locked_out=error.locked_out
        ) from None
    except KeyRefused as error:
        message = _PLACE.sub(lambda at: f"requests[{int(at[1]) + part.first}]", error.message)
        raise KeyRefused(error.http_status, error.code, message, error.retry_after_s) from None
    return [str(one["id"]) for one in answer.body["jobs"]]


async def results_now(at: Connections, ids: Sequence[str]) -> list[Result]:
    """Return results as they are now, in order; raise for the first id that has none."""
    wanted = [job_id for job_id in dict.fromkeys(ids) if _may_be_job(job_id)]
    found: dict[str, Result | HeadgateError] = {}
    for begin in range(0, len(wanted), MOST_IDS):
        asked = {"ids": wanted[begin : begin + MOST_IDS], "wait_s": 0, "open": True}
        answer = await at.call("POST", "/v1/jobs/wait", dumps(asked))
        found |= {job_id: end_in(end) for job_id, end in answer.body["results"].items()}
    ends = [found.get(job_id) or UnknownJob(job_id) for job_id in ids]
    return [result_of(end) for end in ends]


async def cancel_all(at: Connections, ids: Sequence[str], timeout_s: float) -> list[Result]:
    """Cancel the jobs; return their results in order.

    `timeout_s`: how long to wait for the workers of running jobs. Raises UnknownJob for the first
    unknown id, after all other jobs are cancelled.
    """
    until = time.monotonic() + timeout_s
    ends: list[Result | HeadgateError] = []
    for begin in range(0, len(ids), MOST_IDS):
        left_s = max(0.0, until - time.monotonic())
        ends += await _cancel_part(at, ids[begin : begin + MOST_IDS], left_s)
    return [result_of(end) for end in ends]


async def _cancel_part(
    at: Connections, ids: Sequence[str], timeout_s: float
) -> list[Result | HeadgateError]:
    good = [job_id for job_id in ids if _may_be_job(job_id)]
    found: dict[str, Result | HeadgateError] = {}
    if good:
        timeout_s = min(timeout_s, MOST_WAIT_S)
        body = dumps({"ids": good, "timeout_s": timeout_s})
        answer = await at.call("POST", "/v1/jobs/cancel", body, wait_s=timeout_s)
        for job_id, end in zip(good, answer.body["results"], strict=True):
            found[job_id] = end_in(end)
    return [found.get(job_id) or UnknownJob(job_id) for job_id in ids]


def _may_be_job(job_id: str) -> bool:
    try:
        no_job(job_id)
    except UnknownJob:
        return False
    return True
