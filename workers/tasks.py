"""The door: Celery's call becomes a Delivery, the pipeline's outcome becomes Celery's words."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
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
from headgate.shared.job.envelope import ENVELOPE_VERSION, Envelope
from headgate.shared.job.request import AUTO, Request, json_bytes, refuse_oversize, request_from
from headgate.shared.routing.choose import ModelStatus
from headgate.shared.routing.router import Router
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.bootstrap import WorkerParts, keyless, open_kit
from headgate.workers.celery.pool import JobRequest, RunningJob, current
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.leases import Leases
from headgate.workers.pipeline.job_run import Delivery, JobRun
from headgate.workers.pipeline.outcome import AlreadyTaken, Deferred, Ended, Outcome, Restored
from headgate.workers.pipeline.shielded import through
from headgate.workers.policy import fallback
from headgate.workers.stages.claim import Claim

log = logging.getLogger("headgate.door")

LEFT_MIN_MS, LEFT_MAX_MS = 500, 30_000
"""How long a job of the next release waits in the due-list before it is met again."""


class JobTask(Task):  # type: ignore[type-arg]  # generic only in its stubs
    """The task `headgate.run`; opened and closed with the worker's pool, on its loop."""

    name = TASK
    acks_late = True
    ignore_result = True
    Request = JobRequest  # type: ignore[assignment]  # Celery takes a class as well as its path

    kit: WorkerParts
    leases: Leases
    left_some = False

    async def open(self, settings: Settings, servers: Servers, fetcher: Fetcher) -> None:
        """Jobs may come in; raises Unreachable when the record is not there."""
        self.leases = fetcher.leases
        self.kit = await open_kit(settings, servers, fetcher.owner)
        following = self.kit.reload.run(self.kit.catalog, self._follow)
        self._following = asyncio.create_task(following, name="reload")

    async def close(self) -> None:
        """No job comes in any more."""
        self._following.cancel()
        await self.kit.close()

    def _follow(self, models: Catalog) -> None:
        """Jobs that come from now on go by this catalog; those that run go by the one before."""
        self.kit.call.follow(models)
        self.kit.pipeline.cache.follow(models)
        self.kit = replace(
            self.kit, catalog=models, pipeline=self.kit.pipeline.with_catalog(models),
            tier_of=self.kit.tiers_by(models),
        )  # fmt: skip

    async def run(self, /, *args: Any, **kwargs: Any) -> str:
        """How the run ended, in one word: all that Celery and Flower get to know of it."""
        running = current.get()
        delivery = None
        try:
            delivery = self._delivery(running, args, kwargs)
            if (ticket := await self._ticket(delivery)) is not None:
                await self.leases.defer(running.tag, 0, ticket)
                return "in line"
            return await self._finish(running, await self.kit.pipeline.run(delivery))
        except asyncio.CancelledError:
            return await self._finish(running, Restored())
        except NewerEnvelope as error:
            return await self._leave(running, error)
        except UnreadableMessage as error:
            await self.leases.bury(running.tag, error.reason)
            return "unreadable"
        except InvalidRequest as error:  # it cannot be put on record; its own words quote the value
            await self.leases.bury(running.tag, f"{error.field}: {error.remedy}")
            return "unreadable"
        except Exception as error:
            if running.stopped == "shutdown":  # the servers may be away: no fault of the job's
                return await self._finish(running, Restored())
            return await self._fault(running, delivery, error)

    async def _leave(self, running: RunningJob, job: NewerEnvelope) -> str:
        """A job of the next release waits for a worker of its own, until its deadline."""
        at_ms = self.kit.pipeline.clock_ms()
        left_ms = job.deadline_at_ms - at_ms
        if left_ms <= 0:
            reason = f"{job.reason}; no worker of it came before the job's deadline"
            await self.leases.bury(running.tag, reason)
            return "unreadable"
        if not self.left_some:
            self.left_some = True
            log.warning("jobs of the next release have come; they are left for its workers")
        # Often enough while workers are being replaced, seldom if none comes.
        wait_ms = min(LEFT_MAX_MS, max(LEFT_MIN_MS, (at_ms - job.submitted_at_ms) // 4))
        await self.leases.defer(running.tag, min(wait_ms, left_ms), unsent=True)
        return "left for a newer worker"

    async def _fault(self, running: RunningJob, delivery: Delivery | None, error: Exception) -> str:
        """A fault of Headgate's own: never acknowledged, tried again, at last a dead letter."""
        fault = place_of(error)
        log.error("job %s: a fault of Headgate's own: %s", running.request["id"], fault)
        if _crashes(running) + 1 >= self.kit.settings.max_deliveries:
            try:
                if delivery is not None:
                    await self._give_up(delivery, fault)
            except Exception as again:
                log.error(
                    "job %s: its end is not written: %s", running.request["id"], place_of(again)
                )
            await self.leases.bury(running.tag, f"{GIVEN_UP}: {fault}")
            return "given up"
        self.leases.drop(running.tag)
        return "to be tried again"

    async def _give_up(self, delivery: Delivery, reason: str) -> None:
        """The job has ended as failed on record: left open, it would be sent again for ever."""
        pipeline = self.kit.pipeline
        claim = await through(pipeline.claims.take(delivery.envelope))
        if isinstance(claim, Claim):
            job = JobRun(delivery.envelope, claim)
            await through(pipeline.end(job, job.given_up(reason)))

    async def _finish(self, running: RunningJob, outcome: Outcome) -> str:
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
        refusal = None
        fields = args[0] if args else kwargs
        if isinstance(fields, dict) and "v" in fields:
            envelope = Envelope.decode(fields)
            if envelope.id != running.request["id"]:
                raise UnreadableMessage("the envelope's id is not the message's id")
        else:
            envelope, refusal = self._from_request(running.request["id"], fields)
        return Delivery(
            envelope,
            crashes=_crashes(running),
            stopped=lambda: running.stopped,
            revoked=bool(running.request.get("revoked")),
            refusal=refusal,
            grant=decode(running.request["properties"]["delivery_info"].get("grant", "")),
        )

    async def _ticket(self, delivery: Delivery) -> str | None:
        """What a job has to wait for that came without a ticket; None for one that came with it.

        Stock producers and the release before send such; so does the sweep. Nobody has asked the
        limits of their callers, so that one with `on_limit: refuse` waits like the others.
        """
        if (
            not isinstance(delivery.grant, NoTicket)
            or delivery.refusal is not None
            or delivery.revoked
        ):
            return None
        if delivery.crashes >= self.kit.settings.max_deliveries:
            return None
        try:
            model = self.kit.catalog.model(delivery.envelope.model)
            chain = fallback.chain(delivery.envelope.request, model, self.kit.catalog)
            tier = await self._tier(delivery.envelope)
            ticket = ticket_for(
                delivery.envelope, model, self.kit.catalog, tier=tier, chain=chain,
                keeping=self.kit.pipeline.cache.keeping,
            )  # fmt: skip
            return ticket.encode()
        except (InvalidRequest, TypeError, ValueError, RecursionError):
            return None  # it cannot be put on record either: the pipeline says why

    async def _tier(self, envelope: Envelope) -> str:
        """The tier that the request names, or that of its caller; empty where there is none."""
        kit, request = self.kit, envelope.request
        if request.tier in kit.catalog.tiers:
            return request.tier or ""
        if kit.settings.tiers == "catalog":
            return kit.tier_of(request.tenant, request.user) or ""
        found = await asyncio.to_thread(kit.tier_of, request.tenant, request.user)
        return found or ""

    def _from_request(self, job_id: str, fields: Any) -> tuple[Envelope, InvalidRequest | None]:
        """The envelope of a bare request, as a stock `send_task("headgate.run", ...)` sends it."""
        refusal = None
        stand_in = request_from({"prompt": "(the request could not be read)"})
        try:
            if not isinstance(fields, dict):
                raise InvalidRequest("request", fields, "give an object with prompt or messages")
            request = request_from(fields)
            if (key := request.idempotency_key) is not None:
                remedy = "is of submit only; this message has named its job: send that id again"
                raise InvalidRequest("idempotency_key", key, remedy)
            request = expanded(request, self.kit.catalog.templates)
            if request.tier is not None:
                self.kit.catalog.tier(request.tier)
            model = _model_of(request, self.kit)
            refuse_oversize(json_bytes(request.model_dump(exclude_defaults=True)))
        except InvalidRequest as error:
            refusal, request = error, stand_in
            model = _model_of(stand_in, self.kit)
        envelope = Envelope(
            v=ENVELOPE_VERSION,
            id=job_id,
            request=request,
            model=model.name,
            model_class=model.model_class,
            submitted_at_ms=self.kit.pipeline.clock_ms(),
        )
        return envelope, refusal


def _model_of(request: Request, kit: WorkerParts) -> Model:
    """The model of a bare request; `auto` goes by the keys of this worker."""
    name = request.model or kit.settings.model
    if name != AUTO:
        return kit.catalog.model(name)
    if kit.catalog.digest not in _routers:
        _routers.clear()
        standing = ModelStatus(keyless=keyless(kit.settings, kit.catalog))
        _routers[kit.catalog.digest] = Router(kit.catalog, lambda: standing)
    return _routers[kit.catalog.digest].model(request)


_routers: dict[str, Router] = {}
"""By the digest of the catalog in force."""


def _crashes(running: RunningJob) -> int:
    return int(running.request["properties"]["delivery_info"]["crashes"])


def register(app: Celery) -> None:
    """`headgate.run` is a task of this app."""
    app.register_task(JobTask())
