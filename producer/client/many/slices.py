"""Submit any number of requests in slices, with a bound on the jobs that have not ended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from headgate.producer.callers.refused import KeyRefused
from headgate.producer.client.many.ends import End
from headgate.producer.errors import (
    IdempotencyConflict,
    SubmitInterrupted,
    SubmitStopped,
    TierLimit,
)
from headgate.producer.submit.prepare import checked_samples
from headgate.shared.errors import InvalidRequest, Unreachable
from headgate.shared.job.request import Request

T = TypeVar("T")

SLICE = 1_000
"""The most jobs of a slice: about 3 MB and their prompts."""

SHARE = 8
"""A slice waits until at least a SHARE-th of `max_in_flight` is free, so that slices are large."""

_PLACE = re.compile(r"requests\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class SubmitProgress:
    """How far `submit_many` or `map` has come.

    `ids`: the jobs that are new on record since the last report, in order. `submitted`: how many
    there are in all. `ended`: how many of them have ended, as far as anyone has looked: `map` does,
    and `submit_many` with `max_in_flight`.
    """

    ids: list[str]
    submitted: int
    ended: int


Progress = Callable[[SubmitProgress], object]
"""What the caller wants to be called with each report."""


def require_flow(samples: int, max_in_flight: object, progress: object) -> None:
    """Raise InvalidRequest for a wrong option of `submit_many`."""
    if max_in_flight is not None:
        is_number = isinstance(max_in_flight, int) and not isinstance(max_in_flight, bool)
        if not is_number or max_in_flight < samples:  # type: ignore[operator]
            remedy = f"give a whole number from {samples}"
            remedy += ", as each request has so many samples" if samples > 1 else ""
            raise InvalidRequest("max_in_flight", max_in_flight, f"{remedy}, or None for no bound")
    if progress is not None and not callable(progress):
        raise InvalidRequest("progress", progress, "give a function that takes a SubmitProgress")


class Flow:
    """What was submitted, what may be submitted next, and what to report. It does no I/O."""

    def __init__(
        self, samples: int = 1, max_in_flight: int | None = None, progress: Progress | None = None
    ) -> None:
        require_flow(checked_samples(samples), max_in_flight, progress)
        self.ids: list[str] = []
        self.ended = 0
        self._samples, self._most, self._progress = samples, max_in_flight, progress
        self._requests = 0

    @property
    def is_bounded(self) -> bool:
        """Whether somebody must look which jobs have ended."""
        return self._most is not None

    def wanted(self, in_flight: int) -> int:
        """Return how many requests to submit now; 0: wait until more jobs have ended."""
        if self._most is None:
            return max(1, SLICE // self._samples)
        free = self._most - in_flight
        if free < max(self._samples, min(SLICE, self._most // SHARE)):
            return 0
        return max(1, min(free, SLICE) // self._samples)

    def report_submitted(self, requests: int, ids: Sequence[str]) -> object:
        """Take down a slice, and report it; return what the callback returns."""
        self._requests += requests
        self.ids += ids
        return self._report(list(ids))

    def report_ended(self, ends: Sequence[End]) -> object:
        """Take down how jobs ended, and report it; raise Unreachable if nobody can look."""
        for end in ends:
            if isinstance(end, Unreachable):
                raise end
        self.ended += len(ends)
        return self._report([]) if ends else None

    def _report(self, ids: list[str]) -> object:
        if self._progress is None:
            return None
        return self._progress(SubmitProgress(ids, len(self.ids), self.ended))

    @contextmanager
    def ids_in_errors(self) -> Iterator[None]:
        """Raise SubmitStopped with the ids so far in place of any error after the first slice."""
        try:
            yield
        except _SliceStopped as stopped:
            reason = stopped.__cause__
            cause = _moved(reason, self._requests) if isinstance(reason, Exception) else None
            ids = [*self.ids, *stopped.job_ids]
            raise SubmitStopped(ids, stopped.unsure_ids, cause) from cause
        except Exception as error:
            if not self.ids:
                raise
            cause = _moved(error, self._requests)
            ids, unsure = list(self.ids), tuple[str, ...]()
            if isinstance(error, SubmitInterrupted):
                ids, unsure = [*ids, *error.job_ids], error.unsure_ids
            elif isinstance(error, IdempotencyConflict):
                ids += error.on_record
            raise SubmitStopped(ids, unsure, cause) from cause

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Tell an end in the middle of a slice from that of another client in a callback."""
        try:
            yield
        except SubmitStopped as error:
            raise _SliceStopped(error.job_ids, error.unsure_ids) from error.__cause__


class _SliceStopped(Exception):
    """A slice took several calls, and one after the first was refused."""

    def __init__(self, job_ids: Sequence[str], unsure_ids: Sequence[str]) -> None:
        super().__init__(job_ids, unsure_ids)
        self.job_ids, self.unsure_ids = job_ids, unsure_ids


def _moved(error: Exception, by: int) -> Exception:
    """Return the error with the place of its request among all, not in its slice."""
    if isinstance(error, TierLimit) and error.index is not None:
        index = error.index + by
        return TierLimit(error.limit, error.retry_after_s, index, locked_out=error.locked_out)
    if type(error) is InvalidRequest and (found := _PLACE.match(error.field)):
        field = f"requests[{int(found[1]) + by}]{error.field[found.end() :]}"
        return InvalidRequest(field, error.value, error.remedy, error.code)
    if isinstance(error, KeyRefused) and (found := _PLACE.match(error.message)):
        message = f"requests[{int(found[1]) + by}]{error.message[found.end() :]}"
        return KeyRefused(error.http_status, error.code, message, error.retry_after_s)
    return error


class Source(Generic[T]):
    """Requests, of which so many at once are taken. A wrong kind raises InvalidRequest."""

    def __init__(self, requests: Iterable[T] | AsyncIterable[T]) -> None:
        self._async = aiter(requests) if isinstance(requests, AsyncIterable) else None
        self._left: Iterator[T] = iter(())
        if self._async is None:
            if isinstance(requests, str | bytes | Mapping | Request) or not isinstance(
                requests, Iterable
            ):
                raise InvalidRequest("requests", requests, "give a list of requests")
            self._left = iter(requests)

    def next(self, count: int) -> list[T]:
        """Return up to so many requests; an empty list after the last."""
        return list(islice(self._left, count))

    async def next_async(self, count: int) -> list[T]:
        """Return up to so many requests as `next` does; what blocks does so in a thread."""
        if self._async is None:
            return await asyncio.to_thread(self.next, count)
        found: list[T] = []
        while len(found) < count:
            try:
                found.append(await anext(self._async))
            except StopAsyncIteration:
                break
        return found


async def awaited(value: object) -> None:
    """Wait for what a callback returned, if it is a coroutine."""
    if isinstance(value, Awaitable):
        await value
