"""Plans: no statement of a job's way, a list, or maintenance reads a whole table of jobs.

The statements are those that the code sends, recorded while it runs on large tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, select, text

from headgate.producer.results import read
from headgate.producer.results.listing import JobQuery, list_jobs
from headgate.producer.usage.query import usage
from headgate.shared.database import engine as driver
from headgate.shared.database import many_rows, migrate
from headgate.shared.database.engine import open_engine, reading, writing
from headgate.shared.database.finish import end_waiting
from headgate.shared.database.prune import Cutoffs, prune
from headgate.shared.database.rows import audit_row, job_row
from headgate.shared.database.tables import jobs
from headgate.shared.database.usage_rollup import DAY_MS, sum_day
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ErrorReport, Reply, Result, Usage
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.maintenance.prune import forget_idempotency_keys
from headgate.workers.stages.claim import Claim, Claims
from headgate.workers.stages.conclude import Conclude, Conclusion
from headgate.workers.stages.ledger import Attempt, Ledger
from tests.support.rig import envelope

ROWS = 30_000
LARGE = ("jobs", "attempts", "audit", "job_metadata", "idempotency")
FIRST_MS = 1_760_000_000_000 // DAY_MS * DAY_MS
STEP_MS = 30 * DAY_MS // ROWS

Sent = list[tuple[str, Any]]

_NUMBERS = {
    "postgresql": "SELECT n FROM generate_series(1, {rows}) AS n",
    "sqlite": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})"
    " SELECT n FROM c",
}
_FILL = (
    "INSERT INTO jobs (id, status, priority, model_class, model, tenant, user_id, batch_id,"
    " batch_line, fence, submitted_at_ms, deadline_at_ms, finished_at_ms) SELECT 'old-' || n,"
    " CASE WHEN n % 1000 = 0 THEN 'failed' ELSE 'succeeded' END, 'standard', 'fast', 'm',"
    " 't' || (n % 20), 'u' || (n % 500), 'b' || (n / 100), n % 100, 1, {at},"
    " {at} + 1000, {at} + 500 FROM ({numbers}) AS made",
    "INSERT INTO attempts (job_id, fence, n, model, provider, state, started_at_ms, waited_ms)"
    " SELECT 'old-' || n, 1, 1, 'm', 'p', 'answered', {at}, 0 FROM ({numbers}) AS made",
    "INSERT INTO audit (job_id, status, priority, tenant, user_id, batch_id, model, fallback,"
    " attempts, unknown_attempts, input_tokens, cached_input_tokens, cache_write_tokens,"
    " output_tokens, reasoning_tokens, cost_pico_usd, submitted_at_ms, finished_at_ms)"
    " SELECT id, status, priority, tenant, user_id, batch_id, model, {false}, 1, 0, 5, 0, 0, 5, 0,"
    " 7, submitted_at_ms, finished_at_ms FROM jobs",
    "INSERT INTO job_metadata SELECT 'run', n / 10, 'old-' || n FROM ({numbers}) AS made",
    "INSERT INTO idempotency SELECT 't', 'key-' || n, 'x', 'old-' || n, {at}"
    " FROM ({numbers}) AS made",
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    name = engine.dialect.name
    numbers = _NUMBERS[name].format(rows=ROWS)
    with writing(engine) as connection:
        for words in _FILL:
            at = f"({FIRST_MS} + CAST(n AS bigint) * {STEP_MS})"
            false = "0" if name == "sqlite" else "FALSE"
            connection.execute(text(words.format(at=at, false=false, numbers=numbers)))
    with reading(engine) as connection:
        if name == "postgresql":  # autovacuum would write down how large they really are
            for table in LARGE:
                connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
        connection.execute(text("ANALYZE"))
        if name == "postgresql":  # the planner takes the tables for as large as that
            grown = "UPDATE pg_class SET reltuples = 1000000 WHERE relname = ANY(:names)"
            connection.execute(text(grown), {"names": list(LARGE)})
    yield engine
    engine.dispose()


@contextmanager
def recorded(engine: Engine) -> Iterator[Sent]:
    """Give the statements that are sent meanwhile, each text once, with parameters.

    Sent by SQLAlchemy, or for many rows by the driver itself.
    """
    sent: dict[str, Any] = {}

    def note(_c: Any, _cursor: Any, words: str, given: Any, _context: Any, many: bool) -> None:
        if words.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
            sent.setdefault(words, given[0] if many else given)

    def run(connection: Connection, words: str, given: Mapping[str, Any]) -> list[Any]:
        sent.setdefault(words, given)
        return driver.run(connection, words, given)

    def run_each(connection: Connection, words: str, rows: Sequence[Sequence[Any]]) -> None:
        sent.setdefault(words, rows[0])
        driver.run_each(connection, words, rows)

    event.listen(engine, "before_cursor_execute", note)
    found: Sent = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(many_rows, "run", run)
            patch.setattr(many_rows, "run_each", run_each)
            yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)
        found += sent.items()


def whole_reads(engine: Engine, sent: Sent) -> list[str]:
    """Return the statements whose plan reads all of a large table."""
    found = []
    with reading(engine) as connection:
        for words, given in sent:
            if engine.dialect.name == "sqlite":
                rows = driver.run(connection, f"EXPLAIN QUERY PLAN {words}", given)
                steps = [row[-1] for row in rows]
                whole = any(
                    step.split()[0] == "SCAN" and step.split()[1] in LARGE and "INDEX" not in step
                    for step in steps
                )
            else:
                [[steps]] = driver.run(connection, f"EXPLAIN (FORMAT JSON) {words}", given)
                whole = any(
                    node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
                    for node in _nodes(steps[0]["Plan"])
                )
            if whole:
                found.append(f"{words}\n{steps}")
    return found


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def is_by_index(engine: Engine, sent: Sent, *tables: str) -> None:
    """Check that these tables were asked, and none was read whole."""
    for table in tables:
        assert any(table in words for words, _ in sent), table
    assert whole_reads(engine, sent) == []


def test_a_whole_read_is_seen(engine: Engine) -> None:
    with recorded(engine) as sent, reading(engine) as connection:
        connection.execute(select(jobs.c.id).where(jobs.c.model == "m")).all()
    assert len(whole_reads(engine, sent)) == 1


async def test_a_job_on_its_way(engine: Engine) -> None:
    """Claim, attempt, end, and the same after a claim that was lost."""
    record = GroupCommit(engine)
    claims, ledger = Claims(record, "worker"), Ledger(record)
    with recorded(engine) as sent:
        for job in (envelope(), envelope()):
            await claims.take(job)
            claim = await claims.take(job)
            assert isinstance(claim, Claim)
            await claims.defer(job, claim, now_ms())
            claim = await claims.take(job)
            assert isinstance(claim, Claim)
            attempt = Attempt(job.id, claim.fence, 1, "m", "p", now_ms(), waited_ms=5)
            await ledger.open(attempt)
            settled = attempt.answered(Reply("four", "stop", Usage(1)), 7, now_ms())
            ending = Conclude.concluding(_conclusion(job, claim))
            assert (await record.together(ending, ledger.settling(settled)))[0] is not None
        await record.close()
    is_by_index(engine, sent, "jobs", "attempts", "audit")


def _conclusion(job: Envelope, claim: Claim) -> Conclusion:
    result = Result(id=job.id, status="succeeded", model=job.model, content="four", attempts=1)
    row = audit_row(job, result, cost_pico_usd=17, finished_at_ms=now_ms())
    return Conclusion(job.id, claim.fence, result, now_ms(), row)


FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "status": {"status": "failed"},
    "waiting": {"status": "queued"},
    "batch": {"batch": "b7"},
    "metadata": {"metadata": {"run": 7}},
    "since": {"since": "1h"},
    "before": {"before": "old-20000"},
    "priority": {"priority": "standard"},
    "model": {"model": "m"},
}


def test_lists_of_jobs_by_each_filter_that_has_an_index(engine: Engine) -> None:
    for asked in FILTERS.values():
        with recorded(engine) as sent:
            list_jobs(engine, JobQuery(**asked))
        is_by_index(engine, sent, "jobs")


def test_looks_at_one_job(engine: Engine) -> None:
    with recorded(engine) as sent:
        assert read.status(engine, "old-7") == "succeeded"
        read.look(engine, ["old-7", "old-8"])
    is_by_index(engine, sent, "jobs")


def test_the_end_of_a_job_that_waits(engine: Engine) -> None:
    job = envelope("late")
    with writing(engine) as connection:
        connection.execute(insert(jobs), [job_row(job, job.encode()) | {"fence": 1}])
    error = ErrorReport("cancelled", "over", False)
    with recorded(engine) as sent, writing(engine) as connection:
        [row] = connection.execute(select(jobs).where(jobs.c.id == "late")).all()
        end_waiting(connection, [(row, job)], error, at_ms=now_ms())
    is_by_index(engine, sent, "jobs", "attempts")


def test_pruning_and_the_roll_up_of_a_day(engine: Engine) -> None:
    before_ms = FIRST_MS + 2 * DAY_MS
    act: Callable[[], Any]
    for act, table in (
        (lambda: forget_idempotency_keys(engine, before_ms), "idempotency"),
        (lambda: sum_day(engine, 20251009, now_ms()), "audit"),
        (lambda: list(prune(engine, Cutoffs(before_ms, before_ms), now_ms())), "job_metadata"),
        (lambda: usage(engine, "user", since="1d"), "audit"),
    ):
        with recorded(engine) as sent:
            act()
        is_by_index(engine, sent, table)
