"""One attempt: pick the upstream, take the hold, open the ledger line, send, settle.

What prevents an attempt is a value, not an exception: the job has to wait, has lost its claim, or
the attempt failed. A hold always ends: settled, given back, or spent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from headgate.shared.admission.breakers import BreakerAfterReport
from headgate.shared.admission.grant import Cheaper, Held, ModelDown, OverBudget, TooLarge
from headgate.shared.admission.ticket import Ticket, ticket_for
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import tokens
from headgate.shared.cost.bill import AnswerBill, bill_of
from headgate.shared.job.request import AUTO, Pin
from headgate.workers.clients.in_flight import AnswerRoom, InFlight
from headgate.workers.errors import AttemptError
from headgate.workers.maintenance.estimates import EstimateUpkeep
from headgate.workers.pipeline.broken_off import NOTHING_MADE, PartBill, part_bill
from headgate.workers.pipeline.job_run import Ending, JobRun
from headgate.workers.pipeline.outcome import Deferred, Restored
from headgate.workers.pipeline.shielded import through
from headgate.workers.policy import breaker, budget, fallback, refusal
from headgate.workers.policy.fallback import Chain
from headgate.workers.provider import Answer
from headgate.workers.stages.breaker import Breaker
from headgate.workers.stages.cache import Cache
from headgate.workers.stages.call import Call, Upstream
from headgate.workers.stages.hold import Holds, Later
from headgate.workers.stages.ledger import Attempt, Ledger
from headgate.workers.stages.stream import DeltaStream, DeltaWriter

log = logging.getLogger("headgate.pipeline")

STALE_MS, STALE_TIMES = 2000, 2
"""A hold on a limited pool that is older is given back unused, under a job's first two claims."""

OPENING_MS = 200
"""So long its job may wait for the import of an SDK; else it is given back, too."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed, or was not made.

    `broke_off`: a part of the answer had been delivered, which no other answer can continue.
    `cut_short`: the deadline of the job left less time than the model has. `down_ms`: the model is
    down, and one probe may go in so many ms; None: it is not down. `part`: the bill of what was
    made of the answer.
    """

    error: AttemptError
    broke_off: bool = False
    cut_short: bool = False
    down_ms: int | None = None
    part: PartBill = NOTHING_MADE


AttemptOutcome: TypeAlias = Ending | Deferred | Restored | ModelDown | Failed


@dataclass(frozen=True, slots=True)
class AttemptSteps:
    """The five steps of an attempt, with the stages that they use."""

    catalog: Catalog
    cache: Cache
    hold: Holds
    breaker: Breaker
    ledger: Ledger
    call: Call
    deltas: DeltaWriter
    estimates: EstimateUpkeep
    clock_ms: Callable[[], int]
    in_flight: InFlight

    async def attempt(self, job: JobRun, model: Model, chain: Chain) -> AttemptOutcome:
        """Make one attempt at this model of the chain; return how it ended or what prevented it."""
        began_ms = self.clock_ms()
        upstream = await self._pick_upstream(job, model)
        if isinstance(upstream, Failed):
            return upstream
        waited_ms = self.clock_ms() - began_ms
        hold = await self._take_hold(job, model, chain, upstream)
        if not isinstance(hold, Held):
            return hold
        if self._is_stale(job, hold, waited_ms):
            return Deferred(0, self.ticket(job, model, chain).encode())
        if hold.key and hold.key != upstream.key:
            upstream = await self.call.upstream(model, hold.key) or upstream
        line = await self._open_ledger_line(job, model, began_ms)
        if line is None:
            return Restored()
        sent = await self._send(job, model, upstream, line)
        if isinstance(sent, Failed):
            return await self._settle_failure(job, model, hold, line, sent)
        ending = await self._settle_answer(job, model, hold, line, sent)
        return replace(ending, provider_key=upstream.digest or None)

    def ticket(self, job: JobRun, model: Model, chain: Chain = ()) -> Ticket:
        """Return the ticket with which the job waits for this model, in its old place."""
        terms = job.terms
        ticket = ticket_for(
            job.envelope, model, self.catalog, tier=terms.tier, paid=terms.paid,
            input_tokens=job.input_tokens(model), chain=chain, cache_policy=self.cache.policy,
        )  # fmt: skip
        if (pinned := job.envelope.request.pinned) is not None:
            ticket = replace(ticket, pinned_key=self.call.pinned_key(model, pinned.key))
        return replace(ticket, cached_as="") if job.was_cached else ticket

    async def _pick_upstream(self, job: JobRun, model: Model) -> Upstream | Failed:
        """Pick the provider and its key: that of the hold, or else the one whose turn it is."""
        pinned = job.envelope.request.pinned
        if pinned is not None:
            return await self._pinned_upstream(job, model, pinned)
        upstream = await self.call.upstream(model, job.hold.key if job.hold else "")
        if upstream is not None:
            return upstream
        is_first = job.envelope.model == model.name
        is_chosen = is_first and job.envelope.request.model in (None, AUTO)
        error = self.call.no_key(model, is_chosen=is_chosen)
        if is_first:  # a mere stand-in is left out silently
            job.add_failure(model, error)
        return Failed(error)

    async def _pinned_upstream(self, job: JobRun, model: Model, pinned: Pin) -> Upstream | Failed:
        """Pick the provider with the key that the job is pinned to, or say that it is gone."""
        upstream = await self.call.pinned(model, pinned.key)
        if upstream is not None and model.provider == pinned.provider:
            return upstream
        error = self.call.no_pinned_key(model)
        job.add_failure(model, error)
        return Failed(error)

    async def _take_hold(
        self, job: JobRun, model: Model, chain: Chain, upstream: Upstream
    ) -> Held | Deferred | ModelDown | Failed:
        """Take what the attempt needs of its limits and budgets, or return what forbids it."""
        over_own = budget.over_own(
            job.envelope.request, model, self.catalog, job.history.cost_pico_usd,
            job.history.unknown_models, job.history.parts_pico_usd,
        )  # fmt: skip
        key = upstream.key if job.envelope.request.pinned is not None else ""
        hold = over_own or await self._hold(job, model, chain, key)
        if isinstance(hold, AttemptError):
            job.add_failure(model, hold)
            return Failed(hold)
        return hold

    async def _hold(
        self, job: JobRun, model: Model, chain: Chain, key: str
    ) -> Held | Deferred | ModelDown | AttemptError:
        """Return the hold that the job came with, or reserve what is free at once.

        `key`: the only one that the hold may be of, or empty.
        """
        if job.hold is not None:
            if job.hold.model == model.name and key in ("", job.hold.key):
                return job.hold
            await through(self.hold.settle(job.envelope.id, job.hold, None))
            job.hold = None
        ticket = self.ticket(job, model, chain)
        reserved = await self.hold.reserve(job.envelope.id, job.next_attempt, ticket)
        match reserved:
            case Held():
                job.hold = reserved
                return reserved
            case ModelDown():
                return reserved
            case TooLarge():
                return refusal.too_large(ticket)
            case OverBudget():
                return budget.over_budget(reserved)
            case Later() | Cheaper():  # the waiting queue grants the cheaper model, with its name
                return Deferred(0, ticket.encode())
            case _:
                assert_never(reserved)

    def _is_stale(self, job: JobRun, hold: Held, waited_ms: int) -> bool:
        """Return whether the hold is so old that its call would collide with later ones.

        `waited_ms`: how long the job waited for its provider. A worker that has just started
        imports an SDK for seconds, and one that was frozen comes back with all its jobs. Their
        calls would leave at once, and the provider refuse them. Only the first claims count: on a
        machine that is always that slow the job has to go on.
        """
        if not hold.totals or job.claim.fence > STALE_TIMES:
            return False
        most_ms = OPENING_MS if waited_ms > OPENING_MS else STALE_MS
        return self.clock_ms() - hold.granted_at_ms > most_ms

    async def _open_ledger_line(self, job: JobRun, model: Model, began_ms: int) -> Attempt | None:
        """Record the attempt before it leaves; return None if the claim was lost."""
        started_at_ms = self.clock_ms()
        job.waited_ms += started_at_ms - began_ms
        job.history.attempts += 1
        job.started_at_ms = job.started_at_ms or started_at_ms
        line = Attempt(
            job.envelope.id, job.claim.fence, job.history.attempts, model.name, model.provider,
            started_at_ms=started_at_ms, waited_ms=job.waited_ms,
        )  # fmt: skip
        try:
            if not await through(self.ledger.open(line)):
                return None
        except asyncio.CancelledError:
            await through(self.ledger.settle(line.unsent(self.clock_ms())))
            raise
        job.hold = None  # spent from here on, also if this worker dies
        return line

    async def _send(
        self, job: JobRun, model: Model, upstream: Upstream, line: Attempt
    ) -> Answer | Failed:
        """Send the request; return the answer or the failure. A cancellation closes the line."""
        request = job.envelope.request
        left_ms = max(1, job.left_ms(line.started_at_ms))
        if model.provider not in fallback.asked_providers(job.failures, self.catalog):
            self.breaker.called(model.provider)
        pieces = self._pieces(job)
        job.room = job.room or AnswerRoom(self.in_flight)
        try:
            answer = await self.call.ask(
                upstream, request, model, left_ms=left_ms, sink=pieces, room=job.room
            )
        except AttemptError as error:
            job.room.release()
            took_ms = self.clock_ms() - line.started_at_ms
            cut_short = left_ms < self.call.timeout_s(model) * 1000 or took_ms >= left_ms
            part = NOTHING_MADE
            if error.billed is None:
                part = part_bill(job, model, self.catalog, pieces)
            return Failed(error, pieces is not None and pieces.begun, cut_short, part=part)
        except asyncio.CancelledError:
            job.cut_off(model)
            part = part_bill(job, model, self.catalog, pieces)
            cut = line.cut_off(self.clock_ms(), made=part.usage, cost_pico_usd=part.cost_pico_usd)
            await through(self.ledger.settle(cut))
            raise
        if pieces is not None:
            pieces.end()
        return answer

    def _pieces(self, job: JobRun) -> DeltaStream | None:
        """Return what takes the pieces of the answer; None if nobody reads along."""
        request = job.envelope.request
        if not request.stream:
            return None
        return self.deltas.of(job.envelope.id, job.claim.fence, events=request.events)

    async def _settle_failure(
        self, job: JobRun, model: Model, hold: Held, line: Attempt, failed: Failed
    ) -> Failed:
        """Settle ledger, hold and breaker, so that all workers know before a retry is decided."""
        error = failed.error
        again = fallback.timed_out(model.name, job.failures)
        if error.billed is None:
            job.history.unknown_models.append(model.name)
        job.add_failure(model, error)
        job.broke_off = failed.broke_off
        is_fault = breaker.is_fault(
            error, cut_short=failed.cut_short, again=again and not hold.probe
        )
        after = await self._report_failure(line, hold, failed, is_fault=is_fault)
        gives_back = hold.rule == "a" and hold.settles
        if error.billed is False and (gives_back or hold.money):
            used = (0, 0) if gives_back else hold.tokens
            await through(self.hold.settle(job.envelope.id, hold, used, 0))
        await through(self.hold.refused(hold, error))
        if after is not None and after.is_open and error.retryable:
            return replace(failed, down_ms=after.wait_ms)
        return failed

    async def _report_failure(
        self, line: Attempt, hold: Held, failed: Failed, *, is_fault: bool
    ) -> BreakerAfterReport | None:
        """Settle the ledger line, and report a fault at the same time: see `Breaker.failed`."""
        error, part = failed.error, failed.part
        settlement = line.failed(
            error, self.clock_ms(), made=part.usage, cost_pico_usd=part.cost_pico_usd
        )
        settling = self.ledger.settle(settlement)
        if not is_fault:
            await through(settling)
            return None
        after, _ = await through(asyncio.gather(self.breaker.failed(hold, error), settling))
        return after

    async def _settle_answer(
        self, job: JobRun, model: Model, hold: Held, line: Attempt, answer: Answer
    ) -> Ending:
        """Report what the answer says about limits, and settle the hold at what was used.

        The ledger line is settled with the end of the job, in one transaction.
        """
        bill = self._bill(job, model, answer)
        ending = self._ending(job, model, line, answer, bill)
        self.hold.answered(hold, answer.headers)
        self.breaker.answered(hold, self.clock_ms() - line.started_at_ms)
        if answer.counted and bill.note is None:
            self._note_usage(job, model, hold, answer)
        if hold.money or (hold.settles and answer.counted):
            usage = bill.counted
            fresh = usage.input_tokens - (usage.cached_input_tokens if hold.rule == "a" else 0)
            used = (fresh, usage.output_tokens) if answer.counted else hold.tokens
            try:
                await through(self.hold.settle(job.envelope.id, hold, used, bill.counted_pico_usd))
            except asyncio.CancelledError:
                if ending.settlement is not None:  # paid for, though nobody wants it any more
                    await through(self.ledger.settle(ending.settlement))
                raise
        return ending

    def _note_usage(self, job: JobRun, model: Model, hold: Held, answer: Answer) -> None:
        """Teach the estimates how long answers are, and how far the input estimate was off.

        Of a request for `n` answers they learn the mean.
        """
        used, request = answer.reply.usage, job.envelope.request
        times = tokens.answers(request.params)
        self.estimates.saw(
            model.name, request.tenant, "",
            estimated_input=job.input_tokens(model), input_tokens=used.input_tokens,
            held_output=hold.output_tokens // times, output_tokens=used.output_tokens // times,
            ceiling=tokens.output_ceiling(request.asked_tokens, model),
        )  # fmt: skip

    def _bill(self, job: JobRun, model: Model, answer: Answer) -> AnswerBill:
        """Return what the answer costs; log a usage that cannot be true."""
        if not answer.counted:
            return AnswerBill(None, answer.reply.usage, None)
        bill = bill_of(answer.reply, answer.terms, job.envelope.request, model, self.catalog)
        if bill.note is not None:
            name = f"{model.provider}/{model.name}"
            log.warning("job %s: the usage of %s cannot be true: %s",
                        job.envelope.id, name, bill.note)  # fmt: skip
        return bill

    def _ending(
        self, job: JobRun, model: Model, line: Attempt, answer: Answer, bill: AnswerBill
    ) -> Ending:
        """Return the end of an answered job, and add its cost and usage to the run."""
        job.history.add_cost(bill.cost_pico_usd)
        job.usage, job.usage_note = answer.reply.usage, bill.note
        return Ending(
            "succeeded",
            reply=answer.reply,
            model_used=model.name,
            provider=model.provider,
            settlement=line.answered(answer.reply, bill.cost_pico_usd, self.clock_ms(), bill.note),
        )
