"""The handle of a job, which `submit` returns: the job's id and the client that it came from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from headgate.producer.client.arguments import timeout_of
from headgate.producer.client.pieces import TextPiece
from headgate.producer.client.response_format import ResponseFormat, parsed_by
from headgate.producer.errors import answer_of
from headgate.shared.job.result import Result, Status


class JobClient(Protocol):
    """What a Job asks of its client; see Client."""

    def result(self, job_id: str, *, wait: bool = False, timeout_s: float | None = None) -> Result:
        """Return the result of the job."""

    def status(self, job_id: str) -> Status:
        """Return the status of the job."""

    def cancel(self, job_id: str) -> Result:
        """Cancel the job."""

    def retry(self, job_id: str) -> Job:
        """Queue the job again."""

    def stream(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        pulse_s: float | None = None,
        after: int | str = 0,
    ) -> Iterator[TextPiece]:
        """Yield the text of the answer piece by piece."""


class AsyncJobClient(Protocol):
    """What an AsyncJob asks of its client; see AsyncClient."""

    async def result(
        self, job_id: str, *, wait: bool = False, timeout_s: float | None = None
    ) -> Result:
        """Return the result of the job."""

    async def status(self, job_id: str) -> Status:
        """Return the status of the job."""

    async def cancel(self, job_id: str) -> Result:
        """Cancel the job."""

    async def retry(self, job_id: str) -> AsyncJob:
        """Queue the job again."""

    def stream(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        pulse_s: float | None = None,
        after: int | str = 0,
    ) -> AsyncGenerator[TextPiece, None]:
        """Yield the text of the answer piece by piece."""


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted job. Its `id` is also its Celery task id.

    `response_format`: what the result's `parsed` is made by, if it was given to `submit`.
    """

    id: str
    client: JobClient
    response_format: ResponseFormat | None = None

    def result(self, timeout_s: float | None = None, *, timeout: float | None = None) -> Result:
        """Wait until the job has ended; return its result.

        timeout_s: how many seconds to wait at most; None for no limit. `timeout` is the same.

        Raises JobFailed if the job did not succeed, JobTimeout if it has not ended in time, and
        ResultExpired and Unreachable.
        """
        limit_s = timeout_of(timeout_s, timeout)
        return answer_of(self.wait(limit_s))

    def wait(self, timeout_s: float | None = None) -> Result:
        """Wait until the job has ended, however it ended; return its result.

        timeout_s: how many seconds to wait at most; None for no limit.

        A job that did not succeed has a Result with an `error`. Raises JobTimeout, ResultExpired
        and Unreachable.
        """
        ended = self.client.result(self.id, wait=True, timeout_s=timeout_s)
        return parsed_by(ended, self.response_format)

    def stream(
        self,
        *,
        timeout_s: float | None = None,
        pulse_s: float | None = None,
        after: int | str = 0,
    ) -> Iterator[TextPiece]:
        """Yield the text of the answer piece by piece; see `Client.stream`."""
        return self.client.stream(self.id, timeout_s=timeout_s, pulse_s=pulse_s, after=after)

    def status(self) -> Status:
        """Return the status of the job, also if its result has expired."""
        return self.client.status(self.id)

    def cancel(self) -> Result:
        """Cancel the job and return its result; see `Client.cancel`."""
        return self.client.cancel(self.id)

    def retry(self) -> Job:
        """Queue the job again if it failed or expired; see `Client.retry`."""
        return replace(self.client.retry(self.id), response_format=self.response_format)


@dataclass(frozen=True, slots=True)
class AsyncJob:
    """A submitted job. Its `id` is also its Celery task id.

    `response_format`: what the result's `parsed` is made by, if it was given to `submit`.
    """

    id: str
    client: AsyncJobClient
    response_format: ResponseFormat | None = None

    async def result(
        self,
        timeout_s: float | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # Celery's name, an alias
    ) -> Result:
        """Wait until the job has ended; return its result.

        timeout_s: how many seconds to wait at most; None for no limit. `timeout` is the same.

        Raises JobFailed if the job did not succeed, JobTimeout if it has not ended in time, and
        ResultExpired and Unreachable.
        """
        limit_s = timeout_of(timeout_s, timeout)
        return answer_of(await self.wait(limit_s))

    async def wait(self, timeout_s: float | None = None) -> Result:
        """Wait until the job has ended, however it ended; return its result.

        timeout_s: how many seconds to wait at most; None for no limit.

        A job that did not succeed has a Result with an `error`. Raises JobTimeout, ResultExpired
        and Unreachable.
        """
        ended = await self.client.result(self.id, wait=True, timeout_s=timeout_s)
        return parsed_by(ended, self.response_format)

    def stream(
        self,
        *,
        timeout_s: float | None = None,
        pulse_s: float | None = None,
        after: int | str = 0,
    ) -> AsyncGenerator[TextPiece, None]:
        """Yield the text of the answer piece by piece; see `AsyncClient.stream`."""
        return self.client.stream(self.id, timeout_s=timeout_s, pulse_s=pulse_s, after=after)

    async def status(self) -> Status:
        """Return the status of the job, also if its result has expired."""
        return await self.client.status(self.id)

    async def cancel(self) -> Result:
        """Cancel the job and return its result; see `AsyncClient.cancel`."""
        return await self.client.cancel(self.id)

    async def retry(self) -> AsyncJob:
        """Queue the job again if it failed or expired; see `AsyncClient.retry`."""
        return replace(await self.client.retry(self.id), response_format=self.response_format)
