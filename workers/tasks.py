"""The task `headgate.run`: turns Celery's call into a Delivery, and the outcome into a word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

from celery import Celery, Task

from headgate.shared.admission.grant import NoTicket, decode
from headgate.shared.admission.ticket import ticket_for
from headgate.shared.broker.queues import TASK
from headgate.shared.broker.results import GIVEN_UP
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.catalog.templates import expanded
from headgate.shared.errors import InvalidRequest, NewerEnvelope, UnreadableMessage, place_of
from headgate.shared.job.encoding import json_bytes, refuse_oversize
from headgate.shared.job.envelope import ENVELOPE_VERSION, NEWEST_VERSION, Envelope
from headgate.shared.job.request import AUTO, Request, request_from
from headgate.shared.routing.choose import ModelStatus
from headgate.shared.routing.router import Router
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.bootstrap import WorkerParts, keyed, keyless, open_parts
from headgate.workers.celery.pool import JobRequest, RunningJob, current
from headgate.workers.celery.shutdown import EXIT_WRONG_USE
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.leases import Leases
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
    Request = JobRequest  # type: ignore[assignment]  # Celery takes a class as well as its path

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

    def _use_catalog(self, models: Catalog) -> None:
        """Use this catalog for jobs that come from now on; running jobs keep the one before."""
        self.leases.providers = keyed(self.parts.settings, models)
        self.parts.call.follow(models)
        self.parts.pipeline.cache.follow(models)
        self.parts = replace(
            self.parts, catalog=models, pipeline=self.parts.pipeline.with_catalog(models),
            tier_of=self.parts.tiers_of(models),
        )  # fmt: skip

    async def run(self, /, *args: Any, **kwargs: Any) -> str:
        """Run the job and return how the run ended, in a few words for Celery and Flower."""
        running = current.get()
        delivery = None
        try:
            delivery = self._delivery(running, args, kwargs)
            if (ticket := await self._ticket(delivery)) is not None:
                await self.leases.defer(running.tag, 0, ticket)
                return "in line"
            return await self._finish(running, await self.parts.pipeline.run(delivery))
        except asyncio.CancelledError:
            return await self._finish(running, Restored())
        except NewerEnvelope as error:
            return await self._leave_to_newer_worker(running, error)
        except UnreadableMessage as error:
            await self.leases.bury(running.tag, error.reason)
            return "unreadable"
        except InvalidRequest as error:  # no row can hold it; str(error) would quote the value
            await self.leases.bury(running.tag, f"{error.field}: {error.remedy}")
            return "unreadable"
        except Exception as error:
            if running.stopped == "shutdown":  # the servers may be away: not the job's fault
                return await self._finish(running, Restored())
            return await self._fail(running, delivery, error)

    async def _leave_to_newer_worker(self, running: RunningJob, job: NewerEnvelope) -> str:
        """Let a job of the next release wait for a worker of that release, until its deadline."""
        at_ms = self.parts.pipeline.clock_ms()
        left_ms = job.deadline_at_ms - at_ms
        if left_ms <= 0:
            reason = f"{job.reason}; no worker of it came before the job's deadline"
            await self.leases.bury(running.tag, reason)
            return "unreadable"
        if not self.has_left_some:
            self.has_left_some = True
            log.warning("leaving jobs of the next release to workers of that release")
        # The wait grows with the job's age: it is short while workers are being replaced.
        wait_ms = min(LEFT_MAX_MS, max(LEFT_MIN_MS, (at_ms - job.submitted_at_ms) // 4))
        await self.leases.defer(running.tag, min(wait_ms, left_ms), unsent=True)
        return "left for a newer worker"

    async def _fail(self, running: RunningJob, delivery: Delivery | None, error: Exception) -> str:
        """Let the job be tried again after a fault of Headgate's own; at last bury it."""
        fault = place_of(error)
        log.error("job %s: a fault of Headgate's own: %s", running.request["id"], fault)
        if _crashes(running) + 1 >= self.parts.settings.max_deliveries:
            try:
                if delivery is not None:
                    await self._give_up(delivery, fault)
            except Exception as again:
                log.error(
                    "job %s: its end is not recorded: %s", running.request["id"], place_of(again)
                )
            await self.leases.bury(running.tag, f"{GIVEN_UP}: {fault}")
            return "given up"
        self.leases.drop(running.tag)
        return "to be tried again"

    async def _give_up(self, delivery: Delivery, reason: str) -> None:
        """Record that the job has failed. Left open, it would be sent again for ever."""
        pipeline = self.parts.pipeline
        claim = await through(pipeline.claims.take(delivery.envelope))
        if isinstance(claim, Claim):
            job = JobRun(delivery.envelope, claim)
            await through(pipeline.end(job, job.given_up(reason)))

    async def _finish(self, running: RunningJob, outcome: Outcome) -> str:
        """Do with the message what the outcome asks, and return the outcome in a word."""
        match outcome:
            case Ended(result, gave_up):
                if gave_up is not None:
                    await self.leases.bury(running.tag, gave_up)
                return result.status
            case Deferred(wait_ms, ticket):
                await self.leases.defer(running.tag, wait_ms, ticket)
                return "deferred"
            case Restored():
                if running.stopped == "shutdown":
                    self.leases.returning.add(running.tag)  # all at once, in their order
                else:
                    await self.leases.restore([running.tag])
                return "restored"
            case AlreadyTaken():
                return "already taken"
            case _:
                assert_never(outcome)

    def _delivery(self, running: RunningJob, args: Any, kwargs: Any) -> Delivery:
        """Return the delivery of this call. Raises UnreadableMessage or NewerEnvelope."""
        refusal = None
        fields = args[0] if args else kwargs
        if isinstance(fields, dict) and "v" in fields:
            envelope = Envelope.decode(fields)
            if envelope.id != running.request["id"]:
                raise UnreadableMessage("the envelope's id is not the message's id")
        else:
            envelope, refusal = self._from_request(running.request, fields)
        return Delivery(
            envelope,
            crashes=_crashes(running),
            stopped=lambda: running.stopped,
            revoked=bool(running.request.get("revoked")),
            refusal=refusal,
            grant=decode(running.request["properties"]["delivery_info"].get("grant", "")),
        )

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
        self, headers: Mapping[str, Any], fields: Any
    ) -> tuple[Envelope, InvalidRequest | None]:
        """Make the envelope of a bare request, as a stock `send_task("headgate.run", ...)` sends.

        Also returns why the request is refused, or None.
        """
        refusal = None
        stand_in = request_from({"prompt": "(the request could not be read)"})
        try:
            if not isinstance(fields, dict):
                raise InvalidRequest("request", fields, "give an object with prompt or messages")
            request = request_from(fields)
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
            v=NEWEST_VERSION if model.variant_of else ENVELOPE_VERSION,
            id=headers["id"],
            group=headers.get("group"),
            request=request,
            model=model.name,
            model_class=model.model_class,
            submitted_at_ms=self.parts.pipeline.clock_ms(),
        )
        return envelope, refusal


def _model_of(request: Request, parts: WorkerParts) -> Model:
    """Return the model of a bare request; `auto` chooses by the keys that this worker has."""
    name = request.model or parts.settings.model
    if name != AUTO:
        return parts.catalog.model(name)
    if parts.catalog.digest not in _routers:
        _routers.clear()
        status = ModelStatus(keyless=keyless(parts.settings, parts.catalog))
        _routers[parts.catalog.digest] = Router(parts.catalog, lambda: status)
    return _routers[parts.catalog.digest].model(request)


_routers: dict[str, Router] = {}
"""The router by the digest of the catalog in force."""


def _crashes(running: RunningJob) -> int:
    return int(running.request["properties"]["delivery_info"]["crashes"])


def register(app: Celery) -> None:
    """Register `headgate.run` with this app."""
    app.register_task(JobTask())
