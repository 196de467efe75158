"""Finds a caller's response. Of others', of unknown ones and of deleted ones it says the same."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from headgate.producer.callers.allowed import owns
from headgate.producer.callers.caller import Caller
from headgate.producer.client.operations import Operations
from headgate.producer.dialects.fields import Fields
from headgate.producer.dialects.responses.body import asked_of
from headgate.producer.dialects.responses.ids import job_of
from headgate.producer.dialects.responses.response import response
from headgate.producer.errors import UnknownJob
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.shared.job.request import Request
from headgate.shared.job.result import Result


class FoundResponse(NamedTuple):
    """A response on record: its id, the request of its job, and the job as it is now.

    `size`: characters of both on record.
    """

    id: str
    request: Request
    result: Result
    size: int = 0

    @property
    def job_id(self) -> str:
        """The id of the job."""
        return self.result.id

    @property
    def asked(self) -> Fields:
        """What the response repeats of its request."""
        return asked_of(self.request, self.result.model)

    def body(self, result: Result | None = None) -> Fields:
        """Return the response; `result`: the job as it is meanwhile."""
        return response((result or self.result).as_json(), self.asked)


async def find_response(
    operations: Operations, caller: Caller, given: str, *, param: str = "response_id"
) -> FoundResponse:
    """Return the response of this id; raise CallRefused with 404 if the caller has none.

    `param`: the field that names it.
    """
    job_id = job_of(given)
    if job_id is None:
        raise _not_found(given, param)
    try:
        found = await asyncio.to_thread(operations.job_on_record, job_id)
    except UnknownJob:
        raise _not_found(given, param) from None
    request = found.request
    is_theirs = owns(caller, request.tenant, request.user)
    if request.dialect != "responses" or found.is_unstored or not is_theirs:
        raise _not_found(given, param)
    return FoundResponse(given, request, found.result, found.size)


def _not_found(given: str, param: str) -> CallRefused:
    return CallRefused("not_found", f"no response with the id {given[:80]!r}", param=param)
