"""Counts a batch's results by SQL over the audit lines and the ledger, so also after a resume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Engine, case, func, select

from headgate.producer.batch.rows import Batch
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.cost.bill import IMPLAUSIBLE
from headgate.shared.cost.price import usd_text
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.database.usage_rollup import exactly, whole
from headgate.shared.errors import InvalidRequest

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
class Summary:
    """The whole batch in numbers; `failed` counts every line without an answer.

    `cost_usd`: the sum over the ledger. `unpriced_attempts`: answers whose price is unknown.
    `unknown_attempts`: attempts whose billing is unknown. `implausible_usages`: answers whose usage
    cannot be true.
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


def describe(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield name and value of each line of the printed summary."""
    s = summary
    yield "succeeded", f"{s.succeeded} of {s.lines}"
    failures = dict(s.failures)
    if s.bad_lines:
        failures["refused line" if s.bad_lines == 1 else "refused lines"] = s.bad_lines
    causes = ", ".join(f"{n} {code}" for code, n in sorted(failures.items()))
    yield "failed", f"{s.failed} ({causes})" if causes else str(s.failed)
    if s.open:
        yield "still open", str(s.open)
    yield "cached", str(s.cached)
    yield "shared", str(s.shared)
    if equal := s.cached + s.shared:
        yield "equal requests", f"{_lines(equal)} the answer of an equal one; --no-cache asks each"
    yield "fallbacks", str(s.fallbacks)
    yield "retries", str(s.retries)
    if s.implausible_usages:
        yield "answers whose usage cannot be true", str(s.implausible_usages)
    if s.unknown_attempts:
        yield "attempts whose billing is unknown", str(s.unknown_attempts)
    yield "tokens", f"{s.input_tokens} in, {s.output_tokens} out"
    unpriced = f" (and {s.unpriced_attempts} answers whose price is unknown)"
    yield "cost", f"{s.cost_usd} USD" + (unpriced if s.unpriced_attempts else "")
    yield "latency", f"p50 {_ms(s.p50_latency_ms)}, p95 {_ms(s.p95_latency_ms)}"
    yield "time", f"{s.seconds:.1f} s"
    yield from _shares(s.pools)
    yield "provider refusals", str(s.refusals)


def _lines(count: int) -> str:
    return "1 line got" if count == 1 else f"{count} lines got"


def _ms(value: int | None) -> str:
    return "-" if value is None else f"{value} ms"


def _shares(pools: list[PoolUse]) -> Iterator[tuple[str, str]]:
    limited = [use for use in pools if (use.requests_share, use.tokens_share) != (None, None)]
    if not limited:
        yield "share of the rate limit used", "no limit set"
    for use in limited:
        given = (("requests", use.requests_share), ("tokens", use.tokens_share))
        shares = (f"{share:.0%} of {kind}" for kind, share in given if share is not None)
        yield "share of the rate limit used", f"{', '.join(shares)} ({use.pool})"
