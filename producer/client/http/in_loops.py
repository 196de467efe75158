"""The way of `AsyncClient` to a gateway."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import LimitsReport
from headgate.producer.client.arguments import (
    UsageKey,
    require_job_id,
    require_seconds,
    with_prompt,
)
from headgate.producer.client.http import reports
from headgate.producer.client.http.address import GatewayAddress, job_path
from headgate.producer.client.http.connections import Connections
from headgate.producer.client.http.ends import JobEnds
from headgate.producer.client.http.job_bodies import Slice, encoded, sliced
from headgate.producer.client.http.many_jobs import cancel_all, results_now, submit_all
from headgate.producer.client.http.one_job import no_job, shown_result
from headgate.producer.client.http.queries import JobPages, usage_query
from headgate.producer.client.http.remote_answer import RemoteAnswer
from headgate.producer.client.loop_thread import CLOSED
from headgate.producer.client.per_loop import PerLoop
from headgate.producer.results.listing import JobFilters, Listed
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.producer.submit.fields import RequestFields, Requests
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route

SUBMIT_KEY = "idempotency-key"
"""A header by which a gateway knows a call that is sent again."""


class AsyncHttp:
    """An AsyncTransport to the gateway at this address; see there for its methods."""

    def __init__(self, address: GatewayAddress) -> None:
        self._address = address
        self._loops: PerLoop[_LoopParts] = PerLoop()
        self._is_closed = False

    async def open(self) -> None:
        """See whether the gateway answers."""
        await self._parts().at.call("GET", "/health/live")

    async def submit(self, prompt: str | None, fields: RequestFields) -> str:
        """Submit one job; return its id."""
        body = encoded(with_prompt(prompt, fields))
        headers = {SUBMIT_KEY: uuid.uuid4().hex}
        at = self._parts().at
        answer = await at.call("POST", "/v1/jobs", body, headers=headers, submits=True)
        return str(answer.body["id"])

    async def submit_many(self, requests: Requests, samples: int) -> list[str]:
        """Submit many jobs; return their ids."""
        return await self.submit_slices(await asyncio.to_thread(sliced, requests, samples), samples)

    async def submit_slices(self, parts: Sequence[Slice], samples: int) -> list[str]:
        """Submit what `sliced` has checked; return the ids of the jobs."""
        return await submit_all(self._parts().at, parts, samples)

    async def route(self, prompt: str | None, fields: RequestFields) -> Route:
        """Return which model "auto" would get."""
        body = encoded(with_prompt(prompt, fields))
        return reports.route_in((await self._parts().at.call("POST", "/v1/route", body)).body)

    async def check(self, prompt: str | None, fields: RequestFields) -> AdmissionCheck:
        """Return whether this request would be let in."""
        body = encoded(with_prompt(prompt, fields))
        return reports.check_in((await self._parts().at.call("POST", "/v1/check", body)).body)

    async def result(self, job_id: str) -> Result:
        """Return the result as it is now."""
        require_job_id(job_id)
        no_job(job_id)
        return await shown_result(self._parts().at, job_id)

    async def results(self, ids: Sequence[str]) -> list[Result]:
        """Return results as they are now."""
        return await results_now(self._parts().at, ids)

    async def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result once the job has ended."""
        return await self._parts().ends.ended(job_id, timeout_s)

    async def pieces(
        self, job_id: str, timeout_s: float | None, pulse_s: float | None, after: int | str
    ) -> RemoteAnswer:
        """Begin to read the answer of a job."""
        at = self._parts()
        reading = RemoteAnswer(at.at, at.ends, job_id, timeout_s, pulse_s, after)
        reading.open()
        return reading

    async def status(self, job_id: str) -> Status:
        """Return the status now."""
        require_job_id(job_id)
        no_job(job_id)
        answer = await self._parts().at.call("GET", job_path(job_id, "status"))
        found: Status = answer.body["status"]
        return found

    async def jobs(self, asked: JobFilters) -> list[Listed]:
        """Return the newest jobs first."""
        page: JobPages | None = JobPages.of(asked)
        found: list[Listed] = []
        while page is not None:
            answer = await self._parts().at.call("GET", "/v1/jobs", query=page.parameters)
            listed = [reports.listed_in(one) for one in answer.body["jobs"]]
            found += listed
            page = page.after(len(listed), answer.body["next_cursor"])
        return found

    async def usage(
        self, by: UsageKey | str | Sequence[UsageKey], asked: UsageQuery
    ) -> UsageReport:
        """Return who used what."""
        query = usage_query(by, asked)
        return reports.usage_in((await self._parts().at.call("GET", "/v1/usage", query=query)).body)

    async def cancel(self, ids: Sequence[str], timeout_s: float) -> list[Result]:
        """Cancel jobs; wait for the workers of running ones, all together."""
        for job_id in ids:
            require_job_id(job_id)
        require_seconds("timeout_s", timeout_s)
        return await cancel_all(self._parts().at, ids, timeout_s)

    async def retry(self, job_id: str) -> str:
        """Queue a failed job again."""
        require_job_id(job_id)
        no_job(job_id)
        # Sent twice, the second call would find a job that is queued, and no failed one.
        at = self._parts().at
        answer = await at.call("POST", job_path(job_id, "retry"), b"{}", may_repeat=False)
        return str(answer.body["id"])

    async def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers."""
        answer = await self._parts().at.call("GET", "/v1/health", takes=503)  # no worker, perhaps
        return reports.health_in(answer.body, self._address.name)

    async def limits(self, pool: str | None, tenant: str | None) -> LimitsReport:
        """Return the limits in force."""
        given = {"pool": pool, "tenant": tenant}
        query = {name: value for name, value in given.items() if value is not None}
        answer = await self._parts().at.call("GET", "/v1/limits", query=query)
        return reports.limits_in(answer.body)

    async def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent."""
        answer = await self._parts().at.call("GET", "/v1/budgets")
        return [reports.budget_in(row) for row in answer.body["budgets"]]

    async def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is."""
        return reports.cache_in((await self._parts().at.call("GET", "/v1/cache")).body)

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        await self._loops.close()

    def _parts(self) -> _LoopParts:
        """Return the connections of the running event loop; make them if it has none."""
        if self._is_closed:
            raise RuntimeError(CLOSED)
        return self._loops.get() or self._loops.add(_LoopParts(self._address))


class _LoopParts:
    """What one event loop has of a client: its connections, and all who wait for jobs there."""

    def __init__(self, address: GatewayAddress) -> None:
        self.at = Connections(address)
        self.ends = JobEnds(self.at)

    async def close(self) -> None:
        """Cancel those who wait, and close the connections."""
        self.at.is_closed = True
        await self.ends.close()
        await self.at.close()
