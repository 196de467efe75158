"""One job that runs here, with what Celery's commands, events and Flower show of it.

It stands where Celery has its `Request`. All that Celery reads has the same name, but there is no
prompt in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from celery.utils.functional import maybe_list
from celery.worker import state

from headgate.shared.broker.queues import TASK
from headgate.workers.delivery.leases import StopReason
from headgate.workers.delivery.message import Arrival


class Stopper(Protocol):
    """What ends a job before its time: the pool."""

    def stop_job(self, tag: int, reason: StopReason) -> None:
        """Cancel the job's coroutine for this reason."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class RunningJob:
    """One job in the pool. `hostname` is the worker's name, `stopped` why it is cancelled."""

    arrival: Arrival
    hostname: str = ""
    time_start: float = field(default_factory=time.time)
    stopped: StopReason | None = None
    task: asyncio.Task[None] | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The job's id."""
        return self.arrival.id

    @property
    def tag(self) -> int:
        """The job's number in this process, which Celery calls its pid."""
        return self.arrival.tag

    @property
    def headers(self) -> Mapping[str, Any]:
        """The checked headers of its message."""
        return self.arrival.content.headers

    @property
    def stamps(self) -> Mapping[str, Any]:
        """The stamps by which Celery may revoke it."""
        return self.headers.get("stamps") or {}

    @property
    def is_revoked(self) -> bool:
        """Whether a command has revoked the job, or what bears one of its stamps."""
        if self.id in state.revoked:
            return True
        return bool(self.stamps) and bears(self.stamps, state.revoked_stamps)

    def terminate(self, pool: Stopper, signal: object = None) -> None:
        """Cancel the job; its call to the provider is closed."""
        pool.stop_job(self.tag, "cancelled")

    def described(self) -> str:
        """Return what logs and events may say of the job."""
        args, kwargs, _ = self.arrival.content.body
        return described(args, kwargs)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what `inspect` and Flower show of the job, without its prompt."""
        return {
            "id": self.id,
            "name": TASK,
            "args": "",
            "kwargs": self.described(),
            "type": TASK,
            "hostname": self.hostname,
            "time_start": self.time_start,
            "acknowledged": False,
            "delivery_info": {
                "exchange": "",
                "routing_key": self.arrival.queue,
                "priority": self.arrival.content.priority,
                "redelivered": self.arrival.crashes > 0,
            },
            "worker_pid": self.tag,
        }


def bears(stamps: Mapping[str, Any], revoked: Mapping[str, Any]) -> bool:
    """Return whether one of these stamps is among the revoked ones."""
    return any(
        value in (maybe_list(revoked.get(name)) or ())
        for name, values in stamps.items()
        for value in maybe_list(values) or ()
    )


def described(args: Any, kwargs: Any) -> str:
    """Return model and tenant of the job that a message brings, as far as it names them."""
    fields = args[0] if args else kwargs
    if not isinstance(fields, dict):
        return "{}"
    request = fields.get("request") if "v" in fields else fields
    tenant = request.get("tenant") if isinstance(request, dict) else None
    found = {"model": fields.get("model"), "tenant": tenant}
    return repr({name: value for name, value in found.items() if _is_name(value)})


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 128 and value.isprintable()
