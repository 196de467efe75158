"""The blocking client, for programs with threads or none."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn, Self, Unpack, cast

from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import LimitsReport
from headgate.producer.client.arguments import NOT_PICKLED, UsageKey, require_seconds, timeout_of
from headgate.producer.client.handle import Job
from headgate.producer.client.many.ends import checked_ids
from headgate.producer.client.many.gather import collected, completed, ids_kept
from headgate.producer.client.many.prompts import answers_of, combined
from headgate.producer.client.many.slices import Flow, Progress
from headgate.producer.client.many.submit import submit_slices
from headgate.producer.client.pieces import TextPiece
from headgate.producer.client.response_format import (
    ResponseFormat,
    parsed_by,
    with_response_format,
)
from headgate.producer.client.transport import BlockingTransport
from headgate.producer.client.ways import Way
from headgate.producer.errors import JobTimeout
from headgate.producer.installation import Installation
from headgate.producer.results.listing import JobFilters, Listed
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.producer.submit.fields import RequestFields, Requests
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route
from headgate.shared.settings import Settings

CANCEL_WAIT_S = 10.0
"""How long `cancel` waits for the worker of a running job, which looks every second."""


class Client:
    """Submits jobs and waits for their results. All its methods block.

    settings: Settings, such as `Settings(redis_url="redis://...")`, or the URL of a Redis. Default:
        from the environment.
    base_url, api_key: the address of a gateway, with or without /v1, and a key for it. Then the
        client needs no Redis and no database. Default: HEADGATE_BASE_URL and HEADGATE_API_KEY.

    The client opens its servers at the first use. Use it as a context manager, or call `close`.
    Many threads may use one client; a forked child opens servers of its own.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._transport: BlockingTransport = Way(settings, base_url, api_key).blocking()
        _open_clients.add(self)

    def open(self) -> Installation:
        """Open the servers now instead of at the first use; raise Unreachable if one is away."""
        return cast("Installation", self._transport.open())

    def submit(
        self,
        prompt: str | None = None,
        /,
        *,
        response_format: ResponseFormat | None = None,
        **fields: Unpack[RequestFields],
    ) -> Job:
        """Submit a job: put it on record and on its queue.

            job = client.submit("Summarise ...", model="gpt-4o-mini", priority="interactive")
            print(job.result(timeout_s=30).content)

        prompt: the text of one user message; the same as the field `prompt`.
        response_format: the form of the answer. A pydantic model is sent as a strict JSON schema,
            and the result's `parsed` is an object of it; a dict goes into `params` as it is.
        fields: the fields of a request; see RequestFields for their meaning and units.

        Returns the Job. Raises InvalidRequest, IdempotencyConflict and TierLimit with nothing
        queued, Unreachable with nothing on record, and SubmitInterrupted if a server was lost
        halfway: `job_ids` is then on record, and `unsure_ids` may be. Over HTTP Unreachable says so
        if the job may be on record.
        """
        asked = with_response_format(fields, response_format)
        return Job(self._transport.submit(prompt, asked), self, response_format)

    def submit_many(
        self,
        requests: Requests,
        *,
        samples: int = 1,
        max_in_flight: int | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        """Submit many jobs at once, or as many as you like in slices.

            ids = client.submit_many([{"prompt": p, "priority": "bulk"} for p in prompts])
            ids = client.submit_many(read_lines(), max_in_flight=5_000)  # any iterable

        requests: each is a text (a prompt), a dict of RequestFields, or a Request.
        samples: how many jobs to make of each request, from 1 to 128. Each has an answer of its
            own: it shares a call or a cached answer only with the same sample of an equal request.
            The first sample is the same as the request without samples.
        max_in_flight: wait before a slice while so many of these jobs have not ended.
        progress: call it with a SubmitProgress after each slice, and when jobs have ended.

        Returns the ids of the jobs in the order of the requests: all samples of the first, then
        those of the second. All requests are checked before the first job is written, and held in
        memory meanwhile (about 3 kB each and the prompt). Raises what `submit` raises: an
        InvalidRequest names the field as `requests[i].field`, a TierLimit has the `index`.

        With `max_in_flight` or `progress` the requests are taken in slices of up to 1,000 jobs, so
        that any number fits into memory. A slice is checked when it is its turn. An error after the
        first slice, also of the iterable or of the callback, is raised as SubmitStopped with the
        `job_ids` so far.
        """
        if max_in_flight is None and progress is None:
            return self._transport.submit_many(requests, samples)
        flow = Flow(samples, max_in_flight, progress)
        submit, ends = self._transport.submit_many, self._transport.ends
        return submit_slices(requests, flow, lambda part: submit(part, samples), lambda: ends(None))

    def map(
        self,
        prompts: Requests,
        *,
        return_errors: bool = False,
        timeout_s: float | None = None,
        max_in_flight: int | None = None,
        progress: Progress | None = None,
        response_format: ResponseFormat | None = None,
        **fields: Unpack[RequestFields],
    ) -> list[Result]:
        """Return the answers to prompts: a list in, a list out, in the same order.

            answers = client.map(["Spell 7.", "Spell 8."], model="gpt-4o-mini")
            print([answer.content for answer in answers])

        prompts: each is a text, or a dict of RequestFields.
        fields: the fields of all requests; those of a dict come first. Of an `idempotency_key` each
            request gets one of its own, `key:0` and so on.
        return_errors: put results with an `error` into the list in place of an answer. Without it
            MapFailed is raised when all jobs have ended, and has all `results`.
        timeout_s: how many seconds to wait at most once all are submitted. After that JobTimeout
            has the `job_ids`; with `return_errors` results are as they are by then.
        max_in_flight, progress: see `submit_many`.
        response_format: see `submit`.

        Raises what `submit_many` and `results` raise; once all are submitted, SubmitStopped with
        the `job_ids` in place of any other error.
        """
        requests = combined(prompts, fields, response_format)
        ids = self.submit_many(requests, max_in_flight=max_in_flight, progress=progress)
        try:
            ended = self.as_completed(ids, timeout_s, response_format)
            with ids_kept(ids):
                found = collected(ended, ids, progress)
        except JobTimeout:
            if not return_errors:
                raise
            return self.results(ids, response_format=response_format)
        return found if return_errors else answers_of(found)

    def route(self, prompt: str | None = None, /, **fields: Unpack[RequestFields]) -> Route:
        """Return which model a request for "auto" would get now, and why. Nothing is queued.

        prompt, fields: as for `submit`. Raises InvalidRequest if no model can answer.
        """
        return self._transport.route(prompt, fields)

    def result(
        self,
        job_id: str,
        *,
        wait: bool = False,
        timeout_s: float | None = None,
        timeout: float | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Result:
        """Return the result of a job: as it is now, or once the job has ended.

        wait: wait until the job has ended.
        timeout_s: how many seconds to wait at most; implies `wait`. None: no limit. `timeout` is
            the same.
        response_format: the pydantic model that `parsed` is made by.

        A job that did not succeed has a Result with an `error`; only `Job.result` raises JobFailed.
        Raises UnknownJob, ResultExpired, JobTimeout and Unreachable.
        """
        timeout_s = timeout_of(timeout_s, timeout)
        if not wait and timeout_s is None:
            return parsed_by(self._transport.result(job_id), response_format)
        return parsed_by(self._transport.ended(job_id, timeout_s), response_format)

    def results(
        self,
        job_ids: Iterable[str],
        *,
        wait: bool = False,
        timeout_s: float | None = None,
        response_format: ResponseFormat | None = None,
    ) -> list[Result]:
        """Return the results of many jobs, in the order of the ids.

        Its arguments and errors are those of `result`. A JobTimeout has all ids as `job_ids`.
        """
        ids = checked_ids(job_ids)
        if not wait and timeout_s is None:
            found = self._transport.results(ids)
            return [parsed_by(result, response_format) for result in found]
        return collected(self.as_completed(ids, timeout_s, response_format), ids)

    def as_completed(
        self,
        job_ids: Iterable[str],
        timeout_s: float | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Iterator[Result]:
        """Yield the results of many jobs as they end, each once.

            for result in client.as_completed(ids):
                print(result.id, result.content or result.error)

        timeout_s: how many seconds to wait at most for all of them. After that JobTimeout has all
            ids as `job_ids`. None: no limit.
        response_format: the pydantic model that `parsed` is made by.

        Raises UnknownJob and ResultExpired for an id without a result, and Unreachable.
        """
        ids = checked_ids(job_ids)
        require_seconds("timeout_s", timeout_s)
        return completed(lambda: self._transport.ends(timeout_s), ids, response_format)

    def stream(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        pulse_s: float | None = None,
        after: int | str = 0,
    ) -> Iterator[TextPiece]:
        """Yield the text of the answer piece by piece.

        timeout_s: how many seconds the whole stream may take. None: no limit.
        pulse_s: yield an empty text after so many seconds without a piece. None: never.
        after: go on where a reader left off: the `after` of its last piece, or how many characters
            it has. With the first StreamBroken says if that was another answer.

        If the job was submitted with `stream=True` the pieces come while the answer is made, else
        all at once when it is there. Together they are the `content` of the result; tool calls are
        only in the result. Raises JobFailed if the job ends without an answer; StreamBroken if
        another worker took over, so that the text is void and you stream again; JobTimeout; and
        what `result` raises.
        """
        return self._transport.stream(job_id, timeout_s, pulse_s, after)

    def status(self, job_id: str) -> Status:
        """Return the status of a job, also if its result has expired; raise UnknownJob."""
        return self._transport.status(job_id)

    def jobs(self, **asked: Unpack[JobFilters]) -> list[Listed]:
        """Return jobs, the newest first.

            failed = client.jobs(status="failed", since="1h", metadata={"run": 7})

        asked: `status`, `tenant`, `user`, `model`, `batch`, `priority`, `code`, `metadata`: only
            these; `since`, `before` and `limit`. See JobFilters.

        For the next page give the last id of this one as `before`. Jobs that an older release has
        submitted are not found by `metadata`. Raises InvalidRequest, UnknownJob and Unreachable.
        """
        return self._transport.jobs(asked)

    def usage(
        self, by: UsageKey | str | Sequence[UsageKey] = (), **asked: Unpack[UsageQuery]
    ) -> UsageReport:
        """Return who used what, of jobs that have ended. It needs no Redis.

            report = client.usage(["tenant", "model"], since=timedelta(days=7))

        by: what to group by: "tenant", "user", "model", "template", "batch", "day", "month"; a
            list, or a text with commas. Without it there is only the total.
        asked: `since` and `until` (a moment with a time zone, a day in UTC, or how long ago);
            `tenant`, `user`, `model`, `template`, `batch`: only these; `limit`: only the rows that
            cost most.

        Raises InvalidRequest and Unreachable.
        """
        return self._transport.usage(by, asked)

    def cancel(self, job_id: str, *, timeout_s: float = CANCEL_WAIT_S) -> Result:
        """Cancel a job that waits or runs; return its result.

        timeout_s: how many seconds to wait for the worker of a running job. After that the result
            may still say "running".

        If the job had ended before, its result is returned unchanged. Raises UnknownJob and
        Unreachable.
        """
        return self.cancel_many([job_id], timeout_s=timeout_s)[0]

    def cancel_many(
        self, job_ids: Sequence[str], *, timeout_s: float = CANCEL_WAIT_S
    ) -> list[Result]:
        """Cancel jobs that wait or run; return their results in the order of the ids.

            client.cancel_many([listed.id for listed in client.jobs(status="queued", limit=5000)])

        timeout_s: how many seconds to wait for the workers of running jobs, all together. After
            that their results may still say "running".

        Thousands of jobs take a second or two, because hundreds share a transaction. Raises
        UnknownJob if an id is unknown, after the other jobs are cancelled, and Unreachable.
        """
        ids = checked_ids(job_ids)
        require_seconds("timeout_s", timeout_s, may_be_none=False)
        return self._transport.cancel(ids, timeout_s)

    def check(
        self, prompt: str | None = None, /, **fields: Unpack[RequestFields]
    ) -> AdmissionCheck:
        """Return whether a request would be let in now, and what it would hold.

            found = client.check("Summarise ...", tenant="acme", user="u1")
            print(found.let_in, found.refusal, found.model, found.max_usd)

        prompt, fields: as for `submit`. Nothing is queued, taken or counted, so by the time of a
        submit the answer may be another. Raises InvalidRequest as `submit` does, and Unreachable.
        """
        return self._transport.check(prompt, fields)

    def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers, as `headgate health` shows it.

        Its `down` says what is down, in words. Raises Unreachable if a server does not answer.
        """
        return self._transport.health()

    def limits(self, *, pool: str | None = None, tenant: str | None = None) -> LimitsReport:
        """Return the limits in force, how full they are, and the jobs that wait for them.

        pool: only this pool, such as "openai/gpt-4o-mini". tenant: only this tenant.

        Raises WrongUse for an unknown pool or tenant, and Unreachable.
        """
        return self._transport.limits(pool, tenant)

    def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent, today and this month (UTC)."""
        return self._transport.budgets()

    def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is, and what it has saved."""
        return self._transport.cache_stats()

    def retry(self, job_id: str) -> Job:
        """Queue a job that failed or expired again, under its id; return the Job.

            job = client.retry(job_id)
            print(job.result(timeout_s=30).content)

        It gets new tries and as much time as it had at first; what its earlier attempts cost stays
        on record. A model that "auto" chose is chosen anew. Raises UnknownJob, InvalidRequest for a
        job that has not failed or cannot be run any more, and Unreachable.
        """
        return Job(self._transport.retry(job_id), self)

    def close(self) -> None:
        """Close all connections. Whoever still waits gets a RuntimeError."""
        self._transport.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(NOT_PICKLED.format("Client"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for client in list(_open_clients):
        client.close()
