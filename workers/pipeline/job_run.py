"""A job run: what has happened to the job so far, and how it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, assert_never

from headgate.shared.admission.grant import (
    Cached,
    CallerTerms,
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
    terms_of,
)
from headgate.shared.broker.results import GIVEN_UP
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import tokens
from headgate.shared.cost.price import usd_text
from headgate.shared.errors import ErrorCode, InvalidRequest
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.history import History, history_of, late_message
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.result import ErrorReport, FailedAttempt, Reply, Result, Status, Usage
from headgate.workers.clients.in_flight import AnswerRoom
from headgate.workers.errors import AttemptError
from headgate.workers.stages.cache import Question
from headgate.workers.stages.claim import Claim
from headgate.workers.stages.ledger import Settlement

NO_TICKET = NoTicket()

_STATUS: dict[ErrorCode, Status] = {
    "deadline": "expired", "expired": "expired", "cancelled": "cancelled",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Delivery:
    """A job as the broker delivers it.

    `crashes`: how many workers have died over it. `stopped` returns why the run was cancelled, if
    it was. `refusal`: what is wrong with the request of a stock producer.
    """

    envelope: Envelope
    crashes: int
    stopped: Callable[[], str | None]
    revoked: bool = False
    refusal: InvalidRequest | None = None
    grant: Grant = NO_TICKET


@dataclass(frozen=True, slots=True)
class Ending:
    """How the job ends.

    `settlement`: its last attempt, to be settled together with the end.
    """

    status: Status
    reply: Reply | None = None
    model_used: str | None = None
    provider: str | None = None
    provider_key: str | None = None
    cached: Literal["exact", "shared"] | None = None
    saved_pico_usd: int | None = None
    error: ErrorReport | None = None
    settlement: Settlement | None = None


@dataclass(slots=True)
class JobRun:
    """One run of one job under its claim.

    `grant`: the one it came with. `hold`: what it holds of its limits and has not used yet.
    `history`: its attempts under all claims. `question`: its request as the cache sees it.
    `waited_ms`: how long it has waited since its last failure. `started_at_ms`: when its first
    request left, Unix ms; None: none has. `broke_off`: its last attempt failed after a part of the
    answer had been delivered. `usage_note`: why the usage of its answer cannot be true, or None.
    `room`: what its answer takes of the worker's memory.
    """

    envelope: Envelope
    claim: Claim
    grant: Grant = NO_TICKET
    hold: Held | None = None
    usage: Usage = Usage()  # noqa: RUF009  # frozen
    waited_ms: int = 0
    started_at_ms: int | None = None
    broke_off: bool = False
    usage_note: str | None = None
    room: AnswerRoom | None = None
    history: History = field(init=False)
    question: Question = field(init=False)
    _input_tokens: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.grant, Held):
            self.hold = self.grant
        self.question = Question(self.envelope.request, self.envelope.sample)
        past = self.claim.history
        if past:
            self.started_at_ms = past[0].started_at_ms
        self.history = history_of(
            past,
            share_pico_usd=self.claim.share_pico_usd,
            forgiven_fence=self.envelope.forgiven_fence,
        )

    @property
    def terms(self) -> CallerTerms:
        """What each further ticket repeats about the caller."""
        return terms_of(self.grant)

    @property
    def leads(self) -> str:
        """The model for which equal jobs may wait for this one; empty: none waits."""
        match self.grant:
            case Held(model=model) | ModelDown(model=model) | Elsewhere(model=model):
                return model
            case Cached() | Shared() | Late() | TooLarge() | OverBudget() | Cheaper() | NoTicket():
                return ""
            case _:
                assert_never(self.grant)

    @property
    def was_cached(self) -> bool:
        """Whether it was granted for an answer in the cache.

        If it asks a model all the same, that answer was not for it. Its tickets then must not ask
        for the answer again.
        """
        return isinstance(self.grant, Cached | Shared)

    @property
    def failures(self) -> list[FailedAttempt]:
        """The failed attempts that the caller will see."""
        return self.history.failures

    @property
    def left_unknown(self) -> bool:
        """Whether the claim before this one ended during a request: by a crash or a stop."""
        forgiven = self.envelope.forgiven_fence
        past = [attempt for attempt in self.claim.history if attempt.fence > forgiven]
        cut_off = past and past[-1].state == "unknown" and past[-1].code in (None, "cancelled")
        return bool(cut_off)

    @property
    def unknown_tries(self) -> int:
        """How many of its attempts ended without anybody knowing whether they were billed.

        Those before an operator reopened it do not count.
        """
        unknown = (a for a in self.claim.history if a.state in ("open", "unknown"))
        forgiven = sum(1 for a in unknown if a.fence <= self.envelope.forgiven_fence)
        return len(self.history.unknown_models) - forgiven

    @property
    def has_asked(self) -> bool:
        """Whether it has asked a model under this claim."""
        return self.history.attempts > len(self.claim.history)

    @property
    def next_attempt(self) -> str:
        """The name of its next attempt, by which Redis knows the hold."""
        return f"{self.envelope.id}:{self.claim.fence}:{self.history.attempts + 1}"

    def input_tokens(self, model: Model) -> int:
        """Return the prompt in tokens of this model, counted once for each vocabulary."""
        name = tokens.vocabulary(model)
        if name not in self._input_tokens:
            self._input_tokens[name] = tokens.input_tokens(self.envelope.request, model)
        return self._input_tokens[name]

    def left_ms(self, now_ms: int) -> int:
        """Return the ms until the deadline; not positive once it has passed."""
        return self.envelope.deadline_at_ms - now_ms

    def add_failure(self, model: Model, error: AttemptError) -> None:
        """Add the failed attempt to the list that the caller will see."""
        self.failures.append(
            FailedAttempt(model.name, error.code, error.message, error.http_status, self.waited_ms)
        )
        self.waited_ms = 0

    def skip(self, model: Model) -> None:
        """List the model as down. It is left out, which counts as no attempt."""
        words = "it has failed too often recently; only one call at a time probes it"
        self.failures.append(FailedAttempt(model.name, "breaker_open", words, None, 0))

    def cut_off(self, model: Model) -> None:
        """List the running attempt as stopped by us; nobody knows whether it is billed."""
        self.history.unknown_models.append(model.name)
        self.failures.append(
            FailedAttempt(model.name, "cancelled", "cut off by us", None, self.waited_ms)
        )

    def failed(self, code: ErrorCode, message: str, *, retryable: bool = False) -> Ending:
        """Return the end of a job without an answer."""
        status = _STATUS.get(code, "failed")
        error = ErrorReport(code, message, retryable, list(self.failures))
        return Ending(status, error=error)

    def late(self, plain: str) -> Ending:
        """Return the end of a job past its deadline; the message names its last fault, too."""
        return self.failed("deadline", late_message(plain, self.failures))

    def given_up(self, reason: str) -> Ending:
        """Return the end of a job whose message is kept for an operator."""
        return self.failed("internal", f"{GIVEN_UP}: {reason}")

    def result(self, ending: Ending, now_ms: int) -> Result:
        """Return what the caller gets."""
        envelope, reply = self.envelope, ending.reply
        started_at_ms = self.started_at_ms or now_ms
        cost = self.history.cost_pico_usd
        return Result(
            id=envelope.id,
            status=ending.status,
            model=envelope.model,
            content=reply.content if reply else None,
            embeddings=reply.embeddings if reply else None,
            model_used=ending.model_used,
            provider=ending.provider,
            provider_key=ending.provider_key,
            finish_reason=reply.finish_reason if reply else None,
            tool_calls=reply.tool_calls if reply else None,
            usage=self.usage,
            usage_note=self.usage_note,
            cost_usd=usd_text(cost),
            cached=ending.cached,
            attempts=self.history.attempts,
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
            message=reply.message if reply else None,
            dialect=None if envelope.request.dialect == "openai" else envelope.request.dialect,
        )
