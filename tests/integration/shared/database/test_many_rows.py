"""Statements for many rows: every row as it was given, found by a probe of an index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from headgate.shared.database import many_rows, migrate
from headgate.shared.database.engine import open_engine, passes, reading, writing
from headgate.shared.database.rows import audit_row, job_row
from headgate.shared.database.tables import attempts, audit, batches, callbacks, jobs
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import Reply, Result, Usage
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.stages.claim import Claim, Claims
from headgate.workers.stages.conclude import Conclude, Conclusion
from headgate.workers.stages.ledger import Attempt, Ledger
from tests.support.child import wait_until
from tests.support.rig import envelope

ODD = 'tab\t, new\nline, quote", back\\slash, \\u0000, ü, 漢, {"a": [null]}'


def batch(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": name, "input_path": ODD, "input_sha256": "0", "output_path": None, "defaults": "{}",
        "lines": 2**31 - 1, "bad_lines": 0, "created_at_ms": 2**62, **fields,
    }  # fmt: skip


def all_batches(engine: Engine) -> dict[str, Any]:
    with reading(engine) as connection:
        return {row.id: row for row in connection.execute(select(batches))}


def test_values_arrive_as_they_were_given(engine: Engine) -> None:
    line = audit_row(envelope(), Result(id="", status="failed", model="m"), cost_pico_usd=None,
                     finished_at_ms=1)  # fmt: skip
    lines = [line | {"job_id": f"j{n}", "fallback": n == 1} for n in range(3)]
    with writing(engine) as connection:
        many_rows.insert_all(connection, batches, [batch("one"), batch("two", output_path="x")])
        many_rows.insert_all(connection, audit, lines)
    found = all_batches(engine)
    assert (found["one"].input_path, found["one"].output_path) == (ODD, None)
    assert (found["one"].lines, found["one"].created_at_ms) == (2**31 - 1, 2**62)
    assert found["two"].output_path == "x"
    with reading(engine) as connection:
        order = select(audit.c.fallback).order_by(audit.c.job_id)
        assert list(connection.scalars(order)) == [False, True, False]


def test_rows_that_are_there_already_are_skipped_and_stay(engine: Engine) -> None:
    with writing(engine) as connection:
        many_rows.insert_all(connection, batches, [batch("old", lines=1)])
        rows = [batch("new"), batch("old", lines=2), batch("new", lines=3)]
        many_rows.insert_all(connection, batches, rows)
    assert {name: row.lines for name, row in all_batches(engine).items()} == {
        "old": 1, "new": 2**31 - 1,
    }  # fmt: skip


def test_each_row_is_changed_by_its_own_values(engine: Engine) -> None:
    change = (
        update(batches)
        .where(batches.c.id == bindparam("batch"), batches.c.bad_lines == bindparam("before"))
        .values(output_path=bindparam("to"), submitted_at_ms=bindparam("at"), lines=7)
    )
    with writing(engine) as connection:
        many_rows.insert_all(connection, batches, [batch(f"b{n}") for n in range(4)])
        rows = [{"batch": f"b{n}", "before": int(n == 3), "to": f"{ODD}{n}", "at": n or None}
                for n in range(4)]  # fmt: skip
        many_rows.write_all(connection, change, rows)
    found = all_batches(engine)
    assert [found[f"b{n}"].output_path for n in range(4)] == [f"{ODD}{n}" for n in range(3)] + [
        None
    ]
    assert [found[f"b{n}"].submitted_at_ms for n in range(4)] == [None, 1, 2, None]
    assert [found[f"b{n}"].lines for n in range(4)] == [7, 7, 7, 2**31 - 1]


def test_rows_of_any_size_are_written_whole(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_rows, "PART_BYTES", 2_000)
    monkeypatch.setattr(many_rows, "LARGE_BYTES", 1_000)
    sizes = [0, 5_000, 300, 300, 300, 300, 300, 300, 300, 300, 9_000, 9_000, 1]
    with writing(engine) as connection:
        rows = [batch(f"b{n}", defaults='"' * size) for n, size in enumerate(sizes)]
        many_rows.insert_all(connection, batches, rows)
    found = all_batches(engine)
    assert [len(found[f"b{n}"].defaults) for n in range(len(sizes))] == sizes


def test_only_the_rows_of_these_ids_are_found(engine: Engine) -> None:
    with writing(engine) as connection:
        rows = [batch(name, bad_lines=n) for n, name in enumerate(["a", 'b"\\', "c"])]
        many_rows.insert_all(connection, batches, rows)
        query = select(batches.c.id, batches.c.bad_lines).where(batches.c.bad_lines > 0)
        found = many_rows.find(
            connection, query.with_for_update(), batches.c.id, ["a", 'b"\\', "x"]
        )
        assert found == [('b"\\', 1)]
        assert many_rows.find(connection, query, batches.c.id, []) == []


def test_a_fault_of_the_driver_is_raised_as_sqlalchemy_does(engine: Engine) -> None:
    with pytest.raises(IntegrityError) as fault, writing(engine) as connection:
        many_rows.write_all(connection, insert(callbacks), 2 * [{"job_id": "j", "due_at_ms": 1}])
    assert not passes(fault.value)
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(callbacks)) == 0


@pytest.mark.parametrize("name", ["x" * 65, "nul \x00"])
def test_postgresql_refuses_a_value_that_it_would_have_to_change(
    postgres_url: str, name: str
) -> None:
    """A cast of a text to the column's type would cut it off in silence."""
    engine = open_engine(postgres_url)
    migrate.upgrade(engine)
    with pytest.raises(DBAPIError) as fault, writing(engine) as connection:
        many_rows.insert_all(connection, batches, [batch("good"), batch(name)])
    assert not passes(fault.value)
    assert all_batches(engine) == {}
    engine.dispose()


GROUP, GROUPS = 25, 12


async def test_the_record_reads_no_table_from_end_to_end(postgres_url: str) -> None:
    """On tables that grow and were never analysed, as on the first day of an installation."""
    engine = open_engine(postgres_url)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        for table in (jobs, attempts, audit):
            connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
    record = GroupCommit(engine)
    for _ in range(GROUPS):
        await asyncio.gather(*(_whole_job(record) for _ in range(GROUP)))
    await record.close()
    ended = GROUP * GROUPS
    written = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'audit'"
    read = (
        "SELECT relname, sum(seq_tup_read) FROM pg_stat_user_tables"
        " WHERE relname IN ('jobs', 'attempts', 'audit') GROUP BY relname"
    )
    probed = (
        "SELECT relname, sum(idx_tup_read) FROM pg_stat_user_indexes"
        " WHERE relname IN ('jobs', 'attempts', 'audit') GROUP BY relname"
    )
    with reading(engine) as connection:
        # The server counts what a session did some time after its transaction.
        wait_until(lambda: connection.scalar(text(written)) == ended, 10, "the counts are there")
        assert set(dict(map(tuple, connection.execute(text(read)))).values()) == {0}
        for table, rows in connection.execute(text(probed)):
            # A claim, an attempt and an end find some versions of the job's row each.
            assert rows <= 20 * ended, (table, rows)
    engine.dispose()


def _queue(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[None]:
    many_rows.insert_all(connection, jobs, rows)
    return [None] * len(rows)


async def _whole_job(record: GroupCommit) -> None:
    """Claim a job that is queued, make one attempt, and end it."""
    job = envelope()
    await record.write(_queue, job_row(job, job.encode()))
    claim = await Claims(record, "worker").take(job)
    assert isinstance(claim, Claim)
    attempt = Attempt(job.id, claim.fence, 1, job.model, "openai", now_ms(), waited_ms=0)
    assert await Ledger(record).open(attempt)
    reply = Reply("four", "stop", Usage(10, 0, 0, 5, 0))
    result = Result(id=job.id, status="succeeded", model=job.model, content="four", attempts=1)
    line = audit_row(job, result, cost_pico_usd=17, finished_at_ms=now_ms())
    answers = await record.together(
        Ledger.settling(attempt.answered(reply, 17, now_ms())),
        Conclude.concluding(Conclusion(job.id, claim.fence, result, now_ms(), line)),
    )
    assert answers[1] == result
