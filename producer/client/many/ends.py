"""Wait for the ends of many jobs together, in the order in which they end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, Self, TypeVar

from headgate.producer.client.arguments import require_job_id, require_seconds
from headgate.producer.errors import JobTimeout
from headgate.shared.errors import HeadgateError, InvalidRequest
from headgate.shared.job.result import Result

Ended = Callable[[str], Awaitable[Result]]
"""Returns the result of a job once it has ended, however long that takes."""

Now = Callable[[Sequence[str]], Awaitable[list[Result]]]
"""Returns the results of jobs as they are now, in order."""

End = Result | HeadgateError
"""How a wait ended: with a result, or with the reason why there is none."""


T = TypeVar("T")

LAST_LOOK_S = 5.0
"""How long the last look at the end of a wait may take, if a server hangs."""


def checked_ids(job_ids: object) -> list[str]:
    """Return the ids as a list; raise InvalidRequest for one id alone, and for what is no id."""
    if isinstance(job_ids, str) or not isinstance(job_ids, Iterable):
        raise InvalidRequest("job_ids", job_ids, "give a list of the ids of jobs")
    ids = list(job_ids)
    for job_id in ids:
        require_job_id(job_id)
    return ids


class Ends:
    """The ends of jobs, as they come. Use it in one event loop, as an async context manager.

    `ended` waits for one job; thousands of waits must be cheap. `now` reads many at once: at the
    end of `timeout_s` that is the last look.
    """

    def __init__(self, ended: Ended, now: Now, timeout_s: float | None = None) -> None:
        require_seconds("timeout_s", timeout_s)
        self._ended, self._now, self._timeout_s = ended, now, timeout_s
        self._until = None if timeout_s is None else time.monotonic() + timeout_s
        self._ids: list[str] = []
        self._tasks: dict[asyncio.Future[Result], str] = {}
        self._done: deque[asyncio.Future[Result]] = deque()
        self._late: deque[End] = deque()
        self._changed = asyncio.Event()

    @property
    def open(self) -> int:
        """How many jobs have not been returned by `next` or `take`."""
        return len(self._tasks) + len(self._late)

    def add(self, ids: Iterable[str]) -> None:
        """Wait for these jobs, too; an id that is there already counts once."""
        known = set(self._tasks.values())
        for job_id in ids:
            if job_id in known:
                continue
            known.add(job_id)
            self._ids.append(job_id)
            task = asyncio.ensure_future(self._ended(job_id))
            self._tasks[task] = job_id
            task.add_done_callback(self._on_end)

    def take(self) -> list[End]:
        """Return how the waits ended that have ended since, without waiting."""
        found: list[End] = list(self._late)
        self._late.clear()
        while self._done:
            task = self._done.popleft()
            if self._tasks.pop(task, None) is not None:
                found.append(_end_of(task))
        return found

    async def next(self) -> list[End]:
        """Return the next ends, at least one; an empty list if no job is left.

        Raises JobTimeout when the time is over and jobs are left.
        """
        while self.open:
            self._changed.clear()
            if found := self.take():
                return found
            left_s = None if self._until is None else self._until - time.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                await self._look_for_the_last_time()
        return []

    def close(self) -> None:
        """Stop waiting."""
        tasks, self._tasks = list(self._tasks), {}
        for task in tasks:
            task.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _on_end(self, task: asyncio.Future[Result]) -> None:
        if task in self._tasks:
            self._done.append(task)
            self._changed.set()
        elif not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it as forgotten

    async def _look_for_the_last_time(self) -> None:
        """Keep the ends that nobody has seen yet; raise JobTimeout if there is none."""
        waited_for = [job_id for task, job_id in self._tasks.items() if not task.done()]
        found: dict[str, Result] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_LOOK_S):
                found = {result.id: result for result in await self._now(waited_for)}
        ended = {job_id for job_id, result in found.items() if result.ended}
        for task in [one for one, job_id in self._tasks.items() if job_id in ended]:
            if not task.done():
                self._late.append(found[self._tasks.pop(task)])
                task.cancel()
        if waited_for and not ended and not self._done:
            first = found.get(waited_for[0])
            waiting_for = None if first is None else first.waiting_for
            raise JobTimeout(waited_for[0], self._timeout_s or 0, waiting_for, self._ids)


def _end_of(task: asyncio.Future[Result]) -> End:
    """Return how a wait ended; raise what is no error of ours."""
    if task.cancelled():
        raise asyncio.CancelledError
    error = task.exception()
    if error is None or isinstance(error, HeadgateError):
        return error or task.result()
    raise error


def result_of(end: End) -> Result:
    """Return the result; raise the error that there is in its place."""
    if isinstance(end, Result):
        return end
    raise end


class Waiting(Protocol):
    """A way to wait for jobs, and to look at them."""

    async def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result once the job has ended."""

    async def results(self, ids: Sequence[str]) -> list[Result]:
        """Return results as they are now, in order."""


def ends_of(waiting: Waiting, timeout_s: float | None = None) -> Ends:
    """Return what waits for many jobs together in this way."""
    return Ends(partial(waiting.ended, timeout_s=None), waiting.results, timeout_s)


class Loop(Protocol):
    """An event loop in another thread."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns there."""

    def call(self, function: Callable[[], None]) -> None:
        """Call it there soon, unless the loop has ended."""


class BlockingEnds:
    """Ends for a thread that is not their loop's. Use it as a context manager."""

    def __init__(self, loop: Loop, ends: Ends) -> None:
        self._loop, self._ends = loop, ends

    @property
    def open(self) -> int:
        """How many jobs have not been returned by `next` or `take`."""
        return self._ends.open

    def add(self, ids: Iterable[str]) -> None:
        """Wait for these jobs, too."""

        async def added() -> None:
            self._ends.add(ids)

        self._loop.run(added())

    def take(self) -> list[End]:
        """Return how the waits ended that have ended since, without waiting."""

        async def taken() -> list[End]:
            return self._ends.take()

        return self._loop.run(taken())

    def next(self) -> list[End]:
        """Return the next ends, at least one; see `Ends.next`."""
        return self._loop.run(self._ends.next())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Not waited for: garbage of an iterator may be collected in the thread of the loop itself.
        self._loop.call(self._ends.close)


def blocking_ends(loop: Loop, waiting: Waiting, timeout_s: float | None) -> BlockingEnds:
    """Return what waits in this loop for many jobs together."""
    return BlockingEnds(loop, ends_of(waiting, timeout_s))
