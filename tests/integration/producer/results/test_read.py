"""Many jobs are read together; their requests, which may be long, a few at once."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Engine, event

from headgate.producer.results import read
from headgate.shared.job.result import Result
from headgate.shared.job.result_text import encode_result
from tests.support.old_rows import put_job

JOBS = 45


def test_requests_of_open_jobs_are_read_a_few_at_once_and_of_others_never(engine: Engine) -> None:
    answer = encode_result(Result("ended", "succeeded", "gpt-4o", content="Hello"))
    put_job(engine, 1_800_000_000_000, job_id="ended", result=answer)
    ids = [f"open-{n}" for n in range(JOBS)]
    for n, job_id in enumerate(ids):
        envelope = orjson.dumps({"request": {"metadata": {"run": n}}}).decode()
        put_job(engine, None, job_id=job_id, envelope=envelope)
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        asked.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        found = read.read_many(engine, ["ended", *ids, "unknown"])
    finally:
        event.remove(engine, "before_cursor_execute", note)
    ended = found.pop("ended")
    assert isinstance(ended, Result)
    assert ended.content == "Hello"
    assert not isinstance(found.pop("unknown"), Result)
    runs = {one.id: one.metadata["run"] for one in found.values() if isinstance(one, Result)}
    assert runs == {job_id: n for n, job_id in enumerate(ids)}
    assert sum("envelope" in one for one in asked) == -(-JOBS // read.REQUESTS_PER_QUERY)
