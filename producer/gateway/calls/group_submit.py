"""Submit the calls that arrive together as one group: one transaction, one pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from headgate.producer.submit.fields import RequestFields
from headgate.producer.submit.submit_each import Outcome

MOST = 200
"""Requests of one group; a larger one would make its first caller wait."""

SubmitEach = Callable[[Sequence[RequestFields]], list[Outcome]]


class GroupSubmit:
    """Submits in a thread of its own. While a group is being written, the next one gathers.

    Use it in one event loop.
    """

    def __init__(self, submit_each: SubmitEach) -> None:
        self._submit_each = submit_each
        self._thread = ThreadPoolExecutor(1, "submit")
        self._gathered: list[tuple[RequestFields, asyncio.Future[str]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def submit(self, fields: RequestFields) -> str:
        """Return the id of the job, or raise why there is none."""
        return await self.put(fields)

    def put(self, fields: RequestFields) -> asyncio.Future[str]:
        """Return what gets the id of the job, or why there is none."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._gathered.append((fields, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="submit")
        return future

    async def close(self) -> None:
        """Wait until all that was gathered is written."""
        if self._writing is not None:
            await self._writing
        self._thread.shutdown(wait=False)

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._gathered:
            group, self._gathered = self._gathered[:MOST], self._gathered[MOST:]
            requests = [fields for fields, _ in group]
            outcomes: Sequence[Outcome | Exception]
            try:
                outcomes = await loop.run_in_executor(self._thread, self._submit_each, requests)
            except Exception as error:  # all who wait must get it, not hang
                outcomes = [error] * len(group)
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, str):
                    future.set_result(outcome)
                else:
                    future.set_exception(outcome)
        self._writing = None
