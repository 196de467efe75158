"""Claim: one worker's right to end a job, with a fencing number that only grows.

A message that comes twice finds the job ended, or takes the claim over with a higher number. The
former holder can then no longer end the job. The broker's lease keeps this rare.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from headgate.shared.database.job_metadata import add_metadata, pairs_of
from headgate.shared.database.many_rows import find, insert_all, write_all
from headgate.shared.database.rows import job_row
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.errors import ErrorCode, UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ENDED
from headgate.workers.clients.group_commit import GroupCommit

EARLY_MS = 1000
"""Tolerance for the clocks of worker and broker, before a deferred job counts as too early."""


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt of an earlier claim, as the ledger has it. `cost_pico_usd` None: not known."""

    model: str
    state: str
    code: ErrorCode | None
    message: str | None
    http_status: int | None
    waited_ms: int
    cost_pico_usd: int | None
    started_at_ms: int
    fence: int = 1


@dataclass(frozen=True, slots=True)
class Claim:
    """This worker may end the job, which is running. `history`: attempts under earlier claims.

    `share_pico_usd`: the job's part of the price of an equal job's call.
    """

    fence: int
    cancel_wanted: bool
    history: tuple[PastAttempt, ...] = ()
    share_pico_usd: int = 0


@dataclass(frozen=True, slots=True)
class EndedBefore:
    """The job has ended. `result`: its JSON, or None where it has expired."""

    result: str | None


@dataclass(frozen=True, slots=True)
class NotYet:
    """The job is deferred and came back too early: the broker has lost its due list."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class _Taking:
    envelope: Envelope
    worker: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class _Leaving:
    job_id: str
    fence: int
    status: str
    retry_at_ms: int | None


class Claims:
    """Claims jobs in the name of one worker, by a clock on which all workers agree."""

    def __init__(
        self, record: GroupCommit, worker: str, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._record = record
        self._worker = worker
        self._clock_ms = clock_ms

    def take(self, envelope: Envelope) -> Awaitable[Claim | EndedBefore | NotYet]:
        """Claim the job: it is running from now on, unless it has ended or is deferred.

        Attempts that a crash left open become unknown. A job without a row gets one: stock
        producers write none. But a job with an audit line has ended, and its row was pruned.
        """
        taking = _Taking(envelope, self._worker, self._clock_ms())
        return self._record.write(_take, taking)

    def release(self, envelope: Envelope, claim: Claim) -> Awaitable[None]:
        """Queue the job again, as it was before the claim."""
        return self._record.write(_leave, _Leaving(envelope.id, claim.fence, "queued", None))

    def defer(self, envelope: Envelope, claim: Claim, retry_at_ms: int) -> Awaitable[None]:
        """Defer the job until `retry_at_ms` (Unix ms)."""
        leaving = _Leaving(envelope.id, claim.fence, "deferred", retry_at_ms)
        return self._record.write(_leave, leaving)


class _Row(NamedTuple):
    """What the claim must know of a job's row."""

    id: str
    status: str
    fence: int
    started_at_ms: int | None
    cancel_wanted: bool
    result: str | None
    retry_at_ms: int
    share_pico_usd: int | None


_LOOK = select(*(jobs.c[name] for name in _Row._fields)).with_for_update()

_MARK = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(
        status="running",
        fence=bindparam("new_fence"),
        worker=bindparam("by"),
        started_at_ms=bindparam("since"),
        retry_at_ms=None,
    )
)

_UNKNOWN = (
    update(attempts)
    .where(attempts.c.job_id == bindparam("job"), attempts.c.state == "open")
    .values(state="unknown", settled_at_ms=bindparam("at"))
)

_HISTORY = select(
    attempts.c.job_id, attempts.c.model, attempts.c.state, attempts.c.code, attempts.c.message,
    attempts.c.http_status, attempts.c.waited_ms, attempts.c.cost_pico_usd,
    attempts.c.started_at_ms, attempts.c.fence,
).order_by(attempts.c.job_id, attempts.c.fence, attempts.c.n)  # fmt: skip


def _take(connection: Connection, items: Sequence[_Taking]) -> list[Claim | EndedBefore | NotYet]:
    now = max(item.now_ms for item in items)
    rows = _rows(connection, items)
    histories = _histories(connection, rows, now)
    answers: list[Claim | EndedBefore | NotYet] = []
    fences = {job_id: row.fence for job_id, row in rows.items()}
    marks = {}  # by job: of two claims in one group the second holds it
    for item in items:
        job_id = item.envelope.id
        row = rows.get(job_id)
        if row is None:
            answers.append(EndedBefore(None))
            continue
        if row.status in ENDED:
            answers.append(EndedBefore(row.result))
            continue
        waits = row.status == "deferred" and not row.cancel_wanted
        wait_ms = row.retry_at_ms - now if waits else 0
        if wait_ms > EARLY_MS:
            answers.append(NotYet(wait_ms))
            continue
        fence = fences[job_id] = fences[job_id] + 1
        since = row.started_at_ms or now
        history, share = tuple(histories.get(job_id, ())), row.share_pico_usd or 0
        answers.append(Claim(fence, bool(row.cancel_wanted), history, share))
        mark = {"job": job_id, "new_fence": fence, "by": item.worker, "since": since}
        marks[job_id] = mark
    if marks:
        write_all(connection, _MARK, list(marks.values()))
    return answers


_PRUNED = select(audit.c.job_id)


def _rows(connection: Connection, items: Sequence[_Taking]) -> dict[str, _Row]:
    """Return the rows of these jobs, locked; insert those that are missing and were not pruned."""
    rows = _locked(connection, [item.envelope.id for item in items])
    new = {i.envelope.id: i.envelope for i in items if i.envelope.id not in rows}
    if new:
        for (job_id,) in find(connection, _PRUNED, audit.c.job_id, new):
            del new[job_id]
    if new:
        insert_all(connection, jobs, [job_row(one, one.encode()) for one in new.values()])
        told = [one for one in new.values() if one.request.metadata]
        add_metadata(connection, ((one.id, pairs_of(one.request.metadata)) for one in told))
        # Another worker may have put the row there, and claimed it, since we looked.
        rows |= _locked(connection, new)
        if any(job_id not in rows for job_id in new):
            raise UnreadableMessage("another job already has this line of the batch")
    return rows


def _histories(
    connection: Connection, rows: dict[str, _Row], now_ms: int
) -> dict[str, list[PastAttempt]]:
    """Return the attempts of earlier claims by job; those left open are unknown from now on."""
    claimed_before = [i for i, row in rows.items() if row.fence and row.status not in ENDED]
    histories: dict[str, list[PastAttempt]] = {}
    if claimed_before:
        unknown = [{"job": job_id, "at": now_ms} for job_id in claimed_before]
        write_all(connection, _UNKNOWN, unknown)
        for job_id, *past in find(connection, _HISTORY, attempts.c.job_id, claimed_before):
            histories.setdefault(job_id, []).append(PastAttempt(*past))
    return histories


def _locked(connection: Connection, ids: Iterable[str]) -> dict[str, _Row]:
    found = map(_Row._make, find(connection, _LOOK, jobs.c.id, ids))
    return {row.id: row for row in found}


_LEAVE = (
    update(jobs)
    .where(
        jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("held"), jobs.c.status == "running"
    )
    .values(status=bindparam("into"), retry_at_ms=bindparam("until"))
)


def _leave(connection: Connection, items: Sequence[_Leaving]) -> list[None]:
    first = {(item.job_id, item.fence): item for item in reversed(items)}
    leaving = [
        {"job": i.job_id, "held": i.fence, "into": i.status, "until": i.retry_at_ms}
        for i in first.values()
    ]
    write_all(connection, _LEAVE, leaving)
    return [None] * len(items)
