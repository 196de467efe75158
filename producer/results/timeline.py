"""What became of one job, in the order of time: its waits, its attempts and its money.

It is read from the record, so it needs no Redis. Of a job that was pruned its audit line and its
attempts are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, select

from headgate.producer.errors import UnknownJob
from headgate.producer.results.open_jobs import open_jobs
from headgate.producer.results.read import status_of
from headgate.producer.waits.find import FindWaits, no_waits
from headgate.shared.cost.price import usd_text
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.result_text import decode_fields
from headgate.shared.job.waiting_for import WaitingFor

_SAME = (
    "id", "status", "priority", "tenant", "batch_id", "model", "started_at_ms", "finished_at_ms",
    "submitted_at_ms",
)  # fmt: skip
"""What the row of a job and its audit line both have."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `at` is RFC 3339 in UTC, `facts` depend on the kind.

    `kind`: `submitted`, `started`, `attempt`, or the status with which the job ended.
    """

    at: str | None
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobTimeline:
    """A job with its events, the oldest first. Money is decimal texts in USD.

    `cost_usd`: of all attempts that are on record so far; None where a price is unknown, or an
    attempt whose billing is unknown. `claims`: how many times a worker took the job. `content`: the
    request and the result, if they were asked for.
    """

    id: str
    status: str
    model: str
    priority: str
    tenant: str
    user: str | None
    batch_id: str | None
    batch_line: int | None
    custom_id: str | None
    deadline_at: str | None
    claims: int | None
    worker: str | None
    model_used: str | None
    code: str | None
    message: str | None
    cached: str | None
    cost_usd: str | None
    saved_usd: str | None
    metadata: dict[str, Any]
    waiting_for: WaitingFor | None
    events: list[Event]
    content: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the timeline as plain JSON values; `content` only if it was asked for."""
        fields = asdict(self)
        events = fields.pop("events")
        content = fields.pop("content")
        fields["timeline"] = [{"at": e["at"], "event": e["kind"], **e["facts"]} for e in events]
        return fields if content is None else {**fields, "content": content}


def timeline(
    engine: Engine, job_id: str, find_waits: FindWaits = no_waits, *, content: bool = False
) -> JobTimeline:
    """Return what became of the job so far; raise UnknownJob.

    `content`: also return the request and the result, which hold the prompt and the answer.
    """
    with reading(engine) as connection:
        row = _first(connection, select(jobs).where(jobs.c.id == job_id))
        line = _first(connection, select(audit).where(audit.c.job_id == job_id))
        tried = _attempts(connection, job_id)
        waiting = [] if row is None else open_jobs(connection, [row])
    if row is None and line is None:
        raise UnknownJob(job_id)
    wait = find_waits(waiting).get(job_id) if waiting else None
    return _timeline(_facts(row, line, wait), row, line, tried, content)


def _first(connection: Connection, query: Any) -> Row[Any] | None:
    found: Row[Any] | None = connection.execute(query).first()
    return found


def _attempts(connection: Connection, job_id: str) -> list[Row[Any]]:
    query = select(attempts).where(attempts.c.job_id == job_id)
    return list(connection.execute(query.order_by(attempts.c.fence, attempts.c.n)).all())


def _facts(row: Row[Any] | None, line: Row[Any] | None, wait: WaitingFor | None) -> dict[str, Any]:
    """Return what the job's row says, or its audit line if the row is gone."""
    if row is not None:
        found = {name: getattr(row, name) for name in _SAME}
        if wait is not None:
            found["status"] = status_of(row, wait)
    else:
        found = {name: getattr(line, name) for name in _SAME if name != "id"}
        found["id"] = line.job_id if line is not None else ""
    return found | {"waiting_for": wait}


def _timeline(
    facts: dict[str, Any], row: Row[Any] | None, line: Row[Any] | None, tried: list[Row[Any]],
    content: bool,
) -> JobTimeline:  # fmt: skip
    envelope = orjson.loads(row.envelope) if row is not None and row.envelope else {}
    result = decode_fields(row.result) if row is not None and row.result else {}
    error = result.get("error") or {}
    return JobTimeline(
        **{name: facts[name] for name in ("id", "status", "model", "priority", "tenant",
                                          "batch_id", "waiting_for")},
        user=getattr(row or line, "user_id", None),
        batch_line=getattr(row, "batch_line", None),
        custom_id=getattr(row, "custom_id", None),
        deadline_at=rfc3339(getattr(row, "deadline_at_ms", None)),
        claims=getattr(row, "fence", None),
        worker=getattr(row, "worker", None),
        model_used=getattr(line, "model_used", None),
        code=getattr(line, "error_code", None),
        message=error.get("message"),
        cached=getattr(line, "cached", None),
        cost_usd=_cost(line, tried),
        saved_usd=usd_text(getattr(line, "saved_pico_usd", None)),
        metadata=envelope.get("request", {}).get("metadata") or result.get("metadata") or {},
        events=list(_events(facts, line, tried)),
        content={"request": envelope.get("request"), "result": result or None} if content else None,
    )  # fmt: skip


def _cost(line: Row[Any] | None, tried: list[Row[Any]]) -> str | None:
    if line is not None:
        pico: int | None = line.cost_pico_usd
        return usd_text(pico)
    settled: list[int | None] = [one.cost_pico_usd for one in tried if one.state != "open"]
    known = [pico for pico in settled if pico is not None]
    return usd_text(sum(known)) if len(known) == len(settled) else None


def _events(facts: dict[str, Any], line: Row[Any] | None, tried: list[Row[Any]]) -> Iterator[Event]:
    submitted, started = facts["submitted_at_ms"], facts["started_at_ms"]
    yield Event(rfc3339(submitted), "submitted", {"model": facts["model"]})
    if started is not None:
        waited = {"queued_ms": max(0, started - submitted)}
        yield Event(rfc3339(started), "started", waited)
    for number, one in enumerate(tried, start=1):
        yield Event(rfc3339(one.started_at_ms), "attempt", _attempt(number, one))
    if facts["finished_at_ms"] is not None:
        ended = {"took_ms": max(0, facts["finished_at_ms"] - submitted)}
        if line is not None:
            ended |= {"code": line.error_code, "cached": line.cached, "fallback": line.fallback,
                      "cost_usd": usd_text(line.cost_pico_usd)}  # fmt: skip
        yield Event(rfc3339(facts["finished_at_ms"]), facts["status"], ended)


def _attempt(number: int, one: Row[Any]) -> dict[str, Any]:
    return {
        "n": number,
        "claim": one.fence,
        "model": one.model,
        "provider": one.provider,
        "state": one.state,
        "code": one.code,
        "message": one.message,
        "http_status": one.http_status,
        "request_id": one.request_id,
        "waited_ms": one.waited_ms,
        "latency_ms": one.latency_ms,
        "settled_at": rfc3339(one.settled_at_ms),
        "input_tokens": one.input_tokens,
        "cached_input_tokens": one.cached_input_tokens,
        "cache_write_tokens": one.cache_write_tokens,
        "output_tokens": one.output_tokens,
        "reasoning_tokens": one.reasoning_tokens,
        "cost_usd": usd_text(one.cost_pico_usd),
    }
