"""Counts a batch's results by SQL over the audit lines and the ledger, so also after a resume."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Engine, case, func, select

from headgate.producer.batch.rows import Batch
from headgate.producer.batch.samples import line_and_sample
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.cost.bill import IMPLAUSIBLE
from headgate.shared.cost.price import usd_text
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.database.usage_rollup import exactly, whole
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.result_text import decode_fields

_BREAK_S = 60
"""A longer time without a new attempt is an interruption: its rate limit does not count."""


@dataclass(frozen=True, slots=True)
class PoolUse:
    """What the batch took of one pool; shares: of what its limits allowed in that time."""

    pool: str
    requests: int
    tokens: int
    requests_share: float | None
    tokens_share: float | None


@dataclass(frozen=True, slots=True)
class FailedExample:
    """One failed line: its job, and what went wrong; `message` is None once it has expired.

    `retryable`: whether the same request may succeed later.
    """

    line: int
    custom_id: str | None
    job_id: str
    message: str | None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole batch in numbers; `failed` counts every line without an answer.

    `cost_usd`: the sum over the ledger. `unpriced_attempts`: answers whose price is unknown.
    `unknown_attempts`: attempts whose billing is unknown. `implausible_usages`: answers whose usage
    cannot be true. `models`: how many lines each model answered, the most first. `examples`: a
    failed job for each error code.
    """

    batch_id: str
    lines: int
    succeeded: int
    failed: int
    open: int
    failures: dict[str, int] = field(default_factory=dict)
    bad_lines: int = 0
    cached: int = 0
    shared: int = 0
    fallbacks: int = 0
    attempts: int = 0
    retries: int = 0
    refusals: int = 0
    unknown_attempts: int = 0
    unpriced_attempts: int = 0
    implausible_usages: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: str = "0"
    p50_latency_ms: int | None = None
    p95_latency_ms: int | None = None
    seconds: float = 0.0
    pools: list[PoolUse] = field(default_factory=list)
    input_path: str = ""
    output_path: str | None = None
    models: dict[str, int] = field(default_factory=dict)
    examples: dict[str, FailedExample] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self)


def summarise(engine: Engine, catalog: Catalog, batch: Batch) -> Summary:
    """Return the summary of the batch as the database has it now."""
    with reading(engine) as connection:
        return Summary(
            batch_id=batch.id,
            lines=batch.lines,
            **_jobs(connection, batch),
            **_latencies(connection, batch.id),
            **_attempts(connection, batch.id),
            pools=_pools(connection, catalog, batch.id),
            input_path=batch.input_path,
            output_path=batch.output_path,
            models=_models(connection, batch.id),
            examples=_examples(connection, batch.id),
        )


def _jobs(connection: Connection, batch: Batch) -> dict[str, Any]:
    ours = audit.c.batch_id == batch.id

    def count(condition: Any) -> Any:
        return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)

    row = connection.execute(
        select(
            count(audit.c.status == "succeeded"),
            func.count(),
            count(audit.c.cached.in_(("exact", "semantic"))),
            count(audit.c.cached == "shared"),
            count(audit.c.fallback),
            func.min(audit.c.submitted_at_ms),
            func.max(audit.c.finished_at_ms),
        ).where(ours)
    ).one()
    succeeded, ended, cached, shared, fallbacks = (int(n) for n in row[:5])
    query = select(audit.c.error_code, func.count()).where(ours, audit.c.status != "succeeded")
    failures = {
        code or "internal": int(n)
        for code, n in connection.execute(query.group_by(audit.c.error_code))
    }
    on_record = select(func.count()).select_from(jobs).where(jobs.c.batch_id == batch.id)
    bad = batch.bad_lines if batch.submitted_at_ms is not None else 0
    queued = int(connection.execute(on_record).scalar_one())
    not_queued = batch.lines - bad - queued
    return {
        "succeeded": succeeded,
        "failed": ended - succeeded + bad,
        "open": queued - ended + not_queued,
        "failures": failures,
        "bad_lines": bad,
        "cached": cached,
        "shared": shared,
        "fallbacks": fallbacks,
        "seconds": (row[6] - row[5]) / 1000 if ended else 0.0,
    }


def _models(connection: Connection, batch_id: str) -> dict[str, int]:
    """Return how many lines each model answered, the most first."""
    n = func.count()
    answered = (audit.c.batch_id == batch_id, audit.c.status == "succeeded")
    query = select(audit.c.model_used, n).where(*answered, audit.c.model_used.is_not(None))
    rows = connection.execute(query.group_by(audit.c.model_used).order_by(n.desc()))
    return {model: int(count) for model, count in rows}


def _examples(connection: Connection, batch_id: str) -> dict[str, FailedExample]:
    """Return a failed job for each error code: the one with the first id."""
    failed = (audit.c.batch_id == batch_id, audit.c.status != "succeeded")
    first = select(audit.c.error_code, func.min(audit.c.job_id)).where(*failed)
    codes = {
        job_id: code or "internal"
        for code, job_id in connection.execute(first.group_by(audit.c.error_code))
    }
    columns = (jobs.c.id, jobs.c.batch_line, jobs.c.custom_id, jobs.c.result)
    found = {}
    for row in connection.execute(select(*columns).where(jobs.c.id.in_(codes))):
        error = (decode_fields(row.result) if row.result else {}).get("error") or {}
        line, _ = line_and_sample(row.batch_line or 0)
        found[codes[row.id]] = FailedExample(
            line, row.custom_id, row.id, error.get("message"), bool(error.get("retryable"))
        )
    return dict(sorted(found.items()))


def _latencies(connection: Connection, batch_id: str) -> dict[str, Any]:
    answered = (
        audit.c.batch_id == batch_id,
        audit.c.status == "succeeded",
        audit.c.cached.is_(None),
        audit.c.latency_ms.is_not(None),
    )
    n = int(
        connection.execute(select(func.count()).select_from(audit).where(*answered)).scalar_one()
    )

    def at(share: float) -> int | None:
        query = select(audit.c.latency_ms).where(*answered).order_by(audit.c.latency_ms)
        rank = max(0, min(n - 1, round(share * n + 0.5) - 1))
        found: int | None = connection.execute(query.limit(1).offset(rank)).scalar()
        return found

    return {"p50_latency_ms": at(0.5), "p95_latency_ms": at(0.95)}


def _ledger(batch_id: str) -> Any:
    """Return the SQL condition for the attempts of the batch's jobs."""
    ours = select(jobs.c.id).where(jobs.c.batch_id == batch_id)
    return attempts.c.job_id.in_(ours)


def _attempts(connection: Connection, batch_id: str) -> dict[str, Any]:
    ours = _ledger(batch_id)
    query = select(
        attempts.c.state,
        attempts.c.code,
        attempts.c.cost_pico_usd.is_(None).label("unpriced"),
        func.count().label("n"),
        *exactly({"pico": attempts.c.cost_pico_usd}),
        func.sum(attempts.c.input_tokens).label("input"),
        func.sum(attempts.c.output_tokens).label("output"),
    ).where(ours)
    rows = connection.execute(query.group_by(attempts.c.state, attempts.c.code, "unpriced")).all()
    firsts = select(attempts.c.job_id, attempts.c.model).where(ours).distinct().subquery()
    first = int(connection.execute(select(func.count()).select_from(firsts)).scalar_one())
    total = sum(int(row.n) for row in rows)
    money = [whole({"pico_high": row.pico_high, "pico_low": row.pico_low}) for row in rows]
    return {
        "attempts": total,
        "retries": total - first,
        "refusals": sum(int(row.n) for row in rows if row.code == "rate_limited"),
        "unknown_attempts": sum(int(row.n) for row in rows if row.state == "unknown"),
        "unpriced_attempts": sum(
            int(row.n) for row in rows if row.state == "answered" and row.unpriced
        ),
        "input_tokens": sum(int(row.input) for row in rows),
        "output_tokens": sum(int(row.output) for row in rows),
        "implausible_usages": sum(int(row.n) for row in rows if row.code == IMPLAUSIBLE),
        "cost_usd": usd_text(sum(sums["pico"] for sums in money)),
    }


def _pools(connection: Connection, catalog: Catalog, batch_id: str) -> list[PoolUse]:
    ours = _ledger(batch_id)
    active_s = _active_s(connection, ours)
    query = select(
        attempts.c.model,
        func.count(),
        func.sum(attempts.c.input_tokens + attempts.c.output_tokens),
    ).where(ours)
    used: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    pools = {}
    for model, requests, tokens in connection.execute(query.group_by(attempts.c.model)):
        try:
            pool = catalog.pool(catalog.model(model))
        except InvalidRequest:
            continue  # the catalog no longer has it
        pools[pool.key] = pool
        used[pool.key][0] += int(requests)
        used[pool.key][1] += int(tokens)

    uses = []
    for key, (requests, tokens) in sorted(used.items()):
        pool = pools[key]
        tpm = pool.tpm or ((pool.input_tpm or 0) + (pool.output_tpm or 0)) or None
        allowed_s = active_s + (pool.burst_s or 1)
        uses.append(
            PoolUse(
                key,
                requests,
                tokens,
                round(requests / (pool.rpm / 60 * allowed_s), 4) if pool.rpm else None,
                round(tokens / (tpm / 60 * allowed_s), 4) if tpm else None,
            )
        )
    return uses


def _active_s(connection: Connection, ours: Any) -> float:
    """Return the seconds from the first attempt to the end of the last, without long breaks."""
    ends = func.max(func.coalesce(attempts.c.settled_at_ms, attempts.c.started_at_ms))
    first_ms, last_ms = connection.execute(
        select(func.min(attempts.c.started_at_ms), ends).where(ours)
    ).one()
    if first_ms is None:
        return 0.0
    started = select(attempts.c.started_at_ms // 1000).where(ours).distinct()
    seconds = sorted(int(second) for second in connection.scalars(started))
    breaks = (after - before for before, after in pairwise(seconds) if after - before > _BREAK_S)
    return float(last_ms - first_ms) / 1000 - sum(breaks)
