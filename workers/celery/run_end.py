"""How one run of a job ended, as Celery's events tell it; Flower shows nothing else.

    succeeded                          task-succeeded
    failed, past its deadline          task-failed, with the code of its error
    cancelled, past its `expires`      task-revoked, with the code
    deferred, or returned to a queue   task-retried: it comes again
    held or ended by another worker    none: that worker tells

An error's text may quote a value of the request, so that only its code is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headgate.shared.broker.results import celery_state
from headgate.shared.job.result import Result

Event = Literal["task-succeeded", "task-failed", "task-revoked", "task-retried"]

_EVENTS: dict[str, Event] = {
    "SUCCESS": "task-succeeded", "FAILURE": "task-failed", "REVOKED": "task-revoked",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run in a word, which event tells it, and the code of its error."""

    word: str
    event: Event | None = "task-retried"
    code: str = ""

    @classmethod
    def of(cls, result: Result) -> RunEnd:
        """Return the end of a run that has ended its job."""
        code = result.error.code if result.error is not None else ""
        return cls(result.status, _EVENTS[celery_state(result)], code)

    def fields(self, runtime: float) -> dict[str, Any]:
        """Return the fields of the event, under the names that Celery and Flower know."""
        fields: dict[str, Any] = {"result": self.word, "runtime": runtime}
        if self.event == "task-failed":
            fields |= {"exception": f"JobFailed({self.code!r})", "traceback": None}
        elif self.event == "task-revoked":
            fields |= {"terminated": False, "signum": None, "expired": self.code == "expired"}
            fields |= {"exception": f"TaskRevokedError({self.code!r})"}
        return fields


REFUSED = RunEnd("unreadable", "task-failed", "unreadable")
GAVE_UP = RunEnd("given up", "task-failed", "internal")
TAKEN = RunEnd("already taken", None)
IN_LINE = RunEnd("in line")
DEFERRED = RunEnd("deferred")
RETURNED = RunEnd("restored")
AGAIN = RunEnd("to be tried again")
LEFT = RunEnd("left for a newer worker")
