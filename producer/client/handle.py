"""The handle of a job, which `submit` returns: the job's id and the client that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headgate.producer.client.arguments import timeout_of
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


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted job. Its `id` is also its Celery task id."""

    id: str
    client: JobClient

    def result(self, timeout_s: float | None = None, *, timeout: float | None = None) -> Result:
        """Wait until the job has ended; return its result.

        timeout_s: how many seconds to wait at most; None for no limit. `timeout` is the same.

        Raises JobFailed if the job did not succeed, JobTimeout if it has not ended in time, and
        ResultExpired and Unreachable.
        """
        limit_s = timeout_of(timeout_s, timeout)
        return answer_of(self.client.result(self.id, wait=True, timeout_s=limit_s))

    def status(self) -> Status:
        """Return the status of the job, also if its result has expired."""
        return self.client.status(self.id)

    def cancel(self) -> Result:
        """Cancel the job and return its result; see `Client.cancel`."""
        return self.client.cancel(self.id)


@dataclass(frozen=True, slots=True)
class AsyncJob:
    """A submitted job. Its `id` is also its Celery task id."""

    id: str
    client: AsyncJobClient

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
        return answer_of(await self.client.result(self.id, wait=True, timeout_s=limit_s))

    async def status(self) -> Status:
        """Return the status of the job, also if its result has expired."""
        return await self.client.status(self.id)

    async def cancel(self) -> Result:
        """Cancel the job and return its result; see `AsyncClient.cancel`."""
        return await self.client.cancel(self.id)
