"""The way of one call: who asks, what for, its job, and the answer.

answer
  _call          the caller's key, the body, our own fields
  _job           submit it, or take up the job of the same call before
  _wait, stream  wait for the job's end, or read its answer while it is made
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import redis.asyncio
from redis.exceptions import RedisError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from headgate.producer.callers.address_calls import limit_of_addresses
from headgate.producer.callers.addresses import client_address, proxies_of
from headgate.producer.callers.allowed import require_models, require_scope
from headgate.producer.callers.authenticate import Callers
from headgate.producer.callers.caller import OPEN_CALLER, Caller, Scope
from headgate.producer.callers.doorkeeper import Doorkeeper, is_loopback
from headgate.producer.callers.load import loader
from headgate.producer.callers.rates import RateReader, RatesOfCalls
from headgate.producer.client.operations import Operations
from headgate.producer.client.waiters import Waiters
from headgate.producer.errors import JobTimeout, ResultExpired, SubmitInterrupted, UnknownJob
from headgate.producer.gateway.calls import headers as response_headers
from headgate.producer.gateway.calls.body import gone
from headgate.producer.gateway.calls.call import GatewayCall, Kind, new_request_id
from headgate.producer.gateway.calls.departures import Departures
from headgate.producer.gateway.calls.dialects import ASKED_FOR, DIALECTS, answer_body, queued_body
from headgate.producer.gateway.calls.faults import CallRefused, fault_of, fault_of_result
from headgate.producer.gateway.calls.group_submit import GroupSubmit
from headgate.producer.gateway.calls.open_streams import OpenStreams
from headgate.producer.gateway.calls.ownership import Ownership
from headgate.producer.gateway.calls.previous_response import continued
from headgate.producer.gateway.calls.read_call import read_call
from headgate.producer.gateway.calls.replies import json_response, refusal
from headgate.producer.gateway.calls.report_turns import ReportTurns
from headgate.producer.gateway.calls.retries import RecentCalls
from headgate.producer.gateway.calls.streams import Streaming, stream_response
from headgate.producer.submit.fields import RequestFields
from headgate.shared.errors import HeadgateError, Unreachable, place_of
from headgate.shared.job.request import Dialect
from headgate.shared.job.result import Result
from headgate.shared.settings import Settings

log = logging.getLogger("headgate.gateway")

MODEL_USED = "x-headgate-model-used"
BULK_AT_ONCE = 2
"""So many calls submit many jobs at once; others wait."""

NO_WORKER_S = 5.0
"""A call waits so long for a worker to come, unless it says how long it waits."""


NOT_RESUMED = (
    "the stream cannot be resumed: its call is not known any more, or has failed. "
    "Give the same body and Idempotency-Key, or call without Last-Event-ID"
)


class Parts(NamedTuple):
    """What a gateway process has once its servers answer."""

    waiters: Waiters
    recent: RecentCalls
    callers: Callers
    client: redis.asyncio.Redis
    rates: RatesOfCalls


class Door:
    """All calls of one gateway process. Use it in one event loop.

    `reports` reads reports, which may be much work. `bulk` is held while a call submits many jobs:
    it takes one of the few threads that all calls share.
    """

    def __init__(self, settings: Settings, operations: Operations) -> None:
        self.settings = settings
        self.operations = operations
        self.departures = Departures(operations, self._recent, self._is_awaited)
        self.ownership = Ownership(operations)
        self.reports = ReportTurns()
        self.bulk = asyncio.Semaphore(BULK_AT_ONCE)
        self._group = GroupSubmit(operations.submit_each)
        self._submitting: dict[str, asyncio.Future[str]] = {}
        self._parts: Parts | None = None
        self._opening: asyncio.Task[Parts] | None = None
        self.open_streams = OpenStreams(settings.gateway_streams)
        self._proxies = proxies_of(settings.gateway_proxies)
        self._keeper = Doorkeeper.of(settings)

    async def parts(self) -> Parts:
        """Return what needs the servers; raise Unreachable while they do not answer."""
        if self._parts is not None:
            return self._parts
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="open the servers")
        # All who call meanwhile share one attempt: it may take its time, and one alone is enough.
        return await asyncio.shield(self._opening)

    async def _open(self) -> Parts:
        at = await asyncio.to_thread(self.operations.open)
        client = at.servers.async_redis_client()
        rpm = self.settings.gateway_rpm_per_address
        callers = Callers(loader(at), count_call=limit_of_addresses(client, at.keys, rpm))
        reader = RateReader(client, at.keys)
        rates = RatesOfCalls(reader, lambda: self.operations.open().catalog)
        recent, waiters = RecentCalls(client, at.keys), self.operations.waiters(at)
        self._parts = Parts(waiters, recent, callers, client, rates)
        return self._parts

    async def close(self) -> None:
        """Wait for what is being written, and close all connections."""
        await self._group.close()
        await self.departures.close()
        if self._parts is not None:
            self._parts.callers.close()
            await self._parts.recent.close()
            await self._parts.waiters.close()
            await self._parts.client.aclose()
        await asyncio.to_thread(self.operations.close)

    async def answer(self, request: Request, kind: Kind) -> Response:
        """Return the answer to a call, or why there is none, in the caller's dialect."""
        dialect, request_id = DIALECTS[kind], new_request_id()
        call: GatewayCall | None = None
        try:
            call = await self._call(request, kind, request_id)
            response = await self._respond(request, call)
        except ClientDisconnect:
            return Response(status_code=499)
        except asyncio.CancelledError:
            if not self.departures.stopping:
                raise
            return self.refused(dialect, stopping(), request_id)
        except Exception as error:
            response = self.refused(dialect, error, request_id)
        if call is not None:
            model = response.headers.get(MODEL_USED, call.model)
            response.headers.update(await self.rates_of(call.fields, model, call.dialect))
        return response

    async def _respond(self, request: Request, call: GatewayCall) -> Response:
        if call.kind == "responses":
            call = await continued(self.operations, call)
        if call.streams:
            return await self.stream(request, call)
        if call.background:
            job_id = await self._job(call)
            facts = response_headers.job_headers(call, job_id)
            return json_response(queued_body(call, job_id), facts)
        return await self._wait(request, call)

    async def rates_of(
        self, fields: RequestFields, model: str, dialect: Dialect = "openai"
    ) -> Mapping[str, str]:
        """Return what is left of the limits that bind the caller of this request."""
        try:
            return await (await self.parts()).rates.headers(fields, model, dialect)
        except HeadgateError:  # without Redis nothing is known
            return {}
        except Exception as error:  # the answer is there, and goes without them
            log.error("no limits are known for an answer: %s", place_of(error))
            return {}

    def refused(self, dialect: Dialect, error: Exception, request_id: str) -> Response:
        """Return the answer for an error."""
        return refusal(dialect, fault_of(own_error_of(error, request_id)), request_id)

    async def caller_of(self, request: Request, scope: Scope | None) -> Caller:
        """Return who calls; raise KeyRefused unless the caller may do that."""
        if self.settings.gateway_open:
            return OPEN_CALLER
        peer = request.client.host if request.client is not None else ""
        address = client_address(peer, request.headers, self._proxies)
        caller = await (await self.parts()).callers.of(request.headers, address)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        self._keeper.require_page(host, origin, caller)
        if scope is not None:
            require_scope(caller, scope)
        return caller

    async def require_reader(self, request: Request) -> None:
        """Raise KeyRefused unless the caller has a key, or is a program of this machine."""
        host = request.client.host if request.client is not None else ""
        if not is_loopback(host) or "x-forwarded-for" in request.headers:
            await self.caller_of(request, None)

    async def require_models(self, caller: Caller, names: Iterable[str]) -> None:
        """Raise KeyRefused if the caller may not name one of these models."""
        if caller.models is not None:
            at = await asyncio.to_thread(self.operations.current)
            require_models(caller, names, at.catalog)

    async def _call(self, request: Request, kind: Kind, request_id: str) -> GatewayCall:
        caller = await self.caller_of(request, ASKED_FOR[kind])
        call = await read_call(request, kind, caller, self.settings, request_id)
        others = call.fields.get("fallback")
        names = [call.model, *(others if isinstance(others, list) else ())]
        await self.require_models(caller, names)
        return call

    async def submit(self, fields: RequestFields) -> str:
        """Submit one request together with those of other calls; return the id of its job."""
        return await self._group.submit(fields)

    async def _job(self, call: GatewayCall) -> str:
        """Return the job of the call: that of the same call before, or a new one."""
        recent = (await self.parts()).recent
        fields = call.fields
        asks_again = call.retry or call.after or "idempotency_key" in fields
        before = await self._before(recent, call) if asks_again else None
        if call.after and (before is None or not before[1]):
            raise CallRefused("gone", NOT_RESUMED, param="starting_after")
        if before is not None:
            job_id, is_good = before
            if is_good:
                recent.note(call.digest, job_id, call.request_id)
                return job_id
            if key := fields.get("idempotency_key"):
                fields = _with_next_key(fields, key, job_id)
        if not call.digest:
            return await self._group.submit(fields)
        return await self._submit_once(recent, call, fields)

    async def _submit_once(
        self, recent: RecentCalls, call: GatewayCall, fields: RequestFields
    ) -> str:
        """Return the new job of a call, or that of the call before which is being submitted now.

        What becomes of it is noted also if the caller goes away meanwhile.
        """
        first = self._submitting.get(call.digest) if call.retry else None
        if first is not None:
            job_id = await asyncio.shield(first)
            recent.note(call.digest, job_id, call.request_id)
            return job_id
        future = self._submitting[call.digest] = self._group.put(fields)

        def ended(_: object) -> None:
            if self._submitting.get(call.digest) is future:
                del self._submitting[call.digest]
            if (job_id := _job_on_record(future)) is not None:
                recent.note(call.digest, job_id, call.request_id)

        future.add_done_callback(ended)
        return await asyncio.shield(future)

    async def _recent(self) -> RecentCalls:
        return (await self.parts()).recent

    def _is_awaited(self, job_id: str) -> bool:
        return self._parts is not None and self._parts.waiters.waits_for(job_id)

    async def stream(
        self, request: Request, call: GatewayCall, job_id: str | None = None
    ) -> Response:
        """Return the stream of a job's answer; `job_id`: None: the call's own job."""
        waiters = (await self.parts()).waiters
        at = Streaming(waiters, self.operations, self.departures, self.open_streams)
        self.open_streams.begin(call.caller.key_id)
        try:
            job_id = job_id or await self._job(call)
        except BaseException:
            self.open_streams.end(call.caller.key_id)
            raise
        return await stream_response(at, request, call, job_id)

    async def _before(self, recent: RecentCalls, call: GatewayCall) -> tuple[str, bool] | None:
        """Return the job that the same call became before, and whether its answer can serve."""
        try:
            if (found := await recent.job_of(call.digest)) is not None:
                job_id, is_cancelled = found
                try:
                    ended = await (await self.parts()).waiters.ended_already(job_id)
                except (UnknownJob, ResultExpired):  # it never was on record, or is not any more
                    return job_id, False
                if ended is None:
                    return job_id, not is_cancelled
                return job_id, ended.status == "succeeded"
        except RedisError as error:
            if call.after:  # a new job would not go on with the stream
                raise Unreachable("Redis", type(error).__name__, "try again") from error
        return None

    async def _wait(self, request: Request, call: GatewayCall) -> Response:
        job_id = await self._job(call)
        ended = asyncio.ensure_future(self.result(call, job_id))
        left = asyncio.ensure_future(gone(request))
        try:
            await asyncio.wait((ended, left), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self.departures.leave(call, job_id)
                return Response(status_code=499)
        finally:
            left.cancel()
            ended.cancel()
        result = ended.result()
        facts = response_headers.facts(call, result)
        if result.status != "succeeded":
            return refusal(call.dialect, fault_of_result(result), call.request_id, facts)
        if not call.is_stored:
            self.departures.shed(job_id)
        return json_response(answer_body(call, result), facts)

    async def result(self, call: GatewayCall, job_id: str) -> Result:
        """Return the result once the job has ended, however it ended.

        Raises JobTimeout when the time of the call is over, and CallRefused if there is no worker.
        """
        waiters = (await self.parts()).waiters
        is_new = not (call.retry or call.after or "idempotency_key" in call.fields)
        if call.is_patient or call.wait_s <= NO_WORKER_S:
            return await waiters.ended(job_id, call.wait_s, is_new=is_new)
        try:
            return await waiters.ended(job_id, NO_WORKER_S, is_new=is_new)
        except Unreachable:  # the wait goes on: a server may come back before the job ends
            pass
        except JobTimeout as error:
            waiting_for = error.waiting_for
            if waiting_for is not None and waiting_for.kind == "no_worker":
                self.departures.cancel(job_id)
                words = f"no worker serves {waiting_for.name} now"
                raise CallRefused("unavailable", words, retry_after_s=NO_WORKER_S) from None
        left_s = call.began + call.wait_s - time.monotonic()
        return await waiters.ended(job_id, max(0.0, left_s))


def own_error_of(error: Exception, request_id: str) -> HeadgateError:
    """Return the error as one of ours. One that is none is logged by its place."""
    if not isinstance(error, HeadgateError):
        log.error("a fault of the gateway in call %s: %s", request_id, place_of(error))
        return HeadgateError()
    if isinstance(error, Unreachable):
        log.warning("call %s: %s", request_id, error)
    return error


def stopping() -> CallRefused:
    """Return the refusal of calls that are open when the gateway stops."""
    words = "this gateway is stopping; ask again: a call with an Idempotency-Key goes on"
    return CallRefused("unavailable", words, retry_after_s=1)


def _job_on_record(submitted: asyncio.Future[str]) -> str | None:
    """Return the job of a call that was submitted; also one of which the commit is not sure."""
    if submitted.cancelled():
        return None
    error = submitted.exception()
    if isinstance(error, SubmitInterrupted) and error.unsure_ids:
        return error.unsure_ids[0]
    return submitted.result() if error is None else None


def _with_next_key(fields: RequestFields, key: str, job_id: str) -> RequestFields:
    """Return the fields with a key of the next try: the job that has this key has failed."""
    made: RequestFields = {**fields, "idempotency_key": f"{key[:200]}~{job_id}"}
    return made
