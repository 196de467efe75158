"""Ledger: a row for each attempt, committed before its request leaves and settled after it.

A crash in between leaves the row open, and the next claim of the job marks it unknown. So money
that may have been spent is never missing; at worst it is unknown. Only the holder of the claim
opens a row: nobody would ever settle what a late worker opened after the next claim.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, select, update

from headgate.shared.cost.bill import IMPLAUSIBLE
from headgate.shared.database.many_rows import find, insert_all, write_all
from headgate.shared.database.tables import attempts, jobs
from headgate.shared.job.result import Reply, Usage
from headgate.workers.clients.group_commit import Act, GroupCommit
from headgate.workers.errors import AttemptError

NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. `cost_pico_usd` None: no price is known, or the state is unknown.

    Of an unknown one, `usage` and `cost_pico_usd` are those of the part that was made, if any was.

    An answer has a code and a message only if its usage cannot be true.
    """

    attempt: Attempt
    state: Literal["answered", "failed", "unknown"]
    settled_at_ms: int
    usage: Usage = NOTHING
    cost_pico_usd: int | None = None
    code: str | None = None
    message: str | None = None
    http_status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to one model that is about to leave, and the ways to settle it."""

    job_id: str
    fence: int
    n: int
    model: str
    provider: str
    started_at_ms: int
    waited_ms: int

    def answered(
        self, reply: Reply, cost_pico_usd: int | None, at_ms: int, note: str | None = None
    ) -> Settlement:
        """Return the settlement of an answer at this cost (None: no price is known).

        `note`: why its usage cannot be true, as `headgate.shared.cost.bill` words it.
        """
        return Settlement(
            self,
            "answered",
            at_ms,
            usage=reply.usage,
            cost_pico_usd=cost_pico_usd,
            code=None if note is None else IMPLAUSIBLE,
            message=note,
            http_status=200,
            request_id=reply.request_id,
        )

    def failed(
        self,
        error: AttemptError,
        at_ms: int,
        *,
        made: Usage = NOTHING,
        cost_pico_usd: int | None = None,
    ) -> Settlement:
        """Return the settlement of a failure; unknown if nobody knows whether it was billed.

        `made`: what was made of the answer before it broke off, at this cost.
        """
        unknown = error.billed is None
        return Settlement(
            self,
            "unknown" if unknown else "failed",
            at_ms,
            usage=made if unknown else NOTHING,
            cost_pico_usd=cost_pico_usd if unknown else 0,
            code=error.code,
            message=error.message,
            http_status=error.http_status,
            request_id=error.request_id,
        )

    def unsent(self, at_ms: int) -> Settlement:
        """Return the settlement of an attempt that was stopped before it left: it cost nothing."""
        words = "stopped before it was sent"
        return Settlement(self, "failed", at_ms, cost_pico_usd=0, code="cancelled", message=words)

    def cut_off(
        self, at_ms: int, *, made: Usage = NOTHING, cost_pico_usd: int | None = None
    ) -> Settlement:
        """Return the settlement of a call that we cut off: nobody knows whether it is billed.

        `made`: what was made of the answer until then, at this cost.
        """
        return Settlement(
            self, "unknown", at_ms, usage=made, cost_pico_usd=cost_pico_usd, code="cancelled",
            message="cut off by us",
        )  # fmt: skip


class Ledger:
    """Opens rows and settles them; never changes a settled row."""

    def __init__(self, record: GroupCommit) -> None:
        self._record = record

    def open(self, attempt: Attempt) -> Awaitable[bool]:
        """Record the attempt, so that it may leave; the answer is False if the claim was lost."""
        return self._record.write(_open, attempt)

    def settle(self, settlement: Settlement) -> Awaitable[None]:
        """Record how the attempt ended."""
        return self._record.write(_settle, settlement)

    @staticmethod
    def settling(settlement: Settlement) -> tuple[Act[Settlement, None], Settlement]:
        """Return the same as a write, to be committed together with the end of the job."""
        return _settle, settlement


# Locked, so that the next claim either waits for the row opened here, or prevents it.
_CLAIMS = (
    select(jobs.c.id, jobs.c.fence).where(jobs.c.status == "running").with_for_update(read=True)
)


def _open(connection: Connection, items: Sequence[Attempt]) -> list[bool]:
    held = set(find(connection, _CLAIMS, jobs.c.id, [attempt.job_id for attempt in items]))
    ours = [(a.job_id, a.fence) in held for a in items]
    if any(ours):
        insert_all(connection, attempts, _opened(items, ours))
    return ours


def _opened(items: Sequence[Attempt], ours: Sequence[bool]) -> list[dict[str, Any]]:
    return [
        {
            "job_id": a.job_id,
            "fence": a.fence,
            "n": a.n,
            "model": a.model,
            "provider": a.provider,
            "state": "open",
            "started_at_ms": a.started_at_ms,
            "waited_ms": a.waited_ms,
        }
        for a, is_ours in zip(items, ours, strict=True)
        if is_ours
    ]


_SETTLE = (
    update(attempts)
    .where(
        attempts.c.job_id == bindparam("job"),
        attempts.c.fence == bindparam("claim"),
        attempts.c.n == bindparam("number"),
        attempts.c.state == bindparam("before"),
    )
    .values(
        state=bindparam("into"),
        settled_at_ms=bindparam("at"),
        latency_ms=bindparam("took"),
        code=bindparam("fault"),
        message=bindparam("words"),
        http_status=bindparam("http"),
        request_id=bindparam("theirs"),
        input_tokens=bindparam("tokens_in"),
        cached_input_tokens=bindparam("tokens_cached"),
        cache_write_tokens=bindparam("tokens_written"),
        output_tokens=bindparam("tokens_out"),
        reasoning_tokens=bindparam("tokens_thought"),
        cost_pico_usd=bindparam("cost"),
    )
)


def _settle(connection: Connection, items: Sequence[Settlement]) -> list[None]:
    first = {item.attempt: item for item in reversed(items)}
    write_all(connection, _SETTLE, [_row(item) for item in first.values()])
    return [None] * len(items)


def _row(item: Settlement) -> dict[str, Any]:
    attempt, usage = item.attempt, item.usage
    return {
        "job": attempt.job_id,
        "claim": attempt.fence,
        "number": attempt.n,
        "before": "open",
        "into": item.state,
        "at": item.settled_at_ms,
        "took": item.settled_at_ms - attempt.started_at_ms,
        "fault": item.code,
        "words": _plain(item.message) if item.message else None,
        "http": item.http_status,
        "theirs": _plain(item.request_id[:256]) if item.request_id else None,
        "tokens_in": usage.input_tokens,
        "tokens_cached": usage.cached_input_tokens,
        "tokens_written": usage.cache_write_tokens,
        "tokens_out": usage.output_tokens,
        "tokens_thought": usage.reasoning_tokens,
        "cost": item.cost_pico_usd,
    }


def _plain(text: str) -> str:
    """Drop what databases refuse and vendors send: NUL characters and halves of surrogate pairs."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
