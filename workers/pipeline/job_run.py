"""A job on its way through the pipeline: what has happened to it so far, and how it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from headgate.shared.admission.grant import NO_GRANT, Grant
from headgate.shared.broker.results import GIVEN_UP
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import tokens
from headgate.shared.cost.price import from_pico, text
from headgate.shared.errors import ErrorCode, InvalidRequest
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.result import ErrorReport, FailedAttempt, Reply, Result, Status, Usage
from headgate.workers.errors import AttemptError
from headgate.workers.stages.claim import Claim
from headgate.workers.stages.ledger import Settlement


@dataclass(frozen=True, slots=True)
class Delivery:
    """A job as the broker hands it over. `stopped` tells why the run was cancelled, if it was.

    `grant`: what it holds of the limits of its pool, or why it came without.
    """

    envelope: Envelope
    crashes: int
    stopped: Callable[[], str | None]
    revoked: bool = False
    refusal: InvalidRequest | None = None
    grant: Grant = NO_GRANT


@dataclass(frozen=True, slots=True)
class Ending:
    """How the job ends. `settlement`: its last attempt, still to be settled with the end."""

    status: Status
    reply: Reply | None = None
    model_used: str | None = None
    provider: str | None = None
    cached: Literal["exact", "shared"] | None = None
    saved_pico_usd: int | None = None
    error: ErrorReport | None = None
    settlement: Settlement | None = None


@dataclass(slots=True)
class JobRun:
    """One run of one job.

    `grant`: what it holds and has not used; `tier` and `paid` go into each further ticket.
    `asked`: the model that it was handed out for: equal jobs wait for its answer. `uncached`: there
    is an answer in the cache, and it is none for this job.
    `broken`: models that are down, and the ms until one probe may go; they do not end the job.
    `cost_pico_usd` None: a price is not known. `started_at_ms`: when its first request left; what
    came before was waiting in a queue or for a limit. `broke_off`: the last attempt failed when
    some of its answer had been delivered, which no other can go on with.
    """

    envelope: Envelope
    claim: Claim
    crashes: int = 0
    grant: Grant = NO_GRANT
    tier: str = ""
    paid: bool = False
    too_large: bool = False
    asked: str = ""
    uncached: bool = False
    broke_off: bool = False
    broken: dict[str, int] = field(default_factory=dict)
    failures: list[FailedAttempt] = field(default_factory=list)
    attempts: int = 0
    unknown_attempts: int = 0
    unknown_models: list[str] = field(default_factory=list)
    cost_pico_usd: int | None = 0
    usage: Usage = Usage()  # noqa: RUF009  # frozen
    waited_ms: int = 0
    started_at_ms: int | None = None
    _input_tokens: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What earlier claims did counts: tries, money, and what nobody knows."""
        self.add_cost(self.claim.share_pico_usd)
        for past in self.claim.history:
            self.attempts += 1
            self.started_at_ms = self.started_at_ms or past.started_at_ms
            self.add_cost(0 if past.state == "unknown" else past.cost_pico_usd)
            if past.state == "unknown":
                self.left_unknown_at(past.model)
            if past.state != "answered" and past.fence > self.envelope.forgiven_fence:
                message = past.message or "a worker died while the provider was answering"
                code: ErrorCode = past.code or "internal"
                self.failures.append(
                    FailedAttempt(past.model, code, message, past.http_status, past.waited_ms)
                )

    def input_tokens(self, model: Model) -> int:
        """The prompt in tokens of this model, as tickets say; counted once for each vocabulary."""
        name = tokens.vocabulary(model)
        if name not in self._input_tokens:
            self._input_tokens[name] = tokens.input_tokens(self.envelope.request, model)
        return self._input_tokens[name]

    @property
    def left_unknown(self) -> bool:
        """True when the claim before this one ended with a request under way: a crash, a stop."""
        forgiven = self.envelope.forgiven_fence
        past = [attempt for attempt in self.claim.history if attempt.fence > forgiven]
        cut_off = past and past[-1].state == "unknown" and past[-1].code in (None, "cancelled")
        return bool(cut_off)

    def left_ms(self, now_ms: int) -> int:
        """Milliseconds until the deadline; not positive once it has passed."""
        return self.envelope.deadline_at_ms - now_ms

    def add_cost(self, cost_pico_usd: int | None) -> None:
        """The job has cost this much more; once a price is not known, nor is the sum."""
        known = self.cost_pico_usd is not None and cost_pico_usd is not None
        self.cost_pico_usd = (self.cost_pico_usd or 0) + (cost_pico_usd or 0) if known else None

    def add_failure(self, model: Model, error: AttemptError) -> None:
        """The failed attempt is in the list that the caller will see."""
        self.failures.append(
            FailedAttempt(model.name, error.code, error.message, error.http_status, self.waited_ms)
        )
        self.waited_ms = 0

    def left_unknown_at(self, model: str) -> None:
        """Nobody knows whether an attempt at this model was billed."""
        self.unknown_attempts += 1
        self.unknown_models.append(model)

    def skip(self, model: Model, wait_ms: int) -> None:
        """The model is down: it is left out, which counts as no attempt."""
        self.broken[model.name] = wait_ms
        words = "it has failed too often of late; nobody asks it but one call that tries it"
        self.failures.append(FailedAttempt(model.name, "breaker_open", words, None, 0))

    def cut_off(self, model: Model) -> None:
        """The attempt under way was stopped by us; whether it is billed is unknown."""
        self.left_unknown_at(model.name)
        self.failures.append(
            FailedAttempt(model.name, "cancelled", "cut off by us", None, self.waited_ms)
        )

    def failed(self, code: ErrorCode, message: str, *, retryable: bool = False) -> Ending:
        """The job ends without an answer."""
        status: Status = {"deadline": "expired", "cancelled": "cancelled"}.get(code, "failed")  # type: ignore[assignment]  # all three are of Status
        return Ending(status, error=ErrorReport(code, message, retryable, list(self.failures)))

    @property
    def has_asked(self) -> bool:
        """Whether it has asked a model under this claim."""
        return self.attempts > len(self.claim.history)

    @property
    def shares_failure(self) -> bool:
        """Whether equal jobs that wait for its call fail with it: not where nobody was asked, which
        each finds out for itself; nor where it broke off, since they have delivered nothing yet.
        """
        return bool(self.asked and self.failures) and not self.broke_off

    def broken_off(self, error: AttemptError) -> Ending:
        """The job ends with the error that some of its answer was delivered before."""
        message = f"the answer broke off: {error.message}"
        return self.failed(error.code, message, retryable=error.retryable)

    def given_up(self, reason: str) -> Ending:
        """The job ends without an answer, and its message is kept for an operator."""
        return self.failed("internal", f"{GIVEN_UP}: {reason}")

    def result(self, ending: Ending, now_ms: int) -> Result:
        """What the caller gets back."""
        envelope, reply = self.envelope, ending.reply
        started_at_ms = self.started_at_ms or now_ms
        cost = None if self.cost_pico_usd is None else text(from_pico(self.cost_pico_usd))
        return Result(
            id=envelope.id,
            status=ending.status,
            model=envelope.model,
            content=reply.content if reply else None,
            embeddings=reply.embeddings if reply else None,
            model_used=ending.model_used,
            provider=ending.provider,
            finish_reason=reply.finish_reason if reply else None,
            tool_calls=reply.tool_calls if reply else None,
            usage=self.usage,
            cost_usd=cost,
            cached=ending.cached,
            attempts=self.attempts,
            fallback=ending.model_used is not None and ending.model_used != envelope.model,
            batch_id=envelope.batch_id,
            submitted_at=rfc3339(envelope.submitted_at_ms),
            started_at=rfc3339(started_at_ms),
            finished_at=rfc3339(now_ms),
            queued_ms=max(0, started_at_ms - envelope.submitted_at_ms),
            latency_ms=max(0, now_ms - started_at_ms),
            trace_id=envelope.trace_id,
            metadata=envelope.request.metadata,
            error=ending.error,
        )
