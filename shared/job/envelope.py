"""All that crosses a process: Request, Envelope, Usage, Reply, Result; how they are encoded.

A Request is what a caller asks for, checked field by field. An Envelope is the job as it travels:
the request with its id, its model class and its times. A Reply is what one model answered. A
Result is what the caller gets back. All of them outlive deployments: fields are only added, with
defaults, and a reader skips those that it does not know. What an older reader must not skip, or a
new value of an old field, takes a new `v`: that reader leaves the job for a newer worker.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from headgate.shared.errors import InvalidRequest, NewerEnvelope, UnreadableMessage
from headgate.shared.job.ids import LATEST_MS, now_ms
from headgate.shared.job.request import (
    _REQUEST_FIELDS,
    DEFAULT_DEADLINE_S,
    MAX_DEADLINE_S,
    NO_NUL,
    CacheWish,
    Request,
    Short,
    json_bytes,
    refuse_oversize,
)

ENVELOPE_VERSION = 1


class Envelope(BaseModel):
    """The job as it travels. Times are Unix milliseconds of the producer's clock."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    v: int = ENVELOPE_VERSION
    id: Short
    request: Request
    model: Short
    model_class: Annotated[Short, Field(max_length=64)]
    submitted_at_ms: Annotated[int, Field(ge=0, le=LATEST_MS)]
    batch_id: Annotated[Short, Field(max_length=64)] | None = None
    batch_line: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    custom_id: Annotated[str, Field(pattern=NO_NUL)] | None = None
    forgiven_fence: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """An operator's retry: what was tried under claims up to this one counts as no try."""
    body_sha256: str = Field(default="", exclude=True)
    """Of what the caller gave, where that has an idempotency key; it does not travel."""

    @property
    def deadline_at_ms(self) -> int:
        """When the answer becomes worthless."""
        return self.submitted_at_ms + int(self.request.deadline_s * 1000)

    @property
    def trace_id(self) -> str:
        """The job's id as 32 hexadecimal digits: the form of a W3C trace id."""
        return self.id.replace("-", "")

    def encode(self) -> bytes:
        """The envelope as JSON; raises InvalidRequest for what JSON cannot carry or over 10 MB."""
        fields = self.model_dump(exclude_defaults=True)
        fields["v"] = self.v
        data = json_bytes(fields)
        refuse_oversize(data)
        return data

    @classmethod
    def decode(cls, fields: object) -> Envelope:
        """The envelope from its decoded JSON; raises UnreadableMessage, or NewerEnvelope."""
        if not isinstance(fields, dict):
            raise UnreadableMessage(f"the envelope is {type(fields).__name__}, not an object")
        version = fields.get("v")
        if version == ENVELOPE_VERSION + 1:
            raise _newer(version, fields)
        if version != ENVELOPE_VERSION:
            told = version if isinstance(version, int) else type(version).__name__
            raise UnreadableMessage(f"envelope version {told} is not known here")
        request = fields.get("request")
        if isinstance(request, dict):
            known = {k: v for k, v in request.items() if k in _REQUEST_FIELDS}
            if isinstance(wish := known.get("cache"), dict):
                known["cache"] = {k: v for k, v in wish.items() if k in CacheWish.model_fields}
            fields = {**fields, "request": known}
        try:
            return cls.model_validate(fields)
        except InvalidRequest as error:  # its own words quote the value
            raise UnreadableMessage(f"{error.field}: {error.remedy}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UnreadableMessage(f"envelope field {where}: {first['msg']}") from None


def _newer(version: int, fields: dict[str, Any]) -> UnreadableMessage:
    """What is known of the next release's envelope: these fields keep their names and units."""
    request = fields.get("request")
    given = request.get("deadline_s") if isinstance(request, dict) else None
    deadline_s = DEFAULT_DEADLINE_S if given is None else given
    submitted_at_ms: Any = fields.get("submitted_at_ms")
    timely = isinstance(submitted_at_ms, int) and 0 < submitted_at_ms < now_ms() + 86_400_000
    bounded = isinstance(deadline_s, int | float) and 0 < deadline_s <= MAX_DEADLINE_S
    if not (timely and bounded):
        return UnreadableMessage(f"envelope version {version} does not say how long it may wait")
    return NewerEnvelope(version, submitted_at_ms, submitted_at_ms + int(deadline_s * 1000))
