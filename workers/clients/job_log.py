"""One log line for each job that ends: whose it was, which model answered, what it cost.

Never a prompt, an answer, an error's words (providers quote prompts in them) or a key.
"""

from __future__ import annotations

import logging
from typing import Any

from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import Result

log = logging.getLogger("headgate.jobs")

_FIELDS = (
    "job_id", "status", "code", "http_status", "model", "model_used", "tenant", "user",
    "batch_id", "cached", "attempts", "waited_ms", "latency_ms", "input_tokens", "output_tokens",
    "cost_usd", "trace_id",
)  # fmt: skip


_FROM_OUTSIDE = frozenset({"tenant", "user", "batch_id", "trace_id"})


class EndedJob:
    """The facts of a job's end, as the message of a log record. It becomes text when written."""

    __slots__ = ("_values",)

    def __init__(self, envelope: Envelope, result: Result) -> None:
        error, usage, request = result.error, result.usage, envelope.request
        last = error.attempts[-1] if error is not None and error.attempts else None
        self._values = (
            result.id, result.status, error.code if error is not None else None,
            last.http_status if last is not None else None,
            result.model, result.model_used, request.tenant, request.user, result.batch_id,
            result.cached, result.attempts, result.queued_ms, result.latency_ms,
            usage.input_tokens, usage.output_tokens, result.cost_usd, result.trace_id,
        )  # fmt: skip

    def fields(self) -> dict[str, Any]:
        """Return the facts by name, as the JSON form of the log has them; None: not known."""
        return dict(zip(_FIELDS, self._values, strict=True))

    def __str__(self) -> str:
        facts = [
            f"{name}={_text(str(value)) if name in _FROM_OUTSIDE else value}"
            for name, value in zip(_FIELDS, self._values, strict=True)
            if value is not None
        ]
        return f"job {self._values[0]} {self._values[1]}: {' '.join(facts[2:])}"


def log_end(envelope: Envelope, result: Result) -> None:
    """Log that the job has ended: at WARNING if it failed or expired, else at INFO."""
    level = logging.WARNING if result.status in ("failed", "expired") else logging.INFO
    if log.isEnabledFor(level):
        # Made here: `log.log` would walk the stack for each job to find the line of its caller.
        log.handle(
            logging.LogRecord(log.name, level, __file__, 0, EndedJob(envelope, result), None, None)
        )


def _text(text: str) -> str:
    """Return the name as it is, or quoted if it is empty, holds a space or would break the line."""
    return repr(text) if not text.isprintable() or " " in text or not text else text
