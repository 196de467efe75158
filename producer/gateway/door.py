"""The way of one call: who asks, what for, its job, and the answer.

answer
  _call          the caller's key, the body, our own fields
  _job           submit it, or take up the job of the same call before
  _wait, stream  wait for the job's end, or read its answer while it is made
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
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
from headgate.producer.errors import JobTimeout
from headgate.producer.gateway import headers as response_headers
from headgate.producer.gateway.body import gone
from headgate.producer.gateway.call import GatewayCall, Kind, new_request_id
from headgate.producer.gateway.departures import Departures
from headgate.producer.gateway.dialects import ASKED_FOR, DIALECTS, answer_body
from headgate.producer.gateway.faults import CallRefused, fault_of, fault_of_result
from headgate.producer.gateway.group_submit import GroupSubmit
from headgate.producer.gateway.open_streams import OpenStreams
from headgate.producer.gateway.read_call import read_call
from headgate.producer.gateway.responses import json_response, refusal
from headgate.producer.gateway.retries import RecentCalls
from headgate.producer.gateway.streams import Streaming, stream_response
from headgate.producer.submit.fields import RequestFields
from headgate.shared.admission.tiers import by_catalog
from headgate.shared.errors import HeadgateError, Unreachable, place_of
from headgate.shared.job.request import Dialect
from headgate.shared.job.result import Result
from headgate.shared.settings import Settings

log = logging.getLogger("headgate.gateway")

MODEL_USED = "x-headgate-model-used"
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
    """All calls of one gateway process. Use it in one event loop."""

    def __init__(self, settings: Settings, operations: Operations) -> None:
        self.settings = settings
        self.operations = operations
        self.departures = Departures(operations, self._recent)
        self._group = GroupSubmit(operations.submit_each)
        self._parts: Parts | None = None
        self._opening = asyncio.Lock()
        self._streams = OpenStreams(settings.gateway_streams)
        self._proxies = proxies_of(settings.gateway_proxies)
        self._keeper = Doorkeeper.of(settings)

    async def parts(self) -> Parts:
        """Return what needs the servers; raise Unreachable while they do not answer."""
        if self._parts is None:
            async with self._opening:
                if self._parts is None:
                    at = await asyncio.to_thread(self.operations.open)
                    client = at.servers.async_redis_client()
                    recent = RecentCalls(client, at.keys)
                    waiters = self.operations.waiters(at)
                    rpm = self.settings.gateway_rpm_per_address
                    counted = limit_of_addresses(client, at.keys, rpm)
                    callers = Callers(loader(at), count_call=counted)
                    reader = RateReader(client, at.keys)
                    rates = RatesOfCalls(reader, at.catalog, by_catalog(at.catalog))
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
            response = await (self._stream if call.streams else self._wait)(request, call)
        except ClientDisconnect:
            return Response(status_code=499)
        except asyncio.CancelledError:
            if not self.departures.stopping:
                raise
            return self.refused(dialect, _stopping(), request_id)
        except Exception as error:
            response = self.refused(dialect, error, request_id)
        if call is not None:
            with suppress(HeadgateError):  # without Redis nothing is known
                response.headers.update(await self._rates(call, response))
        return response

    async def _rates(self, call: GatewayCall, response: Response) -> Mapping[str, str]:
        """Return what is left of the limits that bind the caller."""
        model = response.headers.get(MODEL_USED, call.model)
        return await (await self.parts()).rates.headers(call.fields, model, call.dialect)

    def refused(self, dialect: Dialect, error: Exception, request_id: str) -> Response:
        """Return the answer for an error. One that is no error of ours is logged by its place."""
        if not isinstance(error, HeadgateError):
            log.error("a fault of the gateway in call %s: %s", request_id, place_of(error))
            error = HeadgateError()
        elif isinstance(error, Unreachable):
            log.warning("call %s: %s", request_id, error)
        return refusal(dialect, fault_of(error), request_id)

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
        job_id = await self._group.submit(fields)
        if call.digest:
            recent.note(call.digest, job_id, call.request_id)
        return job_id

    async def _recent(self) -> RecentCalls:
        return (await self.parts()).recent

    async def _stream(self, request: Request, call: GatewayCall) -> Response:
        waiters = (await self.parts()).waiters
        at = Streaming(waiters, self.operations, self.departures, self._streams)
        self._streams.begin(call.caller.key_id)
        try:
            job_id = await self._job(call)
        except BaseException:
            self._streams.end(call.caller.key_id)
            raise
        return await stream_response(at, request, call, job_id)

    async def _before(self, recent: RecentCalls, call: GatewayCall) -> tuple[str, bool] | None:
        """Return the job that the same call became before, and whether its answer can serve."""
        with suppress(RedisError):
            job_id = await recent.job_of(call.digest)
            if job_id is not None:
                ended = await (await self.parts()).waiters.ended_already(job_id)
                return job_id, ended is None or ended.status == "succeeded"
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
        except JobTimeout as error:
            waiting_for = error.waiting_for
            if waiting_for is not None and waiting_for.kind == "no_worker":
                self.departures.cancel(job_id)
                words = f"no worker serves {waiting_for.name} now"
                raise CallRefused("unavailable", words, retry_after_s=NO_WORKER_S) from None
            return await waiters.ended(job_id, call.wait_s - NO_WORKER_S)


def _stopping() -> CallRefused:
    words = "this gateway is stopping; ask again: a call with an Idempotency-Key goes on"
    return CallRefused("unavailable", words, retry_after_s=1)


def _with_next_key(fields: RequestFields, key: str, job_id: str) -> RequestFields:
    """Return the fields with a key of the next try: the job that has this key has failed."""
    made: RequestFields = {**fields, "idempotency_key": f"{key[:200]}~{job_id}"}
    return made
