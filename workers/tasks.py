"""The task `headgate.run`: turns an arrival into a Delivery, and the outcome into a word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

from celery import Celery, Task
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from headgate.shared.admission.grant import NoTicket, decode
from headgate.shared.admission.ticket import ticket_for
from headgate.shared.broker.queues import TASK
from headgate.shared.broker.results import GIVEN_UP
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.catalog.templates import expanded
from headgate.shared.errors import InvalidRequest, NewerEnvelope, UnreadableMessage, place_of
from headgate.shared.job.encoding import json_bytes, refuse_oversize
from headgate.shared.job.envelope import ENVELOPE_VERSION, SECOND_VERSION, Envelope
from headgate.shared.job.ids import LATEST_MS
from headgate.shared.job.request import AUTO, Request, request_from
from headgate.shared.routing.choose import ModelStatus
from headgate.shared.routing.router import Router
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.bootstrap import WorkerParts, keyed, keyless, open_parts
from headgate.workers.celery.canvas import prepared
from headgate.workers.celery.run_end import (
    AGAIN,
    DEFERRED,
    GAVE_UP,
    IN_LINE,
    LEFT,
    REFUSED,
    RETURNED,
    TAKEN,
    RunEnd,
)
from headgate.workers.celery.running_job import RunningJob
from headgate.workers.celery.shutdown import EXIT_WRONG_USE
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.leases import Leases
from headgate.workers.delivery.message import Readable
from headgate.workers.delivery.refused import waiter_of
from headgate.workers.delivery.stock_call import request_fields
from headgate.workers.pipeline.job_run import Delivery, JobRun
from headgate.workers.pipeline.outcome import AlreadyTaken, Deferred, Ended, Outcome, Restored
from headgate.workers.pipeline.shielded import through
from headgate.workers.policy import fallback
from headgate.workers.stages.claim import Claim

log = logging.getLogger("headgate.door")

LEFT_MIN_MS, LEFT_MAX_MS = 500, 30_000
"""How long a job of the next release waits on the due list before it is fetched again."""


class JobTask(Task):  # type: ignore[type-arg]  # generic only in its stubs
    """Runs one job per call. Opened and closed with the worker's pool, on its loop."""

    name = TASK
    acks_late = True
    ignore_result = True

    parts: WorkerParts
    leases: Leases
    has_left_some = False

    async def open(self, settings: Settings, servers: Servers, fetcher: Fetcher) -> None:
        """Open the worker's parts. Raises Unreachable, and SettingError for a wrong database."""
        self.leases = fetcher.leases
        stopping = getattr(self.app, "stopping", None)
        end = partial(stopping.fail, EXIT_WRONG_USE) if stopping is not None else None
        self.parts = await open_parts(settings, servers, fetcher.owner, fetcher.in_flight, end=end)
        self.leases.providers = keyed(settings, self.parts.catalog)
        reloading = self.parts.reload.run(self.parts.catalog, self._use_catalog)
        self._reloading = asyncio.create_task(reloading, name="reload")

    async def close(self) -> None:
        """Close the worker's parts."""
        self._reloading.cancel()
        await self.parts.close()

    async def revoke(self, ids: Sequence[str]) -> None:
        """Cancel those of these jobs that wait, as far as database and Redis answer."""
        try:
            await asyncio.to_thread(self.parts.revoke, ids)
        except (RedisError, DBAPIError) as error:
            log.warning("revoked jobs that wait are not cancelled: %s", place_of(error))

    def _use_catalog(self, models: Catalog) -> None:
        """Use this catalog for jobs that come from now on; running jobs keep the one before."""
        self.leases.providers = keyed(self.parts.settings, models)
        self.parts.call.follow(models)
        self.parts.pipeline.cache.follow(models)
        self.parts = replace(
            self.parts, catalog=models, pipeline=self.parts.pipeline.with_catalog(models),
            tier_of=self.parts.tiers_of(models),
        )  # fmt: skip

    async def run_job(self, running: RunningJob) -> RunEnd:
        """Run the job and return how the run ended, for Celery's events and Flower."""
        delivery = None
        try:
            delivery = self._delivery(running)
            if (ticket := await self._ticket(delivery)) is not None:
                await self.leases.defer(running.tag, 0, ticket)
                return IN_LINE
            return await self._finish(running, await self.parts.pipeline.run(delivery))
        except asyncio.CancelledError:
            return await self._finish(running, Restored())
        except NewerEnvelope as error:
            return await self._leave_to_newer_worker(running, error)
        except UnreadableMessage as error:
            return await self._refuse(running, error.reason)
        except InvalidRequest as error:  # no row can hold it; str(error) would quote the value
            return await self._refuse(running, f"{error.field}: {error.remedy}")
        except Exception as error:
            if running.stopped == "shutdown":  # the servers may be away: not the job's fault
                return await self._finish(running, Restored())
            return await self._fail(running, delivery, error)

    async def _leave_to_newer_worker(self, running: RunningJob, job: NewerEnvelope) -> RunEnd:
        """Let a job of the next release wait for a worker of that release, until its deadline."""
        at_ms = self.parts.pipeline.clock_ms()
        left_ms = job.deadline_at_ms - at_ms
        if left_ms <= 0:
            reason = f"{job.reason}; no worker of it came before the job's deadline"
            return await self._refuse(running, reason)
        if not self.has_left_some:
            self.has_left_some = True
            log.warning("leaving jobs of the next release to workers of that release")
        # The wait grows with the job's age: it is short while workers are being replaced.
        wait_ms = min(LEFT_MAX_MS, max(LEFT_MIN_MS, (at_ms - job.submitted_at_ms) // 4))
        await self.leases.defer(running.tag, min(wait_ms, left_ms), unsent=True)
        return LEFT

    async def _fail(
        self, running: RunningJob, delivery: Delivery | None, error: Exception
    ) -> RunEnd:
        """Let the job be tried again after a fault of Headgate's own; at last bury it."""
        fault = place_of(error)
        log.error("job %s: a fault of Headgate's own: %s", running.id, fault)
        if running.arrival.crashes + 1 >= self.parts.settings.max_deliveries:
            try:
                if delivery is not None:
                    await self._give_up(delivery, fault)
            except Exception as again:
                log.error("job %s: its end is not recorded: %s", running.id, place_of(again))
            await self._refuse(running, f"{GIVEN_UP}: {fault}")
            return GAVE_UP
        self.leases.drop(running.tag)
        return AGAIN

    async def _refuse(self, running: RunningJob, reason: str) -> RunEnd:
        """Make the message a dead letter; a stock producer that waits for it gets a failure."""
        waiter = waiter_of(running.headers, self.parts.settings.result_ttl_s)
        await self.leases.bury(running.tag, reason, waiter)
        return REFUSED

    async def _give_up(self, delivery: Delivery, reason: str) -> None:
        """Record that the job has failed. Left open, it would be sent again for ever."""
        pipeline = self.parts.pipeline
        claim = await through(pipeline.claims.take(delivery.envelope))
        if isinstance(claim, Claim):
            job = JobRun(delivery.envelope, claim)
            await through(pipeline.end(job, job.given_up(reason)))

    async def _finish(self, running: RunningJob, outcome: Outcome) -> RunEnd:
        """Do with the message what the outcome asks, and return how the run ended."""
        match outcome:
            case Ended(result, gave_up):
                if gave_up is not None:
                    await self.leases.bury(running.tag, gave_up)
                return RunEnd.of(result)
            case Deferred(wait_ms, ticket):
                await self.leases.defer(running.tag, wait_ms, ticket)
                return DEFERRED
            case Restored():
                if running.stopped == "shutdown":
                    self.leases.returning.add(running.tag)  # all at once, in their order
                else:
                    await self.leases.restore([running.tag])
                return RETURNED
            case AlreadyTaken():
                return TAKEN
            case _:
                assert_never(outcome)

    def _delivery(self, running: RunningJob) -> Delivery:
        """Return the delivery of this job. Raises UnreadableMessage or NewerEnvelope."""
        arrival, refusal = running.arrival, None
        args, kwargs, _ = arrival.content.body
        fields = args[0] if len(args) == 1 and not kwargs else None
        if isinstance(fields, dict) and "v" in fields:
            envelope = Envelope.decode(fields)
            if envelope.id != running.id:
                raise UnreadableMessage("the envelope's id is not the message's id")
        else:
            envelope, refusal = self._from_request(running.headers, args, kwargs)
        return Delivery(
            self._with_options(envelope, arrival.content),
            crashes=arrival.crashes,
            stopped=lambda: running.stopped,
            revoked=running.is_revoked,
            refusal=refusal,
            grant=decode(arrival.grant),
        )

    def _with_options(self, envelope: Envelope, content: Readable) -> Envelope:
        """Return the envelope with the `priority` and `expires` of a stock producer."""
        priority, expires_at_ms = content.priority, content.expires_at_ms
        if not priority and expires_at_ms is None:
            return envelope
        options: dict[str, Any] = {"step": self.parts.settings.sub_lists.step_of(priority)}
        if expires_at_ms is not None:
            options["expires_at_ms"] = max(0, min(LATEST_MS, expires_at_ms))
        return envelope.model_copy(update=options)

    async def _ticket(self, delivery: Delivery) -> str | None:
        """Return the ticket of a job that came without one; None if the job needs none.

        Stock producers, the release before and `recover` send such jobs. The limits of their
        callers were not asked, so a job with `on_limit: refuse` waits like the others.
        """
        if (
            not isinstance(delivery.grant, NoTicket)
            or delivery.refusal is not None
            or delivery.revoked
        ):
            return None
        if delivery.crashes >= self.parts.settings.max_deliveries:
            return None
        try:
            model = self.parts.catalog.model(delivery.envelope.model)
            chain = fallback.chain(delivery.envelope.request, model, self.parts.catalog)
            tier = await self._tier(delivery.envelope)
            ticket = ticket_for(
                delivery.envelope, model, self.parts.catalog, tier=tier, chain=chain,
                cache_policy=self.parts.pipeline.cache.policy,
            )  # fmt: skip
            return ticket.encode()
        except (InvalidRequest, TypeError, ValueError, RecursionError):
            return None  # no row can hold it either: the pipeline says why

    async def _tier(self, envelope: Envelope) -> str:
        """Return the tier that the request names, or the caller's; empty if there is none."""
        parts, request = self.parts, envelope.request
        if request.tier in parts.catalog.tiers:
            return request.tier or ""
        if parts.settings.tiers == "catalog":
            return parts.tier_of(request.tenant, request.user) or ""
        found = await asyncio.to_thread(parts.tier_of, request.tenant, request.user)
        return found or ""

    def _from_request(
        self, headers: Mapping[str, Any], args: Any, kwargs: Any
    ) -> tuple[Envelope, InvalidRequest | None]:
        """Make the envelope of a bare request, as a stock `send_task("headgate.run", ...)` sends.

        Also returns why the request is refused, or None. Raises UnreadableMessage for callbacks
        that cannot be sent.
        """
        canvas = headers.get("canvas")
        refusal = None
        stand_in = request_from({"prompt": "(the request could not be read)"})
        try:
            request = request_from(request_fields(args, kwargs))
            if (key := request.idempotency_key) is not None:
                remedy = "is of submit only; this message has named its job: send that id again"
                raise InvalidRequest("idempotency_key", key, remedy)
            request = expanded(request, self.parts.catalog.templates)
            if request.tier is not None:
                self.parts.catalog.tier(request.tier)
            model = _model_of(request, self.parts)
            refuse_oversize(json_bytes(request.model_dump(exclude_defaults=True)))
        except InvalidRequest as error:
            refusal, request = error, stand_in
            model = _model_of(stand_in, self.parts)
        envelope = Envelope(
            v=SECOND_VERSION if model.variant_of else ENVELOPE_VERSION,
            id=headers["id"],
            group=headers.get("group"),
            parent_id=headers.get("parent_id"),
            ignore_result=headers.get("result_ignored", False),
            canvas=None if canvas is None else prepared(canvas, headers["id"]),
            request=request,
            model=model.name,
            model_class=model.model_class,
            submitted_at_ms=self.parts.pipeline.clock_ms(),
        )
        return envelope, refusal


def _model_of(request: Request, parts: WorkerParts) -> Model:
    """Return the model of a bare request; `auto` chooses by the keys that this worker has."""
    name = request.model_or(parts.settings.model)
    if name != AUTO:
        return parts.catalog.model(name)
    if parts.catalog.digest not in _routers:
        _routers.clear()
        status = ModelStatus(keyless=keyless(parts.settings, parts.catalog))
        _routers[parts.catalog.digest] = Router(parts.catalog, lambda: status)
    return _routers[parts.catalog.digest].model(request)


_routers: dict[str, Router] = {}
"""The router by the digest of the catalog in force."""


def register(app: Celery) -> None:
    """Register `headgate.run` with this app."""
    app.register_task(JobTask())
