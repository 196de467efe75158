"""The line that every job goes through, from its message to its result.

    run         claim; answer; conclude; what stops it on the way
    answer      what needs no request: refused, too late, in the cache
    ask         the models of the chain, one after the other; retry and fallback loop here
    attempt     hold tokens, write the ledger, call, settle
    conclude    the end on record in one transaction, then the result for all who wait

The order is the meaning: claim before cache, hold before call, ledger before call and settled
before the retry is decided, the record before the result, and the acknowledgement (Celery's, after
`run` returns) last of all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from shared.catalog import Catalog, Model, StaticText
from shared.envelope import Reply, Result, Usage
from shared.errors import AttemptError, InvalidRequest, place_of
from shared.policy import estimate
from shared.policy.charge import charge
from shared.prices import price, to_pico
from shared.results import audit_row, why_given_up
from workers.answer import Answer
from workers.job import Delivery, Ending, Job
from workers.outcome import AlreadyTaken, Deferred, Ended, Outcome, Restored
from workers.policy import fallback, retry
from workers.record import Record
from workers.stages.audit import Audit, Conclusion
from workers.stages.bucket import MOMENT_MS, Bucket, Later
from workers.stages.cache import Cache, Kept
from workers.stages.call import Call
from workers.stages.claim import Claims, EndedBefore, NotYet
from workers.stages.ledger import Attempt, Ledger
from workers.stages.publish import Publish
from workers.through import through

log = logging.getLogger("headgate.pipeline")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """All stages, and what the decisions need: limits, a clock in Unix ms, chance in [0, 1)."""

    catalog: Catalog
    record: Record
    claims: Claims
    cache: Cache
    bucket: Bucket
    ledger: Ledger
    audit: Audit
    call: Call
    publish: Publish
    limits: retry.Limits
    max_deliveries: int
    clock_ms: Callable[[], int]
    chance: Callable[[], float]

    async def run(self, delivery: Delivery) -> Outcome:
        """The job has ended, or is deferred, or was given back; nothing of it is left open."""
        try:
            claim = await through(self.claims.take(delivery.envelope))
        except asyncio.CancelledError:
            return Restored()
        if isinstance(claim, EndedBefore):
            ended = await self.publish.again(claim.result)
            died = delivery.crashes >= self.max_deliveries  # perhaps before it was buried
            return Ended(ended, why_given_up(ended)) if ended and died else AlreadyTaken()
        if isinstance(claim, NotYet):
            return Deferred(claim.wait_ms)
        job = Job(delivery.envelope, claim, delivery.crashes)
        ending: Ending | Deferred | Restored
        try:
            ending = await self.answer(job, delivery)
        except asyncio.CancelledError:
            match delivery.stopped():
                case "shutdown":
                    await through(self.claims.release(job.envelope, claim))
                    return Restored()
                case "lost":
                    return AlreadyTaken()
                case "timeout":
                    ending = job.failed("timeout", "stopped by the worker's time limit")
                case _:
                    ending = job.failed("cancelled", "cancelled on request")
        except Exception as error:
            log.error("job %s: a fault of Headgate's own: %s", job.envelope.id, place_of(error))
            ending = job.failed("internal", f"{type(error).__name__} in the worker; see its log")
        if isinstance(ending, Restored):
            return ending
        if isinstance(ending, Deferred):
            retry_at_ms = self.clock_ms() + ending.wait_ms
            await through(self.claims.defer(job.envelope, claim, retry_at_ms))
            return ending
        return await through(self.conclude(job, ending))

    async def answer(self, job: Job, delivery: Delivery) -> Ending | Deferred | Restored:
        """How the job ends; asks a model only if nothing before has decided it."""
        request = job.envelope.request
        if job.claim.cancel_wanted or delivery.revoked:
            return job.failed("cancelled", "cancelled on request")
        if delivery.refusal is not None:
            return job.failed(delivery.refusal.code, str(delivery.refusal))
        if delivery.crashes >= self.max_deliveries:
            return job.given_up(f"{delivery.crashes} workers died over it")
        if job.left_unknown and request.on_unknown == "fail":
            message = "a crash left it open whether an attempt was answered and billed"
            return job.failed("internal", f"{message} (on_unknown: fail)")
        if job.left_ms(self.clock_ms()) <= 0:
            return job.failed("deadline", "the deadline passed before it was asked")
        try:
            first = self.catalog.model(job.envelope.model)
        except InvalidRequest as error:
            return job.failed(error.code, str(error))
        if estimate.exceeds_window(job.input_tokens, first):
            window = f"the {first.context_tokens} tokens of {first.name}"
            return job.failed("context_length", f"the prompt cannot fit into {window}")
        kept = await self.cache.recall(request, first.name)
        if kept is not None:
            return Ending(
                "succeeded",
                reply=kept.reply,
                model_used=first.name,
                provider=kept.provider,
                cached="exact",
                saved_pico_usd=kept.cost_pico_usd,
            )
        return await self.ask(job, first)

    async def ask(self, job: Job, first: Model) -> Ending | Deferred | Restored:
        """The first answer that a model of the chain gives, each asked as often as makes sense."""
        chain = fallback.chain(job.envelope.request, first, self.catalog)
        for model in chain[fallback.reached(chain, job.failures) :]:
            if isinstance(model, StaticText):
                reply = Reply(model.text, "stop", Usage())
                return Ending("succeeded", reply=reply, model_used="static")
            limits = self.limits.of(model)
            while not fallback.is_spent(model.name, job.failures, limits):
                left_ms = job.left_ms(self.clock_ms())
                if left_ms <= 0:
                    return job.failed("deadline", "the deadline passed before an answer came")
                ending = await self.attempt(job, model)
                if not isinstance(ending, AttemptError):
                    return ending
                decision = retry.decide(
                    ending,
                    tries_of_model=fallback.tries(model.name, job.failures),
                    tries_of_job=len(job.failures),
                    limits=limits,
                    left_ms=job.left_ms(self.clock_ms()),
                    chance=self.chance(),
                )
                match decision:
                    case retry.GiveUp():
                        return job.failed(ending.code, ending.message, retryable=ending.retryable)
                    case retry.NextModel():
                        break
                    case retry.Again(wait_ms) if wait_ms > MOMENT_MS:
                        return Deferred(wait_ms)
                    case retry.Again(wait_ms):
                        await asyncio.sleep(wait_ms / 1000)
                        job.waited_ms += wait_ms
        if job.left_ms(self.clock_ms()) <= 0:
            return job.failed("deadline", "the deadline passed before an answer came")
        last = job.failures[-1]
        # Cut off by workers that were stopped: nobody wished that the job be cancelled.
        code = "internal" if last.code == "cancelled" else last.code
        return job.failed(code, last.message, retryable=code not in fallback.FINAL)

    async def attempt(self, job: Job, model: Model) -> Ending | Deferred | Restored | AttemptError:
        """One request to one model, held, written down, sent and settled; or what hindered it."""
        request, now_ms = job.envelope.request, self.clock_ms()
        line = await self.call.line(model)
        if line is None:
            missing = self.call.no_key(model)
            if job.envelope.model == model.name:  # a mere stand-in is left out without a word
                job.add_failure(model, missing)
            return missing
        attempt = Attempt(
            job.envelope.id, job.claim.fence, job.attempts + 1, model.name, model.provider,
            started_at_ms=now_ms, waited_ms=job.waited_ms,
        )  # fmt: skip
        ceiling = estimate.output_ceiling(request.params, model)
        held = charge(
            self.catalog.provider(model).dialect,
            request,
            input_tokens=job.input_tokens,
            ceiling=ceiling,
        )
        hold = await self.bucket.reserve(
            attempt.name,
            self.catalog.pool(model),
            line.key,
            input_tokens=held.input_tokens,
            output_tokens=held.output_tokens,
            settles=held.settles,
            rank=request.priority,
        )
        if isinstance(hold, Later):
            # Never past the deadline: the job is met again in time to end as expired.
            return Deferred(min(hold.wait_ms, max(1, job.left_ms(self.clock_ms()))))
        started_at_ms = self.clock_ms()
        job.waited_ms += started_at_ms - now_ms
        attempt = replace(attempt, started_at_ms=started_at_ms, waited_ms=job.waited_ms)
        job.attempts += 1
        job.started_at_ms = job.started_at_ms or started_at_ms
        try:
            if not await through(self.ledger.open(attempt)):
                return Restored()
        except asyncio.CancelledError:
            await through(self.ledger.settle(attempt.unsent(self.clock_ms())))
            raise
        try:
            answer = await self.call.ask(
                line, request, model, left_ms=max(1, job.left_ms(started_at_ms))
            )
        except AttemptError as error:
            job.unknown_attempts += error.billed is None
            job.add_failure(model, error)
            await through(self.ledger.settle(attempt.failed(error, self.clock_ms())))
            return error
        except asyncio.CancelledError:
            job.cut_off(model)
            await through(self.ledger.settle(attempt.cut_off(self.clock_ms())))
            raise
        ending = self._answered(job, attempt, model, answer)
        if held.settles and answer.counted:
            used = answer.reply.usage
            fresh = used.input_tokens - used.cached_input_tokens
            settling = self.bucket.settle(
                hold, input_tokens=fresh, output_tokens=used.output_tokens
            )
            try:
                await through(settling)
            except asyncio.CancelledError:
                if ending.settlement is not None:  # paid for, though nobody wants it any more
                    await through(self.ledger.settle(ending.settlement))
                raise
        return ending

    async def conclude(self, job: Job, ending: Ending) -> Outcome:
        """The job has ended, on record and then for all who wait; or the claim was lost."""
        try:
            result = await self._end(job, ending)
        except Exception as error:  # left open, it would be sent again, and paid for each time
            log.error("job %s: its end is not written down: %s", job.envelope.id, place_of(error))
            failed = job.failed("internal", f"{type(error).__name__} while its end was written")
            ending = replace(failed, settlement=ending.settlement)
            result = await self._end(job, ending)
        if result is None:
            log.warning("job %s: the claim was lost; what holds its lease ends it", job.envelope.id)
            return Restored()
        answer = None
        if ending.reply is not None and ending.cached is None and ending.provider is not None:
            kept = Kept(ending.reply, ending.provider, job.cost_pico_usd)
            model = ending.model_used or job.envelope.model
            answer = self.cache.remembering(job.envelope.request, model, kept)
        await self.publish.publish(result, answer)
        return Ended(result, why_given_up(result))

    async def _end(self, job: Job, ending: Ending) -> Result | None:
        """The result, which is on record with the last attempt; None when the claim was lost."""
        now_ms = self.clock_ms()
        result = job.result(ending, now_ms)
        row = audit_row(
            job.envelope,
            result,
            cost_pico_usd=job.cost_pico_usd,
            saved_pico_usd=ending.saved_pico_usd,
            unknown_attempts=job.unknown_attempts,
            started_at_ms=job.started_at_ms,
            finished_at_ms=now_ms,
        )
        conclusion = Conclusion(job.envelope.id, job.claim.fence, result, now_ms, row)
        writes = [self.audit.concluding(conclusion)]
        if ending.settlement is not None:
            writes.append(self.ledger.settling(ending.settlement))  # type: ignore[arg-type]  # acts differ
        ended, *_ = await self.record.together(*writes)
        return result if ended else None

    def _answered(self, job: Job, attempt: Attempt, model: Model, answer: Answer) -> Ending:
        usage = answer.reply.usage
        cost = price(usage, model, self.catalog) if answer.counted else None
        cost_pico_usd = None if cost is None else to_pico(cost)
        job.add_cost(cost_pico_usd)
        job.usage = usage
        return Ending(
            "succeeded",
            reply=answer.reply,
            model_used=model.name,
            provider=model.provider,
            settlement=attempt.answered(answer.reply, cost_pico_usd, self.clock_ms()),
        )
