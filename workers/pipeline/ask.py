"""Ask: the models of the chain, one after the other, each as often as it makes sense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

from headgate.shared.admission.grant import (
    Cached,
    Cheaper,
    Elsewhere,
    Held,
    Late,
    ModelDown,
    NoTicket,
    OverBudget,
    Shared,
    TooLarge,
)
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.job.result import Reply, Usage
from headgate.workers.errors import AttemptError
from headgate.workers.pipeline.attempt import AttemptSteps, Failed
from headgate.workers.pipeline.job_run import Ending, JobRun
from headgate.workers.pipeline.outcome import Deferred, Restored
from headgate.workers.policy import breaker, budget, fallback, refusal, retry
from headgate.workers.policy.fallback import Chain
from headgate.workers.stages.breaker import Breaker

MOMENT_MS = 2000
"""How long a job may wait inside a worker before it asks the same model again."""

AT_GATE_MS = 60_000
"""A job that a shut gate holds up for longer waits there, where an operator may open it."""

NO_ANSWER_IN_TIME = "the deadline passed before an answer came"

AskOutcome: TypeAlias = Ending | Deferred | Restored


@dataclass(slots=True)
class _Tried:
    """What the models asked so far came to.

    `down`: the models that are down, with the ms until one probe may go. `hopeless`: one of them
    will never answer this job, however long it waits. `error`: of the last failure, also of a
    fallback without a key, which the caller does not see.
    """

    down: dict[str, int] = field(default_factory=dict)
    hopeless: bool = False
    error: AttemptError | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks for an answer. `chance` draws from [0, 1); `limits` says how often a model is asked."""

    catalog: Catalog
    steps: AttemptSteps
    breaker: Breaker
    limits: retry.RetryLimits
    clock_ms: Callable[[], int]
    chance: Callable[[], float]

    async def ask(self, job: JobRun, first: Model) -> AskOutcome:
        """Return the first answer that a model of the chain gives, or why there is none."""
        request = job.envelope.request
        chain = budget.chain(request, first, self.catalog, job.grant, job.input_tokens)
        if chain is None:
            return Deferred(budget.SOFT_MS)
        tried = _Tried()
        for model in chain[fallback.start(chain, job.failures, job.grant) :]:
            if isinstance(model, StaticText):
                return _fixed(model)
            refused = self._refused(job, model, chain)
            if refused is None:
                end = await self._ask_model(job, model, chain, tried)
                if end is not None:
                    return end
            elif isinstance(refused, Deferred):
                return refused
            else:
                self._note(job, model, refused, tried)
        return self._without_answer(job, chain, tried)

    def _refused(
        self, job: JobRun, model: Model, chain: Chain
    ) -> Failed | ModelDown | Deferred | None:
        """Return why the job's grant keeps it from this model; None if it may ask."""
        grant = job.grant
        match grant:
            case TooLarge(model=name) if name == model.name:
                error = refusal.too_large(self.steps.ticket(job, model))
                job.add_failure(model, error)
                return Failed(error)
            case OverBudget(model=name) if name == model.name:
                ticket = self.steps.ticket(job, model, chain)
                if grant.upper_bound is None and ticket.upper_bound_pico_usd is not None:
                    return Deferred(0, ticket.encode())  # an older release wrote no price
                over = budget.over_budget(grant)
                job.add_failure(model, over)
                return Failed(over)
            case ModelDown(model=name) if name == model.name:
                return grant
            case TooLarge() | OverBudget() | ModelDown() | Held() | Cached() | Shared():
                return None
            case Late() | Elsewhere() | Cheaper() | NoTicket():
                return None
            case _:
                assert_never(grant)

    async def _ask_model(
        self, job: JobRun, model: Model, chain: Chain, tried: _Tried
    ) -> AskOutcome | None:
        """Ask this model until it answers or its tries are spent; None: ask the next one.

        A job that has waited for the model's breaker asks once, also if its tries are spent, but
        not without end: see `may_probe`.
        """
        grant = job.grant
        limits = self.limits.of(model)
        is_due = isinstance(grant, Held) and grant.waits and grant.model == model.name
        is_due = is_due and fallback.may_probe(job.unknown_tries, limits)
        while is_due or not fallback.is_spent(model.name, job.failures, limits):
            is_due = False
            if job.left_ms(self.clock_ms()) <= 0:
                return job.late(NO_ANSWER_IN_TIME)
            outcome = await self.steps.attempt(job, model, chain)
            if isinstance(outcome, Ending | Deferred | Restored):
                return outcome
            self._note(job, model, outcome, tried)
            if isinstance(outcome, ModelDown):
                return None
            after = self._after(job, model, chain, outcome, tried)
            if not isinstance(after, retry.Again):
                return after
            await asyncio.sleep(after.wait_ms / 1000)
            job.waited_ms += after.wait_ms
        return None

    def _note(self, job: JobRun, model: Model, outcome: Failed | ModelDown, tried: _Tried) -> None:
        """Note what the last attempt showed about the model."""
        if isinstance(outcome, Failed):
            tried.error = outcome.error
            tried.hopeless |= not outcome.error.waiting_helps
            if outcome.down_ms is not None:
                tried.down[model.name] = outcome.down_ms
        else:
            wait_ms = outcome.wait_ms
            tried.down[model.name] = breaker.UNKNOWN_MS if wait_ms is None else wait_ms
            job.skip(model)

    def _after(
        self, job: JobRun, model: Model, chain: Chain, failed: Failed, tried: _Tried
    ) -> Ending | Deferred | retry.Again | None:
        """Decide what follows a failed attempt: the end, a wait, a retry; None: the next model."""
        error = failed.error
        if failed.broke_off:  # what was delivered cannot be taken back by another answer
            message = f"the answer broke off: {error.message}"
            return job.failed(error.code, message, retryable=error.retryable)
        limits = self.limits.of(model)
        decision = retry.decide(
            error,
            tries_of_model=fallback.tries(model.name, job.failures),
            tries_of_job=len(fallback.counted(job.failures)),
            limits=limits,
            left_ms=job.left_ms(self.clock_ms()),
            chance=self.chance(),
            has_next=chain[-1] != model,
        )
        match decision:
            case retry.GiveUp():
                if error.code in fallback.LAST and isinstance(chain[-1], StaticText):
                    return _fixed(chain[-1])
                return job.failed(error.code, error.message, retryable=error.retryable)
            case retry.NextModel():
                return None
            case retry.Again(wait_ms):
                return self._retry(job, model, chain, failed, tried, wait_ms)
            case _:
                assert_never(decision)

    def _retry(
        self, job: JobRun, model: Model, chain: Chain, failed: Failed, tried: _Tried, wait_ms: int
    ) -> Deferred | retry.Again | None:
        """Retry the model after `wait_ms`, as far as its breaker and the retry budget allow."""
        if model.name in tried.down:
            return None
        if breaker.loads_provider(failed.error):
            has_other = bool(tried.down) or chain[-1] != model
            longest_ms = 0 if has_other else job.left_ms(self.clock_ms())
            free_ms = self.breaker.book_retry(model.provider, longest_ms)
            if free_ms is None:
                return None
            wait_ms = max(wait_ms, free_ms)
        if wait_ms <= MOMENT_MS:
            return retry.Again(wait_ms)
        ticket = self.steps.ticket(job, model, chain).encode()
        is_at_gate = wait_ms > AT_GATE_MS and refusal.shuts(failed.error)
        return Deferred(0 if is_at_gate else wait_ms, ticket)

    def _without_answer(self, job: JobRun, chain: Chain, tried: _Tried) -> Ending | Deferred:
        """End a job that no model has answered, or let it wait for one that is down."""
        if job.left_ms(self.clock_ms()) <= 0:
            return job.late(NO_ANSWER_IN_TIME)
        if tried.down and fallback.may_probe(job.unknown_tries, self.limits):
            return self._wait_for_one(job, chain, tried)
        failures = fallback.counted(job.failures)
        if not failures:
            return self._without_fallback(job, tried)
        over_budget = all(failure.code == "budget_exceeded" for failure in failures)
        last = failures[0 if over_budget else -1]  # the budget for the model that was wanted
        # Cut off by workers that were stopped: nobody wanted the job to be cancelled.
        code = "internal" if last.code == "cancelled" else last.code
        retryable = code not in fallback.FINAL | fallback.LAST and not tried.hopeless
        return job.failed(code, last.message, retryable=retryable)

    def _without_fallback(self, job: JobRun, tried: _Tried) -> Ending | Deferred:
        """End a job for which no model was asked: the fallbacks have no key, or are gone.

        If a fallback was to answer only because the wanted model is busy, wait for that one.
        """
        if isinstance(job.grant, Elsewhere) or tried.error is None:
            wanted = self.catalog.model(job.envelope.model)
            return Deferred(0, self.steps.ticket(job, wanted).encode())
        return job.failed(tried.error.code, tried.error.message)

    def _wait_for_one(self, job: JobRun, chain: Chain, tried: _Tried) -> Deferred:
        """Let the job wait in the queue of the model that is down; of several, for any."""
        left_ms = job.left_ms(self.clock_ms())
        name, wait_ms = breaker.wait_for_one(tried.down, left_ms, self.chance())
        model = next(one for one in chain if isinstance(one, Model) and one.name == name)
        several = len(tried.down) > 1
        ticket = replace(self.steps.ticket(job, model), waits=True, replaceable=several)
        if job.has_asked:  # the request itself may be at fault: another job makes the next probe
            ticket = replace(ticket, arrival_ms=self.clock_ms())
        return Deferred(wait_ms, ticket.encode())


def _fixed(answer: StaticText) -> Ending:
    """Return the end with a fixed answer, which costs nothing."""
    return Ending("succeeded", reply=Reply(answer.text, "stop", Usage()), model_used="static")
