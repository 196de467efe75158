"""Decides what a job waits for, from what Redis and the record hold. Pure.

Of several reasons the first counts that would keep the job even without the others: a pause, then
no worker, no key, a budget, a model that is down, a limit; last, that others are ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.producer.waits import words
from headgate.producer.waits.forecast import longest, turn_s, turns_ahead
from headgate.producer.waits.view import (
    FollowsEqual,
    InQueue,
    InWaitingQueue,
    Leased,
    OnDueList,
    Seen,
)
from headgate.shared.admission.breakers import ModelHealth
from headgate.shared.admission.scopes import shown, tenant_scope
from headgate.shared.admission.ticket import FLEX, Ticket
from headgate.shared.job.ids import LATEST_MS, rfc3339
from headgate.shared.job.waiting_for import WaitingFor, WaitKind


@dataclass(frozen=True, slots=True)
class LastFault:
    """How the last failed attempt of a job failed, and when."""

    code: str
    message: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class OpenJob:
    """What the record knows of a job that no worker runs. `queue`: the one that it belongs to."""

    id: str
    queue: str
    submitted_at_ms: int
    fault: LastFault | None = None

    @property
    def since_ms(self) -> int:
        """The moment from which it has waited."""
        return max(self.submitted_at_ms, self.fault.at_ms if self.fault else 0)


@dataclass(frozen=True, slots=True)
class _Case:
    """A job with its queue and, where it has one, its ticket."""

    job: OpenJob
    queue: str
    ticket: Ticket | None
    seen: Seen

    def reason(
        self, kind: WaitKind, name: str, why: str, help_: str, *, since_ms: float | None = None,
        until_ms: float | None = None,
    ) -> WaitingFor:  # fmt: skip
        since_ms = max(self.job.since_ms, since_ms or 0)
        if until_ms is not None and self.ticket and until_ms > self.ticket.deadline_ms:
            until_ms, help_ = self.ticket.deadline_ms, f"{help_}; its deadline comes before that"
        return WaitingFor(kind, name, why, _moment(since_ms), _moment(until_ms), help_)


def _moment(at_ms: float | None) -> str | None:
    return None if at_ms is None or not 0 <= at_ms < LATEST_MS else rfc3339(int(at_ms))


def waiting_for(job: OpenJob, seen: Seen) -> WaitingFor | None:
    """Return what the job waits for; None if a worker holds it."""
    place = seen.places.get(job.id)
    match place:
        case Leased():
            return None
        case InWaitingQueue(queue=queue, ticket=ticket):
            case = _Case(job, queue, ticket, seen)
            blocked = _blocked(case) or _of_ticket(case, ticket)
            return blocked or _limit(case, place) or _turn(case, place)
        case OnDueList(queue=queue):
            case = _Case(job, queue, place.ticket, seen)
            of_ticket = _of_ticket(case, place.ticket) if place.ticket else None
            return _blocked(case) or of_ticket or _due(case, place)
        case FollowsEqual(queue=queue, leader=leader):
            case = _Case(job, queue, None, seen)
            if not leader:
                return _blocked(case) or case.reason("turn", queue, "", words.MORE_WORKERS)
            return case.reason("equal_job", leader, "", words.EQUAL_JOB)
        case InQueue() | None:
            case = _Case(job, job.queue, None, seen)
            why = "no worker has fetched it yet" if place else "it is not yet in its queue"
            return _blocked(case) or case.reason("turn", job.queue, why, words.MORE_WORKERS)


def _blocked(case: _Case) -> WaitingFor | None:
    """Return the pause that keeps the job, or that no worker serves its queue."""
    members = [f"queue/{case.queue}"]
    if case.ticket is not None:
        pool = case.ticket.pool.removesuffix(FLEX)
        members += [f"pool/{pool}", tenant_scope(case.ticket.tenant)]
    for member in members:
        if (pause := case.seen.paused.get(member)) is not None:
            kind, _, name = shown(member).partition("/")
            why = f"by {pause.by}" if pause.by else ""
            help_ = f"`headgate resume {kind} {name}`"
            return case.reason("paused", shown(member), why, help_, since_ms=pause.since_ms)
    if case.seen.serves(case.queue):
        return None
    why = words.no_worker(case.queue, case.seen.workers)
    return case.reason("no_worker", case.queue, why, words.start_worker(case.queue))


def _of_ticket(case: _Case, ticket: Ticket) -> WaitingFor | None:
    """Return the key, the budget or the model that is missing."""
    provider = ticket.pool.partition("/")[0]
    if not case.seen.has_key_of(provider):
        return case.reason("no_key", provider, words.NO_KEY, words.set_key(provider))
    return _budget(case, ticket) or _model_down(case, ticket, provider)


def _budget(case: _Case, ticket: Ticket) -> WaitingFor | None:
    wait = case.seen.callers.budget_wait(ticket)
    if wait is None:
        return None
    why, help_ = words.budget(wait)
    return case.reason("budget", shown(wait.scope), why, help_, until_ms=wait.until_ms)


def _model_down(case: _Case, ticket: Ticket, provider: str) -> WaitingFor | None:
    name = f"{provider}/{ticket.model}"
    breakers = case.seen.breakers.get(name, ())
    if not breakers or not all(one.closed_to_all for one in breakers):
        return None
    first = min(breakers, key=lambda one: one.retry_in_s or 0)
    until_ms = case.seen.now_ms + (first.retry_in_s or 0) * 1000
    help_ = words.model_down(name)
    since_ms = first.down_since_ms
    return case.reason(
        "model_down", name, last_fault(first), help_, since_ms=since_ms,
        until_ms=until_ms if until_ms > case.seen.now_ms else None,
    )  # fmt: skip


def last_fault(health: ModelHealth) -> str:
    """Return the last fault of a model in words."""
    return f"last fault: {health.fault}" if health.fault else health.why


def _limit(case: _Case, place: InWaitingQueue) -> WaitingFor | None:
    bound = longest(place, case.seen)
    if bound is None:
        return None
    is_known = bound.is_known and not (bound.gate and bound.gate.waits_for_word)
    until_ms = case.seen.now_ms + bound.wait_s * 1000 if is_known else None
    if bound.gate is not None:
        why, help_ = words.gate(bound.scope.removeprefix("pool/"), bound.gate)
        since_ms = bound.gate.since_ms
        return case.reason("gate", bound.scope, why, help_, since_ms=since_ms, until_ms=until_ms)
    why, help_ = "", words.SEE_LIMITS
    if bound.level is not None:
        why, help_ = words.limit(shown(bound.scope), bound.level)
    return case.reason("limit", shown(bound.scope), why, help_, until_ms=until_ms)


def _turn(case: _Case, place: InWaitingQueue) -> WaitingFor:
    ahead = turns_ahead(place, case.seen)
    held = sum(worker.held for worker in case.seen.workers)
    why = words.ahead(ahead) if ahead > 0 else words.busy(held)
    wait_s = turn_s(place, ahead, case.seen)
    until_ms = None if wait_s is None else case.seen.now_ms + wait_s * 1000
    return case.reason("turn", place.queue, why, words.MORE_WORKERS, until_ms=until_ms)


def _due(case: _Case, place: OnDueList) -> WaitingFor:
    fault = case.job.fault
    name, why = "eta", ""
    if fault is not None:
        name, why = "retry", f"after {fault.code}: {fault.message}"
    return case.reason("due", name, why, words.DUE, until_ms=place.at_ms)
