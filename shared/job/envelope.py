"""The envelope: a job as it travels from producer to worker.

It holds the request, the job's id, its model class and its times. Envelopes outlive deployments:
fields are only added, with defaults, and a reader skips fields that it does not know. A field that
an older reader must not skip, and a new value of an old field, need a new `v`. An older worker then
leaves the job to a newer one.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headgate.shared.errors import InvalidRequest, NewerEnvelope, UnreadableMessage
from headgate.shared.field_faults import remedy_of
from headgate.shared.job.encoding import json_bytes, refuse_oversize
from headgate.shared.job.ids import LATEST_MS, now_ms
from headgate.shared.job.request import (
    DEFAULT_DEADLINE_S,
    MAX_DEADLINE_S,
    MAX_SAMPLES,
    NO_NUL,
    REQUEST_FIELDS,
    CacheWish,
    ColumnText,
    Request,
)

ENVELOPE_VERSION = 1
"""The version of most envelopes: every release reads it."""

SECOND_VERSION = 2
"""The version of envelopes that the first readers would misread: `Request.version`, a `sample`
after the first, a `canvas`, and models that the catalog does not list (snapshots, fine-tunes)."""

NEWEST_VERSION = 3
"""The highest version that is read: what needs it is in `Request.version`.

A release adds at most one: readers leave the version after theirs to newer workers, and bury later
ones as unreadable.
"""


class Envelope(BaseModel):
    """A job as it travels. Times are Unix milliseconds of the producer's clock."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    v: int = ENVELOPE_VERSION
    id: ColumnText
    request: Request
    model: ColumnText
    model_class: Annotated[ColumnText, Field(max_length=64)]
    submitted_at_ms: Annotated[int, Field(ge=0, le=LATEST_MS)]
    batch_id: Annotated[ColumnText, Field(max_length=64)] | None = None
    batch_line: Annotated[int, Field(gt=-(2**31), lt=2**31)] | None = None
    """Its line, or what `headgate.producer.batch.samples` makes of line and sample."""
    custom_id: Annotated[str, Field(pattern=NO_NUL)] | None = None
    sample: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    """Which of the samples of one request it is. Only jobs of one number share an answer; the first
    shares it with jobs that are no samples."""
    forgiven_fence: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Set by an operator's retry: attempts under claims up to this fence do not count as tries."""
    group: Annotated[ColumnText, Field(max_length=128)] | None = None
    """The Celery group or chord that a stock producer sent the job in."""
    parent_id: Annotated[ColumnText, Field(max_length=128)] | None = None
    """The Celery task that sent the job."""
    ignore_result: bool = False
    """Whether its sender wants no result for `AsyncResult`."""
    canvas: dict[str, Any] | None = None
    """What Celery sends when the job ends, as `headgate.workers.celery.canvas` writes it."""
    step: Annotated[int, Field(ge=0, le=9)] = 0
    """The priority with which a stock producer sent the job: 0 is the most urgent, 9 the least."""
    expires_at_ms: Annotated[int, Field(ge=0, le=LATEST_MS)] | None = None
    """The `expires` of a stock producer, in Unix ms: a job that waits until then is never asked."""
    body_sha256: str = Field(default="", exclude=True)
    """Hash of the caller's request if it has an idempotency key; it does not travel."""

    @property
    def deadline_at_ms(self) -> int:
        """When the answer becomes worthless, in Unix ms."""
        return self.submitted_at_ms + int(self.request.deadline_s * 1000)

    @property
    def waits_until_ms(self) -> int:
        """Until when the job may wait to be asked, in Unix ms: its deadline, or its `expires`."""
        if self.expires_at_ms is None:
            return self.deadline_at_ms
        return min(self.deadline_at_ms, self.expires_at_ms)

    @property
    def trace_id(self) -> str:
        """The job's id as 32 hexadecimal digits: the form of a W3C trace id."""
        return self.id.replace("-", "")

    def encode(self) -> bytes:
        """Return the envelope as JSON.

        Raises InvalidRequest for a value that JSON cannot hold, and for more than 10 MB.
        """
        version = max(self.v, self.request.version)
        if self.sample > 1 or self.canvas is not None:
            version = max(version, SECOND_VERSION)
        request = _given(self.request)
        for name in ("cache", "pinned"):
            if (part := request.get(name)) is not None:
                request[name] = _given(part)
        fields = {**_given(self), "v": version, "request": request}
        fields.pop("body_sha256", None)
        try:
            data = json_bytes(fields)
        except InvalidRequest:  # models of pydantic within `params`, say: it knows their form
            data = json_bytes({**self.model_dump(exclude_defaults=True), "v": version})
        refuse_oversize(data)
        return data

    @classmethod
    def decode(cls, fields: object) -> Envelope:
        """Return the envelope from its decoded JSON.

        Raises NewerEnvelope for one of the next version, and UnreadableMessage for anything else
        that is no envelope. No error quotes the message.
        """
        if not isinstance(fields, dict):
            raise UnreadableMessage(f"the envelope is {type(fields).__name__}, not an object")
        version = fields.get("v")
        if version == NEWEST_VERSION + 1:
            raise _newer(version, fields)
        if version not in range(ENVELOPE_VERSION, NEWEST_VERSION + 1):
            found = version if isinstance(version, int) else type(version).__name__
            raise UnreadableMessage(f"envelope version {found} is not known here")
        try:
            return cls.model_validate(_without_newer_fields(fields))
        except InvalidRequest as error:  # its text would quote the value
            raise UnreadableMessage(f"{error.field}: {error.remedy}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UnreadableMessage(f"envelope field {where}: {remedy_of(first)}") from None


def _given(model: BaseModel) -> dict[str, Any]:
    """Return the fields that are not at their defaults, in a third of the time of `model_dump`."""
    defaults = _defaults_of(type(model))
    return {n: value for n, value in model.__dict__.items() if value != defaults[n]}


@cache
def _defaults_of(kind: type[BaseModel]) -> dict[str, Any]:
    fields = kind.model_fields.items()
    return {name: field.get_default(call_default_factory=True) for name, field in fields}


def _without_newer_fields(fields: dict[str, Any]) -> dict[str, Any]:
    request = fields.get("request")
    if not isinstance(request, dict):
        return fields
    if request.keys() <= REQUEST_FIELDS and not isinstance(request.get("cache"), dict):
        return fields
    known = {k: v for k, v in request.items() if k in REQUEST_FIELDS}
    if isinstance(wish := known.get("cache"), dict):
        known["cache"] = {k: v for k, v in wish.items() if k in CacheWish.model_fields}
    return {**fields, "request": known}


def _newer(version: int, fields: dict[str, Any]) -> UnreadableMessage:
    """Return the error for an envelope of the next version.

    `submitted_at_ms` and `request.deadline_s` keep their names and units in every version.
    """
    request = fields.get("request")
    given = request.get("deadline_s") if isinstance(request, dict) else None
    deadline_s = DEFAULT_DEADLINE_S if given is None else given
    submitted_at_ms: Any = fields.get("submitted_at_ms")
    is_submitted = isinstance(submitted_at_ms, int) and 0 < submitted_at_ms < now_ms() + 86_400_000
    is_bounded = isinstance(deadline_s, int | float) and 0 < deadline_s <= MAX_DEADLINE_S
    if not (is_submitted and is_bounded):
        return UnreadableMessage(f"envelope version {version} does not say how long it may wait")
    return NewerEnvelope(version, submitted_at_ms, submitted_at_ms + int(deadline_s * 1000))
