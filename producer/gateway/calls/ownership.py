"""Whose jobs the callers of this process ask for: a caller never learns of another's job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from headgate.producer.callers.allowed import owns
from headgate.producer.callers.caller import Caller
from headgate.producer.client.operations import Operations
from headgate.producer.errors import UnknownJob
from headgate.producer.results.owners import JobOwner

MOST = 50_000
"""Jobs whose owners are remembered: an owner never changes."""

LONGEST_ID = 128


def may_be_id(job_id: str) -> bool:
    """Return whether a job can have this id."""
    return 0 < len(job_id) <= LONGEST_ID and "\0" not in job_id


class Ownership:
    """Tells jobs of the caller from those of others. Use it in one event loop."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._known: dict[str, JobOwner] = {}

    def note(self, ids: Iterable[str], owner: JobOwner) -> None:
        """Remember whose jobs these are, which were just submitted."""
        self._remember(dict.fromkeys(ids, owner))

    async def require(self, caller: Caller, job_id: str) -> str:
        """Return the id; raise UnknownJob for a job that the caller may not see."""
        if not await self.of(caller, [job_id]):
            raise UnknownJob(job_id)
        return job_id

    async def of(self, caller: Caller, ids: Sequence[str]) -> set[str]:
        """Return those of the ids whose jobs the caller may see."""
        wanted = [job_id for job_id in ids if may_be_id(job_id)]
        if missing := [job_id for job_id in wanted if job_id not in self._known]:
            self._remember(await asyncio.to_thread(self._operations.owners, missing))
        found = {job_id: self._known[job_id] for job_id in wanted if job_id in self._known}
        return {job_id for job_id, owner in found.items() if owns(caller, *owner)}

    def _remember(self, owners: dict[str, JobOwner]) -> None:
        if len(self._known) + len(owners) > MOST:
            self._known.clear()
        self._known.update(owners)
