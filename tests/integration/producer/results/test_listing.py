"""Lists of jobs: what each filter finds, and pages without gaps, on both databases."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from sqlalchemy import Engine, update

from headgate import InvalidRequest, UnknownJob
from headgate.producer.results.listing import JobFilters, JobQuery, list_jobs
from headgate.producer.results.short_ids import batch_id_of, job_id_of
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.job_metadata import add_metadata, pairs_of
from headgate.shared.database.tables import audit
from headgate.shared.errors import WrongUse
from tests.support.old_rows import put_batch, put_job

END_MS = 1_760_000_000_000
BATCH = "batch_0192f3c4-aaaa-7000-8000-000000000001"


def listed(engine: Engine, **asked: Any) -> list[str]:
    return [one.id for one in list_jobs(engine, JobQuery(**asked))]


def test_the_type_of_the_filters_is_that_of_the_query() -> None:
    assert set(JobFilters.__annotations__) == {one.name for one in fields(JobQuery)}


def test_each_filter_finds_its_jobs(engine: Engine) -> None:
    put_batch(engine, BATCH, END_MS)
    put_job(engine, END_MS, job_id="a", user_id="u1", batch_id=BATCH, batch_line=1)
    put_job(engine, END_MS + 1, job_id="b", tenant="other", priority="bulk", status="failed")
    put_job(engine, END_MS + 2, job_id="c", model="gpt-4o-mini")
    put_job(engine, None, started_ms=END_MS + 3, job_id="d")
    with engine.begin() as connection:
        of_b = update(audit).where(audit.c.job_id == "b")
        connection.execute(of_b.values(error_code="rate_limited", model_used="claude"))
        metadata: dict[str, dict[str, Any]] = {
            "a": {"run": 7, "who": "x"},
            "b": {"run": "7"},
            "c": {"run": 8, "on": True},
        }
        add_metadata(connection, [(job, pairs_of(given)) for job, given in metadata.items()])
    assert listed(engine) == ["d", "c", "b", "a"]
    for asked, found in (
        ({"status": "failed"}, ["b"]),
        ({"tenant": "acme"}, ["d", "c", "a"]),
        ({"user": "u1"}, ["a"]),
        ({"model": "gpt-4o-mini"}, ["c"]),
        ({"model": "claude"}, ["b"]),
        ({"batch": BATCH}, ["a"]),
        ({"priority": "bulk"}, ["b"]),
        ({"code": "rate_limited"}, ["b"]),
        ({"code": "timeout"}, []),
        ({"metadata": {"run": 7}}, ["b", "a"]),
        ({"metadata": {"run": "7", "who": "x"}}, ["a"]),
        ({"metadata": {"on": True}}, ["c"]),
        ({"metadata": {"run": 9}}, []),
        ({"tenant": "acme", "metadata": {"run": 8}}, ["c"]),
        ({"before": "c"}, ["b", "a"]),
        ({"before": "a"}, []),
        ({"limit": 2}, ["d", "c"]),
    ):  # fmt: skip
        assert listed(engine, **asked) == found, asked


def test_a_listed_job_has_its_code_duration_and_cost(engine: Engine) -> None:
    put_job(engine, END_MS, job_id="a", started_at_ms=END_MS - 40, cost_pico_usd=22_200_000)
    put_job(engine, None, started_ms=END_MS + 1, job_id="b")
    opened, ended = list_jobs(engine, JobQuery())
    assert (ended.duration_ms, ended.queued_ms, ended.cost_usd) == (40, 10, "0.0000222")
    assert (ended.code, ended.attempts, ended.latency_ms) == (None, 1, 90)
    assert (opened.duration_ms, opened.cost_usd, opened.attempts) == (None, None, None)


def test_pages_have_no_gap_and_no_job_twice_also_within_a_millisecond(engine: Engine) -> None:
    for n in range(23):
        put_job(engine, END_MS + n // 8, started_ms=END_MS)
    whole = listed(engine)
    assert len(whole) == 23
    pages, before = [], None
    while page := listed(engine, limit=5, before=before):
        pages += page
        before = page[-1]
    assert pages == whole


def test_a_page_goes_on_after_a_job_that_was_pruned(engine: Engine) -> None:
    put_job(engine, END_MS, job_id="a")
    put_job(engine, END_MS + 1, job_id="b", row=False)
    assert listed(engine, before="b") == ["a"]
    with pytest.raises(UnknownJob):
        listed(engine, before="c")


@pytest.mark.parametrize(
    "asked",
    [
        {"status": "done"},
        {"code": "teapot"},
        {"priority": "high"},
        {"limit": 0},
        {"limit": True},
        {"user": 5},
        {"batch": "a\0"},
        {"metadata": {"run": [1]}},
        {"metadata": {"run": "a\0"}},
        {"metadata": "run=7"},
    ],
)
def test_a_filter_that_cannot_be_right_is_refused_by_name(
    asked: dict[str, Any], sqlite_url: str
) -> None:
    engine = open_engine(sqlite_url)
    migrate.upgrade(engine)
    with pytest.raises(InvalidRequest) as caught:
        listed(engine, **asked)
    assert caught.value.field.startswith(next(iter(asked)))
    engine.dispose()


def test_the_beginning_of_an_id_is_enough(engine: Engine) -> None:
    first = "0192f3c4-5b6a-7abc-8def-000000000001"
    second = "0192f3c4-5b6a-7abd-8def-000000000002"
    gone = "0192f3c5-0000-7abd-8def-000000000003"
    put_job(engine, END_MS, job_id=first)
    put_job(engine, END_MS, job_id=second)
    put_job(engine, END_MS, job_id=gone, row=False)
    put_job(engine, END_MS, job_id="task-1")
    put_job(engine, END_MS, job_id="task-11")
    put_batch(engine, BATCH, END_MS)
    assert job_id_of(engine, first[:18]) == first
    assert job_id_of(engine, second[:18]) == second
    assert job_id_of(engine, gone[:9]) == gone
    assert job_id_of(engine, "task-1") == "task-1"
    assert job_id_of(engine, "0192f3d") == "0192f3d"
    assert job_id_of(engine, "0") == "0"
    for begin in ("0192f3c4", first[:14]):
        with pytest.raises(WrongUse, match="several ids begin so") as caught:
            job_id_of(engine, begin, "--before")
        assert caught.value.field == "--before"
        assert f"{first}, {second}" in str(caught.value)
    for begin in (BATCH[:18], BATCH[6:18], BATCH):
        assert batch_id_of(engine, begin) == BATCH
    assert batch_id_of(engine, "nonsense") == "nonsense"
