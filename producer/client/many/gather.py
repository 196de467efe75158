"""Collect the results of many jobs, in the order of their ends or in that of their ids."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from headgate.producer.client.many.ends import BlockingEnds, Ends, result_of
from headgate.producer.client.many.slices import Progress, SubmitProgress, awaited
from headgate.producer.client.response_format import ResponseFormat, parsed_by
from headgate.producer.errors import JobTimeout, SubmitStopped
from headgate.shared.job.result import Result


def completed(
    new_ends: Callable[[], BlockingEnds], ids: Sequence[str], wanted: ResponseFormat | None = None
) -> Iterator[Result]:
    """Yield the results as the jobs end; raise for an id without one, and JobTimeout."""
    with new_ends() as ends:
        ends.add(ids)
        while found := ends.next():
            for end in found:
                yield parsed_by(result_of(end), wanted)


async def completed_async(
    new_ends: Callable[[], Ends], ids: Sequence[str], wanted: ResponseFormat | None = None
) -> AsyncGenerator[Result, None]:
    """Yield the results as `completed` does."""
    async with new_ends() as ends:
        ends.add(ids)
        while found := await ends.next():
            for end in found:
                yield parsed_by(result_of(end), wanted)


class Reports:
    """Reports to the caller of `map` how many of the jobs have ended."""

    def __init__(self, ids: Sequence[str], progress: Progress | None) -> None:
        self._total, self._progress = len(ids), progress
        self._ended = 0

    def one_more(self) -> object:
        """Report that one more job has ended; return what the callback returns."""
        self._ended += 1
        if self._progress is None:
            return None
        return self._progress(SubmitProgress([], self._total, self._ended))


@contextmanager
def ids_kept(ids: Sequence[str]) -> Iterator[None]:
    """Raise SubmitStopped with the ids in place of an error that has none of them."""
    try:
        yield
    except JobTimeout:
        raise
    except Exception as error:
        if not ids:
            raise
        raise SubmitStopped(ids, (), error) from error


def collected(
    results: Iterator[Result], ids: Sequence[str], progress: Progress | None = None
) -> list[Result]:
    """Return the results in the order of the ids; report each as it comes."""
    reports, found = Reports(ids, progress), dict[str, Result]()
    for result in results:
        found[result.id] = result
        reports.one_more()
    return [found[job_id] for job_id in ids]


async def collected_async(
    results: AsyncIterator[Result], ids: Sequence[str], progress: Progress | None = None
) -> list[Result]:
    """Return the results as `collected` does; wait for a callback that is a coroutine."""
    reports, found = Reports(ids, progress), dict[str, Result]()
    async for result in results:
        found[result.id] = result
        await awaited(reports.one_more())
    return [found[job_id] for job_id in ids]
