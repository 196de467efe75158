"""One call at the gateway: who asks for what, in which dialect, and how."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from headgate.producer.callers.caller import Caller
from headgate.producer.submit.fields import RequestFields
from headgate.shared.job.request import Dialect

Kind = Literal["chat", "embeddings", "messages", "responses", "moderations"]
"""What a call asks for. For the scope of its key, all but embeddings are chats."""


def new_request_id() -> str:
    """Return the id of a new call, as `x-request-id` names it."""
    return f"req_{uuid4().hex}"


@dataclass(frozen=True, slots=True)
class GatewayCall:
    """One call. Durations are in seconds.

    `wait_s`: how long the caller waits for the answer. `is_patient`: the caller has said how long,
    so it waits also while no worker runs. `detach`: the job goes on if the caller goes away.
    `retry`: how often the caller's library has asked before; None: it does not say. `digest`: what
    is equal in a call and its retries; empty: a retry cannot be known. `after`: how many events of
    its stream the caller has.

    Of a response: `background`: the caller does not wait. `is_known`: the caller has its id, so one
    that fails is shown, and no error of the call. `is_stored`: it can be asked for again. `asked`:
    what it repeats of its request.
    """

    dialect: Dialect
    kind: Kind
    caller: Caller
    fields: RequestFields
    request_id: str
    model: str
    wait_s: float
    is_patient: bool = False
    detach: bool = False
    include_usage: bool = False
    json_only: bool = False
    base64: bool = False
    retry: int | None = None
    digest: str = ""
    after: int = 0
    background: bool = False
    is_known: bool = False
    is_stored: bool = True
    asked: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def streams(self) -> bool:
        """Whether the caller wants the answer piece by piece."""
        return bool(self.fields.get("stream"))
