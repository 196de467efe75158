"""The way of one call: who asks, what for, its job, and the answer.

answer
  _call          the caller's key, the body, our own fields
  _job           submit it, or take up the job of the same call before
  _wait, stream  wait for the job's end, or read its answer while it is made
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import redis.asyncio
from redis.exceptions import RedisError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from headgate.producer.callers.addresses import client_address, proxies_of
from headgate.producer.callers.allowed import require_models, require_scope
from headgate.producer.callers.authenticate import Callers
from headgate.producer.callers.caller import OPEN_CALLER, Caller, Scope
from headgate.producer.client.operations import Operations
from headgate.producer.client.waiters import Waiters
from headgate.producer.errors import JobTimeout
from headgate.producer.gateway import headers as response_headers
from headgate.producer.gateway import own_fields
from headgate.producer.gateway.body import decoded, gone, read_body
from headgate.producer.gateway.call import Call, Kind, new_request_id
from headgate.producer.gateway.dialects import ASKED_FOR, DIALECTS, answer_body, fields_of
from headgate.producer.gateway.faults import CallRefused, fault_of, fault_of_result
from headgate.producer.gateway.group_submit import GroupSubmit
from headgate.producer.gateway.responses import json_response, refusal
from headgate.producer.gateway.retries import RecentCalls, digest_of
from headgate.producer.gateway.streams import stream_response
from headgate.producer.gateway.who import callers_of
from headgate.producer.submit.fields import RequestFields
from headgate.shared.errors import HeadgateError, Unreachable, place_of
from headgate.shared.job.request import Dialect
from headgate.shared.job.result import Result
from headgate.shared.settings import Settings

log = logging.getLogger("headgate.gateway")

NO_WORKER_S = 5.0
"""A call waits so long for a worker to come, unless it says how long it waits."""

GRACE_S = 10.0
"""How long the job of a caller that went away stays, if the caller may ask for it again. The
vendors' libraries do so after 8 s at most."""


class Parts(NamedTuple):
    """What a gateway process has once its servers answer."""

    waiters: Waiters
    recent: RecentCalls
    callers: Callers
    client: redis.asyncio.Redis


class Door:
    """All calls of one gateway process. Use it in one event loop."""

    def __init__(self, settings: Settings, operations: Operations) -> None:
        self.settings = settings
        self.operations = operations
        self.stopping = False
        self._group = GroupSubmit(operations.submit_each)
        self._parts: Parts | None = None
        self._opening = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._streams: Counter[str] = Counter()
        self._proxies = proxies_of(settings.gateway_proxies)

    async def parts(self) -> Parts:
        """Return what needs the servers; raise Unreachable while they do not answer."""
        if self._parts is None:
            async with self._opening:
                if self._parts is None:
                    at = await asyncio.to_thread(self.operations.open)
                    client = at.servers.async_redis_client()
                    recent = RecentCalls(client, at.keys)
                    waiters = self.operations.waiters(at)
                    callers = callers_of(self.settings, self.operations, client, at.keys)
                    self._parts = Parts(waiters, recent, callers, client)
        return self._parts

    async def close(self) -> None:
        """Wait for what is being written, and close all connections."""
        await self._group.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._parts is not None:
            await self._parts.waiters.close()
            await self._parts.client.aclose()
        await asyncio.to_thread(self.operations.close)

    async def answer(self, request: Request, kind: Kind) -> Response:
        """Return the answer to a call, or why there is none, in the caller's dialect."""
        dialect, request_id = DIALECTS[kind], new_request_id()
        try:
            call = await self._call(request, kind, request_id)
            job_id = await self._job(call)
            if call.streams:
                return await stream_response(self, request, call, job_id)
            return await self._wait(request, call, job_id)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            return self.refused(dialect, error, request_id)

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
        if scope is not None:
            require_scope(caller, scope)
        return caller

    async def require_models(self, caller: Caller, names: Iterable[str]) -> None:
        """Raise KeyRefused if the caller may not name one of these models."""
        if caller.models is not None:
            at = await asyncio.to_thread(self.operations.current)
            require_models(caller, names, at.catalog)

    def count_stream(self, caller: Caller, change: int) -> None:
        """Count a stream that begins or ends; raise CallRefused if the key has too many."""
        count = self._streams[caller.key_id] + change
        if change > 0 and count > self.settings.gateway_streams:
            words = "this key has too many open streams (HEADGATE_GATEWAY_STREAMS)"
            raise CallRefused("key_limit", words, retry_after_s=1)
        self._streams[caller.key_id] = count

    async def _call(self, request: Request, kind: Kind, request_id: str) -> Call:
        headers, settings = request.headers, self.settings
        caller = await self.caller_of(request, ASKED_FOR[kind])
        most_bytes, within_s = settings.gateway_body_mb * 1_000_000, settings.gateway_body_s
        raw = await read_body(request, most_bytes=most_bytes, within_s=within_s)
        body = decoded(raw)
        ours = own_fields.own_fields(headers, body, caller)
        wish = fields_of(kind, body, headers)
        fields: dict[str, Any] = {**wish.fields, **ours}
        model = str(fields.get("model") or settings.model)
        others = fields.get("fallback")
        await self.require_models(caller, [model, *(others if isinstance(others, list) else ())])
        if isinstance(wish.user, str) and wish.user and caller.any_user:
            fields.setdefault("user", wish.user)
        is_patient = "deadline_s" in fields
        wait_s = fields.setdefault("deadline_s", settings.gateway_wait_s)
        count = headers.get("x-stainless-retry-count", "")
        is_count = count.isascii() and count.isdigit() and len(count) < 10
        retry = int(count) if is_count else None
        key = fields.get("idempotency_key")
        digest = ""
        if key is not None or retry is not None:
            digest = digest_of(caller, request.url.path, raw, key)
        return Call(
            DIALECTS[kind], kind, caller, fields, request_id, model,  # type: ignore[arg-type]
            wait_s=min(wait_s, settings.gateway_wait_s)
            if isinstance(wait_s, int | float)
            else settings.gateway_wait_s,
            is_patient=is_patient,
            detach=own_fields.is_on(headers, "detach"),
            include_usage=wish.include_usage,
            base64=wish.base64,
            retry=retry,
            digest=digest,
            after=_last_event(request),
        )  # fmt: skip

    async def _job(self, call: Call) -> str:
        """Return the job of the call: that of the same call before, or a new one."""
        recent = (await self.parts()).recent
        fields = call.fields
        asks_again = call.retry or "idempotency_key" in fields
        if asks_again and (before := await self._before(recent, call)) is not None:
            job_id, is_good = before
            if is_good:
                await self._note(recent, call, job_id)
                return job_id
            if key := fields.get("idempotency_key"):
                fields = _with_next_key(fields, key, job_id)
        job_id = await self._group.submit(fields)
        if call.digest:
            await self._note(recent, call, job_id)
        return job_id

    async def _before(self, recent: RecentCalls, call: Call) -> tuple[str, bool] | None:
        """Return the job that the same call became before, and whether its answer can serve."""
        with suppress(RedisError):
            job_id = await recent.job_of(call.digest)
            if job_id is not None:
                ended = await (await self.parts()).waiters.ended_already(job_id)
                return job_id, ended is None or ended.status == "succeeded"
        return None

    async def _note(self, recent: RecentCalls, call: Call, job_id: str) -> None:
        with suppress(RedisError):  # then a retry is a job of its own
            await recent.note(call.digest, job_id, call.request_id)

    async def _wait(self, request: Request, call: Call, job_id: str) -> Response:
        ended = asyncio.ensure_future(self.result(call, job_id))
        left = asyncio.ensure_future(gone(request))
        try:
            await asyncio.wait((ended, left), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self.leave(call, job_id)
                return Response(status_code=499)
        finally:
            left.cancel()
            ended.cancel()
        result = ended.result()
        if result.status != "succeeded":
            return refusal(call.dialect, fault_of_result(result), call.request_id)
        facts = response_headers.facts(call, result)
        return json_response(answer_body(call, result), facts)

    async def result(self, call: Call, job_id: str) -> Result:
        """Return the result once the job has ended, however it ended.

        Raises JobTimeout when the time of the call is over, and CallRefused if there is no worker.
        """
        waiters = (await self.parts()).waiters
        if call.is_patient or call.wait_s <= NO_WORKER_S:
            return await waiters.ended(job_id, call.wait_s)
        try:
            return await waiters.ended(job_id, NO_WORKER_S)
        except JobTimeout as error:
            waiting_for = error.waiting_for
            if waiting_for is not None and waiting_for.kind == "no_worker":
                self._in_background(self._cancel(job_id))
                words = f"no worker serves {waiting_for.name} now"
                raise CallRefused("unavailable", words, retry_after_s=NO_WORKER_S) from None
            return await waiters.ended(job_id, call.wait_s - NO_WORKER_S)

    def leave(self, call: Call, job_id: str, *, resumable: bool = True) -> None:
        """Cancel the job of a caller that went away, unless the caller wants it or asks again."""
        if not (call.detach or self.stopping):
            self._in_background(self._cancel_later(call, job_id, resumable=resumable))

    async def _cancel_later(self, call: Call, job_id: str, *, resumable: bool) -> None:
        if call.digest and resumable:
            await asyncio.sleep(GRACE_S)
            with suppress(RedisError):
                if not await (await self.parts()).recent.is_last(call.digest, call.request_id):
                    return
        await self._cancel(job_id)

    async def _cancel(self, job_id: str) -> None:
        try:
            await asyncio.to_thread(self.operations.cancel, [job_id])
        except HeadgateError as error:
            log.warning("job %s, whose caller went away, was not cancelled: %s", job_id, error)

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _with_next_key(fields: RequestFields, key: str, job_id: str) -> RequestFields:
    """Return the fields with a key of the next try: the job that has this key has failed."""
    made: RequestFields = {**fields, "idempotency_key": f"{key[:200]}~{job_id}"}
    return made


def _last_event(request: Request) -> int:
    """Return the number of the last event that the caller has; 0: none."""
    given = request.query_params.get("starting_after") or request.headers.get("last-event-id")
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        words = f"starting_after: {given[:80]!r}: give the number of an event"
        raise CallRefused("invalid_request", words, param="starting_after")
    return int(given)
