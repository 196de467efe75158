"""How a job stands and how it ended: its status, usage and error, and the result for the caller.

Results outlive deployments: fields are only added, with defaults, and readers skip the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from headgate.shared.errors import AnswerMismatch, ErrorCode
from headgate.shared.field_faults import path_of, remedy_of
from headgate.shared.job.encoding import dumps, loads
from headgate.shared.job.request_checks import AnyForm as AskedForm
from headgate.shared.job.waiting_for import WaitingFor

Status = Literal["queued", "running", "deferred", "succeeded", "failed", "cancelled", "expired"]

OPEN: tuple[Status, ...] = ("queued", "running", "deferred")
"""Statuses of a job that has not ended."""

WAITING: tuple[Status, ...] = ("queued", "deferred")
"""Open statuses of a job that no worker runs."""

ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "expired"})
"""Statuses that never change, except that an operator may retry a failed job."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt, in one form for all vendors.

    `input_tokens` includes `cached_input_tokens` and `cache_write_tokens`. `output_tokens` includes
    `reasoning_tokens`.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def as_json(self) -> dict[str, int]:
        """Return the counts by name, ten times as fast as `dataclasses.asdict`."""
        return {name: getattr(self, name) for name in _USAGE_FIELDS}


@dataclass(frozen=True, slots=True)
class Reply:
    """What one model answered.

    `message`: what the vendor sent, whole; of embeddings without the vectors. None where no vendor
    was asked, and in answers that an older release stored.
    """

    content: str | None
    finish_reason: str
    usage: Usage
    tool_calls: list[dict[str, Any]] | None = None
    embeddings: list[list[float]] | None = None
    provider_model: str = ""
    request_id: str | None = None
    message: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed, as the caller sees it."""

    model: str
    code: ErrorCode
    message: str
    http_status: int | None
    waited_ms: int


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Why a job ended without an answer."""

    code: ErrorCode
    message: str
    retryable: bool
    attempts: list[FailedAttempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What the caller gets back.

    `message` is what the vendor sent back, whole and in the vendor's form: a chat completion or a
    Response of OpenAI's, a message of Anthropic's, or an embeddings object without its vectors. It
    is None where no vendor answered. `provider_key` is a digest of the provider's key that
    answered: a later request can be pinned to it. None for an answer of the cache or of another
    job.
    `dialect` is the form that the request had; None for that of chat completions.
    `cost_usd` is a decimal text, or None where a price is unknown. Times are RFC 3339 in UTC.
    `usage_note` says why `usage` cannot be true, as the provider reported it; None if it can.
    `waiting_for` says what a job waits for that has not ended; None while it runs.
    `parsed` is the answer as an object of the `response_format` that the caller gave, if any; it is
    not part of the JSON.
    """

    id: str
    status: Status
    model: str
    content: str | None = None
    embeddings: list[list[float]] | None = None
    model_used: str | None = None
    provider: str | None = None
    provider_key: str | None = None
    finish_reason: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    usage: Usage = Usage()
    cost_usd: str | None = "0"
    cached: Literal["exact", "semantic", "shared"] | None = None
    attempts: int = 0
    fallback: bool = False
    batch_id: str | None = None
    submitted_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    queued_ms: int | None = None
    latency_ms: int | None = None
    retry_at: str | None = None
    usage_note: str | None = None
    trace_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    error: ErrorReport | None = None
    waiting_for: WaitingFor | None = None
    message: dict[str, Any] | None = None
    dialect: AskedForm | None = None
    _form: type[BaseModel] | None = field(default=None, repr=False, compare=False)
    _parsed: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.status in ENDED

    @property
    def refusal(self) -> str | None:
        """The model's refusal in OpenAI's form, which takes the place of the content; or None."""
        match self.message:
            case {"choices": [{"message": {"refusal": str(refusal)}}, *_]}:
                return refusal
            case {"object": "response", "output": [*items]}:
                return _refusal_in(items)
        return None

    @property
    def parsed(self) -> Any:
        """The answer as an object of the `response_format` that the caller gave.

        None without one, for a refusal, and for a job that has not succeeded. Raises AnswerMismatch
        if the answer is not what the model describes.
        """
        if self._form is None or self.content is None or self.status != "succeeded":
            return None
        if self._parsed is None:
            object.__setattr__(self, "_parsed", _parsed_answer(self, self._form))
        return self._parsed

    def parsed_by(self, model: type[BaseModel]) -> Result:
        """Return the same result, whose `parsed` is an object of this pydantic model."""
        return replace(self, _form=model)

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values.

        An embedding job has `embeddings` instead of `content`. `usage_note`, `provider_key` and
        `dialect` are left out if None.
        """
        # Field by field takes 3 us; dataclasses.asdict copies every value and takes 19 us.
        fields = {name: getattr(self, name) for name in _RESULT_FIELDS}
        fields["usage"] = self.usage.as_json()
        if self.error is not None:
            fields["error"] = asdict(self.error)
        if self.waiting_for is not None:
            fields["waiting_for"] = self.waiting_for.as_json()
        fields.pop("content" if self.embeddings is not None else "embeddings")
        if self.status != "deferred":
            fields.pop("retry_at")
        for name in ("usage_note", "provider_key", "dialect"):
            if fields[name] is None:
                fields.pop(name)
        return fields

    def model_dump(self) -> dict[str, Any]:
        """Return a copy as plain JSON values, as pydantic's method of this name does.

            json.dumps(result.model_dump())

        The names are those of the fields; an embedding job has `embeddings` instead of `content`.
        """
        copied: dict[str, Any] = loads(dumps(self.as_json()))
        return copied

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Result:
        """Return the result from the form of `as_json`; fields of newer writers are skipped."""
        known = {name: fields[name] for name in _RESULT_FIELDS if name in fields}
        known["usage"] = Usage(**known_fields(Usage, known.get("usage") or {}))
        if known.get("error"):
            error = known_fields(ErrorReport, known["error"])
            attempts = error.get("attempts", [])
            error["attempts"] = [FailedAttempt(**known_fields(FailedAttempt, a)) for a in attempts]
            known["error"] = ErrorReport(**error)
        if known.get("waiting_for"):
            known["waiting_for"] = WaitingFor(**known_fields(WaitingFor, known["waiting_for"]))
        return cls(**known)


def _refusal_in(items: list[Any]) -> str | None:
    """Return the refusal in the output of a Response; None if there is none."""
    for item in items:
        match item:
            case {"type": "message", "content": [*_, {"type": "refusal", "refusal": str(refusal)}]}:
                return refusal
    return None


_RESULT_FIELDS = tuple(name for name in Result.__dataclass_fields__ if not name.startswith("_"))
_USAGE_FIELDS = tuple(Usage.__dataclass_fields__)


def _parsed_answer(result: Result, model: type[BaseModel]) -> BaseModel:
    """Return the content of the result as an object of the model; raise AnswerMismatch."""
    try:
        return model.model_validate_json(result.content or "")
    except ValidationError as error:
        faults = [
            f"{path_of(fault['loc']) or 'the text'}: {remedy_of(fault)}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
    raise AnswerMismatch(result.id, model.__name__, faults, result.finish_reason)


def known_fields(kind: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the dataclass `kind` has, and leave out those of newer writers."""
    return {name: fields[name] for name in kind.__dataclass_fields__ if name in fields}
