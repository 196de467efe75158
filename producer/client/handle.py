"""What submit gives back: a job by its id, with the client that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.shared.job.result import Result, Status

if TYPE_CHECKING:
    from headgate.producer.client.client import AsyncClient, Client

from headgate.producer.errors import answer_of


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted job; its id is the Celery task id, too."""

    id: str
    client: Client

    def result(self, timeout_s: float | None = None) -> Result:
        """The answer; waits for it. Raises JobFailed however else the job ended, or JobTimeout."""
        return answer_of(self.client.result(self.id, wait=True, timeout_s=timeout_s))

    def status(self) -> Status:
        """How far the job is; works also when its result has expired."""
        return self.client.status(self.id)

    def cancel(self) -> Result:
        """The result after the job was cancelled, or had ended before."""
        return self.client.cancel(self.id)


@dataclass(frozen=True, slots=True)
class AsyncJob:
    """A submitted job; its id is the Celery task id, too."""

    id: str
    client: AsyncClient

    async def result(self, timeout_s: float | None = None) -> Result:
        """The answer; waits for it. Raises JobFailed however else the job ended, or JobTimeout."""
        return answer_of(await self.client.result(self.id, wait=True, timeout_s=timeout_s))

    async def status(self) -> Status:
        """How far the job is; works also when its result has expired."""
        return await self.client.status(self.id)

    async def cancel(self) -> Result:
        """The result after the job was cancelled, or had ended before."""
        return await self.client.cancel(self.id)
