"""One attempt: held, written down, sent, settled; the middle of the line.

Whatever hinders it is a value: the job has to wait in line, has lost its claim, or the provider
failed. What was held of limits always ends: settled, given back, or spent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from headgate.shared.admission.grant import NO_GRANT, Grant
from headgate.shared.admission.ticket import Ticket, ticket_for
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.cost import tokens as estimate
from headgate.shared.cost.price import price, to_pico
from headgate.workers.errors import AttemptError
from headgate.workers.maintenance.estimates import EstimateUpkeep
from headgate.workers.pipeline.job_run import Ending, JobRun
from headgate.workers.pipeline.outcome import Deferred, Restored
from headgate.workers.pipeline.shielded import through
from headgate.workers.policy import breaker as outage
from headgate.workers.policy import budget
from headgate.workers.policy import refusal as gate
from headgate.workers.provider import Answer
from headgate.workers.stages.breaker import Breaker
from headgate.workers.stages.cache import Cache
from headgate.workers.stages.call import Call
from headgate.workers.stages.hold import Broken, Bucket, Later, TooLarge
from headgate.workers.stages.ledger import Attempt, Ledger
from headgate.workers.stages.stream import DeltaWriter

STALE_MS, STALE_TIMES = 2000, 2
"""A grant of a limited pool that is older counts as not used: the job goes back to its place."""

Chain = Sequence[Model | StaticText]


@dataclass(frozen=True, slots=True)
class Attempting:
    """The stages that an attempt meets, in their order."""

    catalog: Catalog
    cache: Cache
    bucket: Bucket
    breaker: Breaker
    ledger: Ledger
    call: Call
    deltas: DeltaWriter
    learning: EstimateUpkeep
    clock_ms: Callable[[], int]

    async def attempt(
        self, job: JobRun, model: Model, chain: Chain
    ) -> Ending | Deferred | Restored | Broken | AttemptError:
        """One request to one model, held, written down, sent and settled; or what hindered it."""
        began_ms = self.clock_ms()
        line = await self.call.line(model, job.grant.key)
        if line is None:
            missing = self.call.no_key(model)
            if job.envelope.model == model.name:  # a mere stand-in is left out without a word
                job.add_failure(model, missing)
            return missing
        attempt = Attempt(
            job.envelope.id, job.claim.fence, job.attempts + 1, model.name, model.provider,
            started_at_ms=began_ms, waited_ms=job.waited_ms,
        )  # fmt: skip
        too_dear = budget.over_own(job.envelope.request, model, self.catalog, job.cost_pico_usd,
                                  job.unknown_models)  # fmt: skip
        hold = too_dear or await self._hold(job, model, chain, attempt.name)
        if isinstance(hold, AttemptError):
            job.too_large |= too_dear is not None or hold.code == "rate_limited"
            job.add_failure(model, hold)
            return hold
        if isinstance(hold, Deferred | Broken):
            return hold
        if self._is_stale(job, hold):
            return Deferred(0, self.ticket(job, model, chain).encode())
        if hold.key and hold.key != line.key:
            line = await self.call.line(model, hold.key) or line
        started_at_ms = self.clock_ms()
        job.waited_ms += started_at_ms - began_ms
        attempt = replace(attempt, started_at_ms=started_at_ms, waited_ms=job.waited_ms)
        job.attempts += 1
        job.started_at_ms = job.started_at_ms or started_at_ms
        try:
            if not await through(self.ledger.open(attempt)):
                return Restored()
        except asyncio.CancelledError:
            await through(self.ledger.settle(attempt.unsent(self.clock_ms())))
            raise
        job.grant = NO_GRANT  # from here on it counts, also if this worker dies
        left_ms = max(1, job.left_ms(started_at_ms))
        if not job.failures:
            self.breaker.called(model.provider)
        streams = job.envelope.request.stream
        pieces = self.deltas.of(job.envelope.id, job.claim.fence) if streams else None
        try:
            answer = await self.call.ask(
                line, job.envelope.request, model, left_ms=left_ms, on_piece=pieces,
            )  # fmt: skip
        except AttemptError as error:
            job.broke_off = pieces is not None and pieces.begun
            if error.billed is None:
                job.left_unknown_at(model.name)
            job.add_failure(model, error)
            await through(self.ledger.settle(attempt.failed(error, self.clock_ms())))
            await self._learn_of(error, job, hold)
            cut_short = left_ms < self.call.patience_s(model) * 1000
            if outage.is_fault(error, cut_short=cut_short):
                standing = await through(self.breaker.failed(hold))
                if standing.is_open and error.retryable:
                    job.broken[model.name] = standing.wait_ms
            return error
        except asyncio.CancelledError:
            job.cut_off(model)
            await through(self.ledger.settle(attempt.cut_off(self.clock_ms())))
            raise
        if pieces is not None:
            pieces.end()
        ending = self._answered(job, attempt, model, answer)
        self.bucket.heard(hold, answer.headers)
        self.breaker.answered(hold, self.clock_ms() - started_at_ms)
        if answer.counted:
            used = answer.reply.usage
            self.learning.saw(
                model.name, job.envelope.request.tenant, "",
                estimated_input=job.input_tokens(model), input_tokens=used.input_tokens,
                held_output=hold.output_tokens, output_tokens=used.output_tokens,
                ceiling=estimate.output_ceiling(job.envelope.request.params, model),
            )  # fmt: skip
        if hold.money or (hold.settles and answer.counted):
            used = answer.reply.usage
            fresh = used.input_tokens - (used.cached_input_tokens if hold.rule == "a" else 0)
            tokens = (fresh, used.output_tokens) if answer.counted else hold.tokens
            cost = ending.settlement.cost_pico_usd if ending.settlement else None
            settling = self.bucket.settle(job.envelope.id, hold, tokens, cost)
            try:
                await through(settling)
            except asyncio.CancelledError:
                if ending.settlement is not None:  # paid for, though nobody wants it any more
                    await through(self.ledger.settle(ending.settlement))
                raise
        return ending

    def ticket(self, job: JobRun, model: Model, chain: Chain = ()) -> Ticket:
        """What the job waits for when it waits for this model; its place in line is kept."""
        ticket = ticket_for(
            job.envelope, model, self.catalog, tier=job.tier, paid=job.paid,
            input_tokens=job.input_tokens(model), chain=chain, cache_policy=self.cache.keeping,
        )  # fmt: skip
        return replace(ticket, cached_as="") if job.uncached else ticket

    async def _hold(
        self, job: JobRun, model: Model, chain: Chain, attempt: str
    ) -> Grant | Deferred | Broken | AttemptError:
        """What the job came with if it is for this model; else what is left at once."""
        if job.grant.way == "held":
            if job.grant.model == model.name:
                return job.grant
            await through(self.bucket.settle(job.envelope.id, job.grant, None))
            job.grant = NO_GRANT
        ticket = self.ticket(job, model, chain)
        found = await self.bucket.reserve(job.envelope.id, attempt, ticket)
        match found:
            case Later():
                return Deferred(0, ticket.encode())
            case Broken():
                return found
            case TooLarge():
                return gate.too_large(ticket)
            case Grant(way="over budget"):
                return budget.over_budget(found)
            case Grant(way="cheaper"):  # it is told in line which model that is
                return Deferred(0, ticket.encode())
            case _:
                job.grant = found
                return found

    def _is_stale(self, job: JobRun, hold: Grant) -> bool:
        """Whether so long has passed since the grant that its call would meet those granted later.

        A worker that has just started imports an SDK for seconds; one that was frozen comes back
        with all its jobs. Their calls would leave at once, and the provider refuse them. Once or
        twice: a machine that is always that slow has to go on all the same.
        """
        late = bool(hold.totals) and self.clock_ms() - hold.granted_at_ms > STALE_MS
        return late and job.claim.fence <= STALE_TIMES

    async def _learn_of(self, error: AttemptError, job: JobRun, hold: Grant) -> None:
        """All workers know of what a refusal says of limits, before anybody asks again."""
        gives_back = hold.rule == "a" and hold.settles
        if error.billed is False and (gives_back or hold.money):
            tokens = (0, 0) if gives_back else hold.tokens
            await through(self.bucket.settle(job.envelope.id, hold, tokens, 0))
        if (refusal := gate.refusal(error)) is not None:
            await through(self.bucket.refused(hold, error, refusal.kind, refusal.wait_ms))

    def _answered(self, job: JobRun, attempt: Attempt, model: Model, answer: Answer) -> Ending:
        usage = answer.reply.usage
        terms = answer.terms
        cost = price(usage, model, self.catalog, terms=terms) if answer.counted else None
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
