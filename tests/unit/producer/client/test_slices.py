"""Submitting in slices: how large, how many at once, and what an error says of what is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import (
    InvalidRequest,
    JobTimeout,
    KeyRefused,
    Result,
    SubmitInterrupted,
    SubmitStopped,
    TierLimit,
)  # fmt: skip
from headgate.producer.client.http.job_bodies import Slice
from headgate.producer.client.http.many_jobs import submit_all
from headgate.producer.client.loop_thread import LoopThread
from headgate.producer.client.many.ends import BlockingEnds, Ends, checked_ids
from headgate.producer.client.many.gather import ids_kept
from headgate.producer.client.many.slices import SLICE, Flow, SubmitProgress
from headgate.producer.client.many.submit import submit_slices, submit_slices_async


class Played:
    """A queue in memory: its jobs end when somebody waits for one, the oldest first."""

    def __init__(self, *, fail_at: int | None = None, error: Exception | None = None) -> None:
        self.slices: list[list[str]] = []
        self.in_flight: list[str] = []
        self.most = 0
        self._fail_at, self._error = fail_at, error

    def submit(self, part: list[Any]) -> list[str]:
        """Take a slice; each request is the id of its job."""
        if len(self.slices) == self._fail_at and self._error is not None:
            raise self._error
        self.slices.append(list(part))
        return list(part)

    @property
    def open(self) -> int:
        return len(self.in_flight)

    def add(self, ids: list[str]) -> None:
        self.in_flight += ids
        self.most = max(self.most, self.open)

    def take(self) -> list[Result]:
        return []

    def next(self) -> list[Result]:
        ended = Result(id=self.in_flight.pop(0), status="succeeded", model="m")
        return [ended]

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def run(played: Played, flow: Flow, requests: Any) -> list[str]:
    played_ends: Any = lambda: played  # noqa: E731
    return submit_slices(requests, flow, played.submit, played_ends)


@given(st.integers(0, 300), st.integers(1, 40))
def test_no_more_jobs_are_in_flight_than_the_bound_and_none_is_left_out(n: int, most: int) -> None:
    played, reports = Played(), list[SubmitProgress]()
    ids = run(played, Flow(1, most, reports.append), (f"{i}" for i in range(n)))
    assert ids == [f"{i}" for i in range(n)]
    assert played.most <= most
    assert [i for report in reports for i in report.ids] == ids
    assert [report.submitted for report in reports] == sorted(r.submitted for r in reports)
    if n:
        assert reports[-1].submitted == n
        assert reports[-1].ended == n - played.open


def test_without_a_bound_a_generator_is_taken_in_slices_and_only_as_far_as_needed() -> None:
    played, taken = Played(), 0

    def requests() -> Iterator[str]:
        nonlocal taken
        for taken in range(1, 2 * SLICE + 1):
            assert taken <= SLICE * (len(played.slices) + 1)
            yield f"{taken}"

    assert len(run(played, Flow(progress=lambda _: None), requests())) == 2 * SLICE
    assert list(map(len, played.slices)) == [SLICE, SLICE]


def test_a_callback_that_raises_loses_no_id_and_stops_the_rest() -> None:
    def progress(report: SubmitProgress) -> None:
        if report.submitted == 4:
            raise ZeroDivisionError("mine")

    played = Played()
    with pytest.raises(SubmitStopped, match=r"4 jobs .* ZeroDivisionError") as caught:
        run(played, Flow(1, 2, progress), [f"{i}" for i in range(9)])
    assert caught.value.job_ids == ("0", "1", "2", "3")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "mine" not in str(caught.value), "a foreign error may quote a prompt"


def test_an_iterable_that_raises_after_the_first_slice_loses_no_id() -> None:
    def requests() -> Iterator[str]:
        yield "0"
        raise OSError("the file is gone")

    with pytest.raises(SubmitStopped, match="OSError") as caught:
        run(Played(), Flow(1, 1), requests())
    assert caught.value.job_ids == ("0",)
    with pytest.raises(OSError, match="the file is gone"):
        run(Played(), Flow(1, 2), requests())


def test_an_error_names_its_request_among_all() -> None:
    wrong = InvalidRequest("requests[1].model", "gtp", "is unknown", "unknown_model")
    with pytest.raises(SubmitStopped, match=r"requests\[3\]\.model") as caught:
        run(Played(fail_at=1, error=wrong), Flow(1, 2), ["0", "1", "2", "3"])
    cause = caught.value.__cause__
    assert isinstance(cause, InvalidRequest)
    assert (cause.field, cause.code) == ("requests[3].model", "unknown_model")
    limit = TierLimit("tier free rpm", 3, 0, locked_out=True)
    with pytest.raises(SubmitStopped) as caught:
        run(Played(fail_at=1, error=limit), Flow(1, 2), ["0", "1", "2"])
    cause = caught.value.__cause__
    assert isinstance(cause, TierLimit)
    assert (cause.index, cause.locked_out) == (2, True)
    with pytest.raises(InvalidRequest, match=r"requests\[1\]\.model"):
        run(Played(fail_at=0, error=wrong), Flow(1, 2), ["0", "1"])


def test_a_server_that_is_lost_in_a_later_slice_tells_all_ids() -> None:
    lost = SubmitInterrupted("Redis", "gone", ["2"], ["3"])
    with pytest.raises(SubmitStopped) as caught:
        run(Played(fail_at=1, error=lost), Flow(1, 2), ["0", "1", "2", "3"])
    assert (caught.value.job_ids, caught.value.unsure_ids) == (("0", "1", "2"), ("3",))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_in_flight": 0}, "max_in_flight: 0: give a whole number from 1, or None"),
        ({"max_in_flight": True}, "max_in_flight: True"),
        ({"max_in_flight": 2.5}, "max_in_flight: 2.5"),
        ({"max_in_flight": 3, "samples": 4}, "from 4, as each request has so many samples"),
        ({"samples": 0}, "samples: 0"),
        ({"progress": 5}, "progress: 5: give a function"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_taken(given: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Flow(**given)


@pytest.mark.parametrize("requests", ["text", b"x", {"prompt": "x"}, 5, None])
def test_what_is_no_list_of_requests_is_refused(requests: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"requests: .*give a list of requests"):
        run(Played(), Flow(1, 1), requests)


async def test_an_async_iterable_and_a_callback_that_is_a_coroutine() -> None:
    reports: list[int] = []

    async def requests() -> AsyncIterator[str]:
        for n in range(5):
            yield f"{n}"

    async def progress(report: SubmitProgress) -> None:
        reports.append(report.ended)

    async def submit(part: list[Any]) -> list[str]:
        return list(part)

    async def ended(job_id: str) -> Result:
        return Result(id=job_id, status="failed", model="m")

    async def now(ids: Any) -> list[Result]:
        return [await ended(job_id) for job_id in ids]

    flow = Flow(1, 2, progress)
    ids = await submit_slices_async(requests(), flow, submit, lambda: Ends(ended, now))
    assert ids == ["0", "1", "2", "3", "4"]
    assert max(reports) >= 3


async def test_the_last_look_brings_what_has_ended_and_names_what_has_not() -> None:
    async def never(job_id: str) -> Result:
        await asyncio.Event().wait()
        return Result(id=job_id, status="succeeded", model="m")

    async def now(ids: Any) -> list[Result]:
        statuses: Any = {"a": "running", "b": "succeeded"}
        return [Result(id=one, status=statuses[one], model="m") for one in ids]

    async with Ends(never, now, timeout_s=0) as ends:
        ends.add(["a", "b", "b"])
        assert [getattr(end, "id", None) for end in await ends.next()] == ["b"]
        with pytest.raises(JobTimeout) as caught:
            await ends.next()
    assert (caught.value.job_id, caught.value.job_ids) == ("a", ("a", "b"))


@pytest.mark.parametrize("ids", ["id", 5, None, [5], [None]])
def test_what_is_no_list_of_ids_is_refused(ids: Any) -> None:
    with pytest.raises(InvalidRequest, match="job_id"):
        checked_ids(ids)


def test_the_end_of_a_slice_in_the_middle_has_the_ids_of_all_slices() -> None:
    """Over HTTP a slice of long prompts takes several calls."""
    cause = InvalidRequest("requests[3].prompt", "x", "no")
    middle = SubmitStopped(["a", "b"], ["c"], cause)
    middle.__cause__ = cause
    played = Played(fail_at=2, error=middle)
    with pytest.raises(SubmitStopped) as caught:
        run(played, Flow(progress=lambda _: None), [str(n) for n in range(3 * SLICE)])
    assert caught.value.job_ids == (*(str(n) for n in range(2 * SLICE)), "a", "b")
    assert caught.value.unsure_ids == ("c",)
    assert isinstance(caught.value.__cause__, InvalidRequest)
    assert caught.value.__cause__.field == f"requests[{2 * SLICE + 3}].prompt"


def test_the_end_of_another_clients_submit_in_a_callback_is_a_cause_only() -> None:
    foreign = SubmitStopped(["other"])

    def fail(_: SubmitProgress) -> None:
        raise foreign

    with pytest.raises(SubmitStopped) as caught:
        run(Played(), Flow(progress=fail), ["a"])
    assert (caught.value.job_ids, caught.value.__cause__) == (("a",), foreign)


def test_an_error_while_map_waits_keeps_the_ids() -> None:
    """The timeout has them already."""
    for error, kind in ((ValueError(), SubmitStopped), (JobTimeout("a", 1), JobTimeout)):
        with pytest.raises(kind) as caught, ids_kept(["a", "b"]):
            raise error
        if isinstance(caught.value, SubmitStopped):
            assert (caught.value.job_ids, caught.value.__cause__) == (("a", "b"), error)


def test_an_iterator_may_be_collected_as_garbage_in_the_thread_of_its_loop() -> None:
    thread = LoopThread()
    waiting: Any = None
    ends = BlockingEnds(thread, Ends(waiting, waiting))

    async def collect() -> None:
        ends.__exit__(None, None, None)

    async def nothing() -> None:
        pass

    thread.run(collect())
    thread.close(nothing())


def test_a_key_that_may_not_submit_a_request_is_refused_with_its_place_among_all() -> None:
    error = KeyRefused(403, "model_not_allowed", "requests[7]: not this model")
    played = Played(fail_at=1, error=error)
    with pytest.raises(SubmitStopped) as caught:
        run(played, Flow(progress=lambda _: None), [str(n) for n in range(2 * SLICE)])
    assert str(caught.value.__cause__) == f"requests[{SLICE + 7}]: not this model"


async def test_over_http_the_place_counts_from_the_first_request_of_all() -> None:
    class Refusing:
        async def call(self, *_: object, **__: object) -> None:
            raise KeyRefused(403, "model_not_allowed", "jobs[7]: not this model")

    at: Any = Refusing()
    with pytest.raises(KeyRefused, match=r"^requests\[107\]: not"):
        await submit_all(at, [Slice(100, [b"{}"])], 1)
