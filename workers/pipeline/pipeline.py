"""The pipeline that every job goes through, from its message to its result.

    run         claim, answer, conclude; whatever stops it on the way
    answer      what needs no request: refused, too late, in the cache
    ask         the models of the chain, one after the other (ask.py)
    attempt     pick the upstream, hold, ledger, send, settle (attempt.py)
    conclude    record the end in one transaction, then publish the result

A job comes with the grant for its first attempt, so nothing waits in here.

The order of effects is a promise: claim before cache; hold before call; ledger line before call,
and settled before a retry is decided; record before result and callbacks; acknowledgement last.
Celery sends that after `run` has returned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import assert_never

from headgate.shared.admission.grant import (
    Cached,
    Cheaper,
    Elsewhere,
    Grant,
    Held,
    Late,
    ModelDown,
    NoTicket,
    OverBudget,
    Shared,
    TooLarge,
)
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.results import why_given_up
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import tokens
from headgate.shared.database.rows import audit_row
from headgate.shared.errors import InvalidRequest, place_of
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import Result
from headgate.shared.job.result_text import decode_result
from headgate.workers.clients import job_log
from headgate.workers.clients.callbacks import Callbacks, NotSent
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.clients.webhook_outbox import WebhookOutbox
from headgate.workers.pipeline.ask import Ask, AskOutcome
from headgate.workers.pipeline.job_run import Delivery, Ending, JobRun
from headgate.workers.pipeline.outcome import AlreadyTaken, Deferred, Ended, Outcome, Restored
from headgate.workers.pipeline.shielded import through
from headgate.workers.policy import fallback
from headgate.workers.stages.cache import Cache
from headgate.workers.stages.cache_entry import CacheEntry
from headgate.workers.stages.claim import Claim, Claims, EndedBefore, NotYet
from headgate.workers.stages.conclude import Conclude, Conclusion
from headgate.workers.stages.hold import Holds
from headgate.workers.stages.ledger import Ledger
from headgate.workers.stages.publish import Publish
from headgate.workers.stages.single_flight import SingleFlight

log = logging.getLogger("headgate.pipeline")

CANNOT_SEND = "its callbacks cannot be sent"
"""The beginning of the reason, for a job that has ended and whose message is a dead letter."""

LARGE = 1024 * 1024
"""Larger answers are compressed for the cache in a thread."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages around a job's attempts. `clock_ms` returns Unix ms on which all workers agree."""

    catalog: Catalog
    claims: Claims
    cache: Cache
    single_flight: SingleFlight
    ask: Ask
    hold: Holds
    ledger: Ledger
    conclude: Conclude
    record: GroupCommit
    publish: Publish
    callbacks: Callbacks
    max_deliveries: int
    clock_ms: Callable[[], int]
    webhooks: WebhookOutbox = field(default_factory=WebhookOutbox)

    def with_catalog(self, catalog: Catalog) -> Pipeline:
        """Return the same pipeline for jobs that come under this catalog."""
        ask = replace(self.ask, catalog=catalog, steps=replace(self.ask.steps, catalog=catalog))
        return replace(self, catalog=catalog, ask=ask)

    async def run(self, delivery: Delivery) -> Outcome:
        """Run the job until it has ended, is deferred, or was given back; leave nothing open."""
        claim = await self._claim(delivery)
        if not isinstance(claim, Claim):
            return claim
        job = JobRun(delivery.envelope, claim, delivery.grant)
        try:
            end = await self._answer_unless_stopped(job, delivery)
            match end:
                case Ending():
                    return await through(self.end(job, end))
                case Deferred():
                    retry_at_ms = self.clock_ms() + end.wait_ms
                    await through(self.claims.defer(job.envelope, claim, retry_at_ms))
                    return end
                case Restored() | AlreadyTaken():
                    return end
                case _:
                    assert_never(end)
        finally:
            if job.room is not None:
                job.room.release()
            await self._give_back(job.envelope.id, job.hold)

    # Claim.

    async def _claim(self, delivery: Delivery) -> Claim | Outcome:
        """Claim the job; without a claim, give back its hold and return what became of it."""
        try:
            claim = await through(self.claims.take(delivery.envelope))
        except (Exception, asyncio.CancelledError) as error:
            await self._give_back(delivery.envelope.id, delivery.grant)
            if isinstance(error, asyncio.CancelledError):
                return Restored()
            raise
        if isinstance(claim, Claim):
            return claim
        await self._give_back(delivery.envelope.id, delivery.grant)
        match claim:
            case NotYet(wait_ms):
                return Deferred(wait_ms)
            case EndedBefore(encoded):
                return await self._announce_again(encoded, delivery)
            case _:
                assert_never(claim)

    async def _announce_again(self, encoded: str | None, delivery: Delivery) -> Outcome:
        """Announce the end of a job that ended before: a crash may have come before that.

        `encoded`: its result on record; None where it has expired.
        """
        if encoded is None:
            return AlreadyTaken()
        result, envelope = decode_result(encoded), delivery.envelope
        if envelope.canvas is not None and await self.callbacks.is_unsent(envelope.id):
            why = await self._send_callbacks(result, envelope, again=True)
            if why is not None:
                return Ended(result, why)
        else:
            await self.publish.publish(result, envelope)
        # A job over which workers died may have ended before its message was buried.
        died = delivery.crashes >= self.max_deliveries
        return Ended(result, why_given_up(result)) if died else AlreadyTaken()

    async def _give_back(self, job_id: str, grant: Grant | None) -> None:
        """Return a hold that was not used to its limits, for other jobs."""
        if isinstance(grant, Held):
            await through(self.hold.settle(job_id, grant, None))

    # Answer.

    async def _answer_unless_stopped(
        self, job: JobRun, delivery: Delivery
    ) -> AskOutcome | AlreadyTaken:
        """Answer the job; a stop or a fault of our own ends it in the way that fits the reason."""
        try:
            return await self._answer(job, delivery)
        except asyncio.CancelledError:
            match delivery.stopped():
                case "shutdown":
                    await through(self.claims.release(job.envelope, job.claim))
                    return Restored()
                case "lost":
                    return AlreadyTaken()
                case "timeout":
                    return job.failed("timeout", "stopped by the worker's time limit")
                case _:
                    return job.failed("cancelled", "cancelled on request")
        except Exception as error:
            log.error("job %s: a fault of Headgate's own: %s", job.envelope.id, place_of(error))
            return job.failed("internal", f"{type(error).__name__} in the worker; see its log")

    async def _answer(self, job: JobRun, delivery: Delivery) -> AskOutcome:
        """Answer the job without a request where that is possible; else ask its models."""
        unasked = self._unasked(job, delivery)
        if unasked is not None:
            return unasked
        try:
            first = self.catalog.model(job.envelope.model)
        except InvalidRequest as error:
            return job.failed(error.code, str(error))
        if tokens.exceeds_window(job.input_tokens(first), first):
            window = f"the {first.context_tokens} tokens of {first.name}"
            return job.failed("context_length", f"the prompt cannot fit into {window}")
        return await self._recall(job, first) or await self.ask.ask(job, first)

    def _unasked(self, job: JobRun, delivery: Delivery) -> Ending | None:
        """Return the end of a job that must not be asked; None for all others."""
        if job.claim.cancel_wanted or delivery.revoked:
            return job.failed("cancelled", "cancelled on request")
        if delivery.refusal is not None:
            return job.failed(delivery.refusal.code, str(delivery.refusal))
        if delivery.crashes >= self.max_deliveries:
            return job.given_up(f"{delivery.crashes} workers died over it")
        if job.left_unknown and job.envelope.request.on_unknown == "fail":
            message = "a crash left it open whether an attempt was answered and billed"
            return job.failed("internal", f"{message} (on_unknown: fail)")
        now_ms = self.clock_ms()
        if job.left_ms(now_ms) <= 0:
            return job.late("the deadline passed while it waited")
        if job.envelope.waits_until_ms <= now_ms:
            return job.failed("expired", "it passed its `expires` before it was asked")
        return None

    async def _recall(self, job: JobRun, first: Model) -> Ending | None:
        """Return the end that the cache, or the failure of an equal job, gives this one."""
        request, model, sample = job.envelope.request, first.name, job.envelope.sample
        follows, names = False, partial(self._chain_names, job)
        match job.grant:
            case Cached(model=granted):
                model = granted
            case Shared(model=granted):
                model, follows = granted, True
            case Held() | Late() | Elsewhere() | ModelDown() | NoTicket():
                pass
            case TooLarge() | OverBudget() | Cheaper():
                pass
            case _:
                assert_never(job.grant)
        entry = await self.cache.recall(job.question, model, names)
        if entry is not None:
            return Ending(
                "succeeded", reply=entry.reply, model_used=entry.model or model,
                provider=entry.provider, saved_pico_usd=entry.cost_pico_usd,
                cached="shared" if entry.shared or follows else "exact",
            )  # fmt: skip
        if follows:
            error = await self.single_flight.failure(request, model, names(), sample)
            if error is not None:
                return Ending("failed", error=error, cached="shared")
        return None

    def _chain_names(self, job: JobRun) -> frozenset[str]:
        """Return the models that may answer the job: an equal job may allow others."""
        try:
            first = self.catalog.model(job.envelope.model)
        except InvalidRequest:
            return frozenset()
        return fallback.names(fallback.chain(job.envelope.request, first, self.catalog))

    # Conclude.

    async def end(self, job: JobRun, ending: Ending) -> Outcome:
        """End the job on record, then for all who wait; give it back if the claim was lost."""
        try:
            result = await self._record_end(job, ending)
        except Exception as error:  # left open, the job would be sent again, and paid each time
            log.error("job %s: its end cannot be recorded: %s", job.envelope.id, place_of(error))
            failed = job.failed("internal", f"{type(error).__name__} while its end was recorded")
            ending = replace(failed, settlement=ending.settlement)
            result = await self._record_end(job, ending)
        if result is None:
            log.warning("job %s: the claim was lost; another worker ends it", job.envelope.id)
            return Restored()
        job_log.log_end(job.envelope, result)
        await self._share_failure(job, ending)
        envelope, answers = job.envelope, await self._cache_writes(job, ending)
        if envelope.canvas is None:
            await self.publish.publish(result, envelope, answers)
            return Ended(result, why_given_up(result))
        why = await self._send_callbacks(result, envelope, answers)
        return Ended(result, why or why_given_up(result))

    async def _send_callbacks(
        self,
        result: Result,
        envelope: Envelope,
        answers: Sequence[CacheWrite] = (),
        *,
        again: bool = False,
    ) -> str | None:
        """Publish the result and send what follows it in Celery; return why that cannot be sent.

        Such a job is FAILURE for Celery, and its message becomes a dead letter.
        """
        why = None
        try:
            await self.callbacks.send(envelope, result, answers, again=again)
        except NotSent as error:
            why = f"{CANNOT_SEND}: {error.reason}"
            log.error("job %s: %s", envelope.id, why)
            await self.publish.refuse(result, envelope, why)
        await self.callbacks.sent(envelope.id)
        return why

    async def _record_end(self, job: JobRun, ending: Ending) -> Result | None:
        """Record the end with the last attempt; return the result, None if the claim was lost."""
        now_ms = self.clock_ms()
        result = job.result(ending, now_ms)
        saved = ending.saved_pico_usd
        cost = job.history.cost_pico_usd
        row = audit_row(
            job.envelope,
            result,
            cost_pico_usd=cost,
            saved_pico_usd=None if saved is None else max(0, saved - job.claim.share_pico_usd),
            unknown_attempts=len(job.history.unknown_models),
            started_at_ms=job.started_at_ms,
            finished_at_ms=now_ms,
        )
        payers: tuple[str, ...] = ()
        # Nobody else gets anything of an answer that broke off.
        if job.leads and ending.reply is not None and ending.cached is None and cost:
            envelope = job.envelope
            payers = await self.single_flight.payers(envelope.request, job.leads, envelope.sample)
        due_at_ms = self.callbacks.due_at_ms(job.envelope, now_ms)
        event = self.webhooks.row(job.envelope, result, job.claim.fence, now_ms)
        conclusion = Conclusion(
            job.envelope.id, job.claim.fence, result, now_ms, row, payers, due_at_ms, event
        )
        writes = [self.conclude.concluding(conclusion)]
        if ending.settlement is not None:
            writes.append(self.ledger.settling(ending.settlement))  # type: ignore[arg-type]  # acts differ
        recorded: Result | None
        recorded, *_ = await self.record.together(*writes)
        if event is not None:
            self.webhooks.recorded()
        return recorded

    async def _cache_writes(self, job: JobRun, ending: Ending) -> tuple[CacheWrite, ...]:
        """Return the cache entries of an answer that was bought; none for any other end."""
        if ending.reply is None or ending.cached is not None or ending.provider is None:
            return ()
        envelope = job.envelope
        model = ending.model_used or envelope.model
        cost = job.history.cost_pico_usd if job.usage_note is None else None
        if cost is not None:  # who finds the answer here does not save what broke off before it
            cost -= job.history.parts_pico_usd
        entry = CacheEntry(ending.reply, ending.provider, cost, model)
        asked = job.leads or envelope.model
        writes = partial(self.cache.writes, job.question, entry, asked)
        if job.room is not None and job.room.size > LARGE:  # compressing 1 MB takes 10 ms
            return await asyncio.to_thread(writes)
        return writes()

    async def _share_failure(self, job: JobRun, ending: Ending) -> None:
        """Let the followers fail with the job.

        They ask for themselves where no attempt failed, and where an answer broke off: nothing of
        it was delivered to them.
        """
        if ending.error is None or ending.status != "failed":
            return
        if job.leads and job.failures and not job.broke_off:
            names, envelope = self._chain_names(job), job.envelope
            await self.single_flight.fail(
                envelope.request, job.leads, ending.error, names, envelope.sample
            )
