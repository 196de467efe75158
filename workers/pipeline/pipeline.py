"""The line that every job goes through, from its message to its result.

    run         claim; answer; conclude; what stops it on the way
    answer      what needs no request: refused, too late, in the cache
    ask         the models of the chain, one after the other; retry and fallback loop here
    attempt     hold tokens, write the ledger, call, settle (attempt.py)
    conclude    the end on record in one transaction, then the result for all who wait

A job comes with what it may take of its limits: fetching is admission. So nothing waits in here.

The order is the meaning: claim before cache, hold before call, ledger before call and settled
before the retry is decided, the record before the result, and the acknowledgement (Celery's, after
`run` returns) last of all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from headgate.shared.admission.grant import Grant
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.results import why_given_up
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.cost import tokens
from headgate.shared.database.rows import audit_row
from headgate.shared.errors import InvalidRequest, place_of
from headgate.shared.job.result import Reply, Result, Usage
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.errors import AttemptError
from headgate.workers.pipeline.attempt import Attempting, Chain
from headgate.workers.pipeline.job_run import Delivery, Ending, JobRun
from headgate.workers.pipeline.outcome import AlreadyTaken, Deferred, Ended, Outcome, Restored
from headgate.workers.pipeline.shielded import through
from headgate.workers.policy import breaker, budget, fallback, refusal, retry
from headgate.workers.stages.cache_entry import CacheEntry
from headgate.workers.stages.claim import Claim, Claims, NotYet
from headgate.workers.stages.conclude import Conclude, Conclusion
from headgate.workers.stages.hold import Broken
from headgate.workers.stages.publish import Publish
from headgate.workers.stages.single_flight import SingleFlight

log = logging.getLogger("headgate.pipeline")

MOMENT_MS = 2000
"""How long a job may wait in a worker before it asks the same model again."""


@dataclass(frozen=True, slots=True)
class Pipeline(Attempting):
    """All stages, and what the decisions need: limits, a clock in Unix ms, chance in [0, 1)."""

    record: GroupCommit
    claims: Claims
    share: SingleFlight
    audit: Conclude
    publish: Publish
    limits: retry.RetryLimits
    max_deliveries: int
    chance: Callable[[], float]

    async def run(self, delivery: Delivery) -> Outcome:
        """The job has ended, or is deferred, or was given back; nothing of it is left open."""
        grant = delivery.grant
        try:
            claim = await through(self.claims.take(delivery.envelope))
        except (Exception, asyncio.CancelledError) as error:
            await self._give_back(delivery.envelope.id, grant)
            if isinstance(error, asyncio.CancelledError):
                return Restored()
            raise
        if not isinstance(claim, Claim):
            await self._give_back(delivery.envelope.id, grant)
            if isinstance(claim, NotYet):
                return Deferred(claim.wait_ms)
            ended = await self.publish.again(claim.result)
            died = delivery.crashes >= self.max_deliveries  # perhaps before it was buried
            return Ended(ended, why_given_up(ended)) if ended and died else AlreadyTaken()
        job = JobRun(
            delivery.envelope, claim, delivery.crashes,
            grant=grant, tier=grant.tier, paid=grant.paid,
            asked=grant.model if grant.way in ("held", "broken", "elsewhere") else "",
        )  # fmt: skip
        try:
            return await self._with(job, delivery)
        finally:
            await self._give_back(job.envelope.id, job.grant)

    async def _give_back(self, job_id: str, grant: Grant) -> None:
        """What was held and not needed is there for others."""
        if grant.way == "held":
            await through(self.bucket.settle(job_id, grant, None))

    async def _with(self, job: JobRun, delivery: Delivery) -> Outcome:
        """How the job ends under its claim."""
        ending: Ending | Deferred | Restored
        try:
            ending = await self.answer(job, delivery)
        except asyncio.CancelledError:
            match delivery.stopped():
                case "shutdown":
                    await through(self.claims.release(job.envelope, job.claim))
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
            await through(self.claims.defer(job.envelope, job.claim, retry_at_ms))
            return ending
        return await through(self.conclude(job, ending))

    async def answer(self, job: JobRun, delivery: Delivery) -> Ending | Deferred | Restored:
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
        if tokens.exceeds_window(job.input_tokens(first), first):
            window = f"the {first.context_tokens} tokens of {first.name}"
            return job.failed("context_length", f"the prompt cannot fit into {window}")
        # It was handed out for an answer of the model that it stood in line for; if that is none to
        # it, it must not be handed out for it again and again.
        job.uncached = job.grant.way in ("cached", "shared")
        asked = job.grant.model if job.uncached else first.name
        kept = await self.cache.recall(request, asked, lambda: self._chain(job))
        if kept is not None:
            return Ending(
                "succeeded", reply=kept.reply, model_used=kept.model or asked,
                provider=kept.provider, saved_pico_usd=kept.cost_pico_usd,
                cached="shared" if kept.shared or job.grant.way == "shared" else "exact",
            )  # fmt: skip
        if job.grant.way == "shared":
            failed = await self.share.failure(request, asked, self._chain(job))
            if failed is not None:
                return Ending("failed", error=failed, cached="shared")
        return await self.ask(job, first)

    def _chain(self, job: JobRun) -> frozenset[str]:
        """The models that may answer the job: an equal one may allow others."""
        first = self.catalog.models.get(job.envelope.model)
        chain = first and fallback.chain(job.envelope.request, first, self.catalog)
        return fallback.names(chain or ())

    async def ask(self, job: JobRun, first: Model) -> Ending | Deferred | Restored:
        """The first answer that a model of the chain gives, each asked as often as makes sense."""
        granted = job.grant
        chain = budget.chain(job.envelope.request, first, self.catalog, granted, job.input_tokens)
        if chain is None:
            return Deferred(budget.SOFT_MS)
        for model in chain[fallback.start(chain, job.failures, granted) :]:
            if isinstance(model, StaticText):
                reply = Reply(model.text, "stop", Usage())
                return Ending("succeeded", reply=reply, model_used="static")
            limits = self.limits.of(model)
            if granted.way == "too large" and granted.model == model.name:
                job.add_failure(model, refusal.too_large(self.ticket(job, model)))
                job.too_large = True
                continue
            if granted.way == "over budget" and granted.model == model.name:
                ticket = self.ticket(job, model, chain)
                if budget.lacked_price(granted) and ticket.upper_bound_pico_usd is not None:
                    return Deferred(0, ticket.encode())  # the release before told none
                job.add_failure(model, budget.over_budget(granted))
                continue
            if granted.way == "broken" and granted.model == model.name:
                job.skip(model, breaker.UNKNOWN_MS)
                continue
            had_waited = granted.waits and granted.way == "held" and granted.model == model.name
            while had_waited or not fallback.is_spent(model.name, job.failures, limits):
                had_waited = False
                left_ms = job.left_ms(self.clock_ms())
                if left_ms <= 0:
                    return job.failed("deadline", "the deadline passed before an answer came")
                ending = await self.attempt(job, model, chain)
                if isinstance(ending, Broken):
                    job.skip(model, ending.wait_ms)
                    break
                if not isinstance(ending, AttemptError):
                    return ending
                if job.broke_off:  # what was delivered cannot be taken back by another answer
                    return job.broken_off(ending)
                decision = retry.decide(
                    ending,
                    tries_of_model=fallback.tries(model.name, job.failures),
                    tries_of_job=len(fallback.counted(job.failures)),
                    limits=limits,
                    left_ms=job.left_ms(self.clock_ms()),
                    chance=self.chance(),
                )
                match decision:
                    case retry.GiveUp():
                        return job.failed(ending.code, ending.message, retryable=ending.retryable)
                    case retry.NextModel():
                        break
                    case _ if model.name in job.broken:
                        break
                    case _ if breaker.is_fault(ending) and not self.breaker.may_retry(
                        model.provider
                    ):
                        if job.broken or chain[-1] != model:
                            break
                        wait_ms = limits.backoff_max_ms * (1 + self.chance()) / 2
                        return Deferred(int(wait_ms), self.ticket(job, model, chain).encode())
                    case retry.Again(wait_ms) if wait_ms > MOMENT_MS:
                        return Deferred(wait_ms, self.ticket(job, model, chain).encode())
                    case retry.Again(wait_ms):
                        await asyncio.sleep(wait_ms / 1000)
                        job.waited_ms += wait_ms
        if job.left_ms(self.clock_ms()) <= 0:
            return job.failed("deadline", "the deadline passed before an answer came")
        if job.broken:
            return self._until_one_is_up(job, chain)
        dear = all(failure.code == "budget_exceeded" for failure in job.failures)
        last = job.failures[0 if dear else -1]  # the budget that kept the model that was wanted
        # Cut off by workers that were stopped: nobody wished that the job be cancelled.
        code = "internal" if last.code == "cancelled" else last.code
        retryable = code not in fallback.FINAL and not job.too_large
        return job.failed(code, last.message, retryable=retryable)

    def _until_one_is_up(self, job: JobRun, chain: Chain) -> Deferred:
        """The job waits for a breaker to close: in line, or where several are open, for any."""
        name, wait_ms = breaker.patience(job.broken, job.left_ms(self.clock_ms()), self.chance())
        model = next(one for one in chain if isinstance(one, Model) and one.name == name)
        several = len(job.broken) > 1
        ticket = replace(self.ticket(job, model), waits=True, replaceable=several)
        if job.has_asked:  # the fault may be the request's own: the next probe is another job's
            ticket = replace(ticket, arrival_ms=self.clock_ms())
        return Deferred(wait_ms, ticket.encode())

    async def conclude(self, job: JobRun, ending: Ending) -> Outcome:
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
        answers: tuple[CacheWrite, ...] = ()
        if ending.reply is not None and ending.cached is None and ending.provider is not None:
            model = ending.model_used or job.envelope.model
            kept = CacheEntry(ending.reply, ending.provider, job.cost_pico_usd, model)
            asked = job.asked or job.envelope.model
            answers = self.cache.remembering(job.envelope.request, kept, asked)
        if ending.error is not None and ending.status == "failed" and job.shares_failure:
            await self.share.fail(job.envelope.request, job.asked, ending.error, self._chain(job))
        await self.publish.publish(result, answers)
        return Ended(result, why_given_up(result))

    async def _end(self, job: JobRun, ending: Ending) -> Result | None:
        """The result, which is on record with the last attempt; None when the claim was lost."""
        now_ms = self.clock_ms()
        result = job.result(ending, now_ms)
        saved = ending.saved_pico_usd
        if saved is not None:
            saved = max(0, saved - job.claim.share_pico_usd)
        row = audit_row(
            job.envelope,
            result,
            cost_pico_usd=job.cost_pico_usd,
            saved_pico_usd=saved,
            unknown_attempts=job.unknown_attempts,
            started_at_ms=job.started_at_ms,
            finished_at_ms=now_ms,
        )
        payers: tuple[str, ...] = ()
        if job.asked and ending.cached is None and job.cost_pico_usd:
            payers = await self.share.payers(job.envelope.request, job.asked)
        conclusion = Conclusion(job.envelope.id, job.claim.fence, result, now_ms, row, payers)
        writes = [self.audit.concluding(conclusion)]
        if ending.settlement is not None:
            writes.append(self.ledger.settling(ending.settlement))  # type: ignore[arg-type]  # acts differ
        ended: Result | None
        ended, *_ = await self.record.together(*writes)
        return ended
