"""How a job run ended, as frozen values. tasks.py decides what Celery sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headgate.shared.job.result import Result


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended, and its result is recorded and published.

    `gave_up`: why its message has to become a dead letter, which an operator can revive; or None.
    """

    result: Result
    gave_up: str | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """The job waits for `wait_ms` without a worker, and is then run again.

    With a ticket it first waits for the limits of the ticket's pool, in the waiting queue. Without
    one it goes back to its old place.
    """

    wait_ms: int
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Restored:
    """The job goes back to the head of its queue at once, if this worker still holds its lease.

    The worker stops, or the record does not know its claim. Then another worker has a newer claim
    and the lease, or the database came back without its last commits.
    """


@dataclass(frozen=True, slots=True)
class AlreadyTaken:
    """Nothing is left to do: the job has ended before, or another worker has it."""


Outcome: TypeAlias = Ended | Deferred | Restored | AlreadyTaken
