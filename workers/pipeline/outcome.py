"""How a run of a job ended: frozen values. What Celery hears of it is decided in tasks.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headgate.shared.job.result import Result


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended, and this is its result, on record and published.

    `gave_up`: why its message is to be a dead letter, so that an operator can try again.
    """

    result: Result
    gave_up: str | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """The job waits for `wait_ms`, without a worker, and is then run again.

    With a ticket it then waits in line for the limits of the ticket's pool, for nobody knows how
    long; without one it goes back to where it stood.
    """

    wait_ms: int
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Restored:
    """The job goes back to the head of its queue at once, if this worker still holds its lease.

    The worker stops; or the record does not know of its claim: another worker has a newer one and
    the lease, or the database came back without its last commits.
    """


@dataclass(frozen=True, slots=True)
class AlreadyTaken:
    """Nothing is left to do here: the job has ended before, or another worker has it."""


Outcome: TypeAlias = Ended | Deferred | Restored | AlreadyTaken
