"""A batch that is continued: its failed lines again, and only the changed lines of its input."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from headgate import Client, WrongUse
from headgate.producer.batch import start
from headgate.producer.batch.input import scan
from headgate.producer.batch.output import Output
from headgate.producer.batch.rows import Batch, BatchRows
from headgate.producer.batch.run import Run, queue_all
from headgate.producer.batch.summary import Summary, summarise
from headgate.producer.usage.query import usage
from headgate.shared.database.tables import jobs
from headgate.shared.job.result import ErrorReport
from tests.support.played import PlayedWorker, settings_for
from tests.support.servers import ValkeyServer

FAILED = ErrorReport(code="timeout", message="it failed", retryable=True)


@dataclass
class Office:
    """A batch's files, and a worker whose answers the test chooses."""

    client: Client
    folder: Path

    @property
    def output_path(self) -> Path:
        return self.folder / "out.jsonl"

    @property
    def output(self) -> dict[Any, Any]:
        """The lines of output by custom_id."""
        lines = map(json.loads, self.output_path.read_text().splitlines())
        found = {line["custom_id"]: line for line in lines}
        assert len(found) == len(self.output_path.read_text().splitlines())
        return found

    def write(self, *prompts: str, own_ids: bool = True) -> Path:
        path = self.folder / "in.jsonl"
        lines = ({"prompt": p, "model": "gpt-4o-mini"} | ({"custom_id": p[0]} if own_ids else {})
                 for p in prompts)  # fmt: skip
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def run(self, fails: str = "", *, resume: bool = True, **options: Any) -> tuple[str, ...]:
        """Run the batch to its end; jobs fail whose prompts end so. Return the notes."""
        at, path = self.client.open(), self.folder / "in.jsonl"
        output = Output.open(self.output_path, path, "resume" if resume else "overwrite")
        with closing(output):
            summary = scan(path)
            if resume:
                found = start.resume(at, summary, output, {}, **options)
            else:
                found = start.Resumed(*start.begin(BatchRows(at.engine), summary, output, {}))
            work = Run(at, found.batch, path, output, Quiet(), lambda: False,
                       lambda _: self.work(found.batch, fails), found.written)  # fmt: skip
            assert work.submit_and_follow()
        return found.notes

    def work(self, batch: Batch, fails: str) -> None:
        """End all open jobs, as a worker does."""
        worker = PlayedWorker(self.client.open())
        for job_id in BatchRows(self.client.open().engine).open_jobs(batch.id):
            prompt = worker.start(job_id).request.prompt or ""
            if fails and prompt.endswith(fails):
                worker.end(job_id, status="failed", error=FAILED, content=None)
            else:
                worker.end(job_id, content=f"answer to {prompt}")
            self.client.open().redis.flushdb()  # as if the worker had taken its message

    def summary(self) -> Summary:
        at = self.client.open()
        [batch] = BatchRows(at.engine).latest(10)
        return summarise(at.engine, at.catalog, batch)

    def job_of(self, custom_id: str) -> str:
        found: str = self.output[custom_id]["headgate"]["job_id"]
        return found


class Quiet:
    """A progress that shows nothing."""

    def advance(self, *, done: int, failed: int) -> None: ...

    def notify(self, text: str) -> None: ...

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def office(valkey: ValkeyServer, database_url: str, tmp_path: Path) -> Iterator[Office]:
    with Client(settings_for(valkey.url, database_url, tmp_path)) as client:
        yield Office(client, tmp_path)


def test_failed_lines_are_asked_again_and_answers_stay(office: Office) -> None:
    office.write("a", "b?", "c?", "d")
    office.run("?", resume=False)
    assert (office.summary().succeeded, office.summary().failed) == (2, 2)
    before = {one: office.job_of(one) for one in "abcd"}
    office.output_path.chmod(0o640)
    assert office.run("?") == ()
    assert office.summary().failed == 2, "a plain resume asks nothing again"
    notes = office.run("", retry_failed=True)
    assert notes == ("failed jobs queued again: 2 (2 timeout)",)
    assert {one: office.job_of(one) for one in "abcd"} == before, "under their ids"
    assert [office.output[one]["error"] for one in "abcd"] == [None] * 4
    assert (office.summary().succeeded, office.summary().failed) == (4, 0)
    assert office.output_path.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in office.folder.glob(".out*")) == []


def test_only_changed_lines_are_asked_and_the_others_may_move(office: Office) -> None:
    office.write("a", "b?", "c", "d")
    office.run("?", resume=False)
    before = {one: office.job_of(one) for one in "abcd"}
    office.write("x", "a", "b", "d", "c")
    [note] = office.run()
    assert note == (
        "the input has changed: 3 lines are unchanged, 2 to ask; "
        "1 job of changed or removed lines left the batch and stay on record"
    )
    after = {one: office.job_of(one) for one in "xabcd"}
    assert {one for one in "abcd" if before[one] == after[one]} == {"a", "c", "d"}
    lines = {one: office.output[one]["headgate"]["line"] for one in "xabcd"}
    assert lines == {"x": 1, "a": 2, "b": 3, "d": 4, "c": 5}
    assert office.output["b"]["error"] is None
    summary = office.summary()
    assert (summary.lines, summary.succeeded, summary.failed, summary.open) == (5, 5, 0, 0)
    at = office.client.open()
    with at.engine.connect() as connection:
        query = select(jobs.c.batch_id, jobs.c.batch_line, jobs.c.status)
        old = connection.execute(query.where(jobs.c.id == before["b"])).one()
    assert tuple(old) == (None, None, "failed"), "it stays on record"
    assert usage(at.engine, "").total.requests == 6
    assert office.run() == (), "the corrected input is the batch's own now"


def test_a_line_that_is_put_in_front_asks_one_line_where_none_has_an_id(office: Office) -> None:
    office.write("a", "b", own_ids=False)
    office.run(resume=False)
    before = {office.job_of("line-1"), office.job_of("line-2")}
    office.write("new", "a", "b", own_ids=False)
    [note] = office.run()
    assert note == "the input has changed: 2 lines are unchanged, 1 to ask"
    assert {office.job_of("line-2"), office.job_of("line-3")} == before
    contents = [office.output[f"line-{n}"]["response"]["body"]["choices"][0]["message"]["content"]
                for n in (1, 2, 3)]  # fmt: skip
    assert contents == ["answer to new", "answer to a", "answer to b"]


def test_another_input_is_refused_and_nothing_is_lost(office: Office) -> None:
    office.write("a", "b")
    office.run(resume=False)
    content = office.output_path.read_bytes()
    office.write("y", "z")
    with pytest.raises(WrongUse, match="no line of it is as in the input of batch"):
        office.run()
    assert office.output_path.read_bytes() == content
    assert office.summary().succeeded == 2


def test_a_changed_line_whose_job_still_waits_is_cancelled_and_asked_anew(office: Office) -> None:
    path = office.write("a", "b", "c")
    at = office.client.open()
    with closing(Output.open(office.output_path, path, "refuse")) as output:
        batch, _ = start.begin(BatchRows(at.engine), scan(path), output, {})
    assert queue_all(at, batch, path, Quiet(), lambda: False) == 0
    old = BatchRows(at.engine).open_jobs(batch.id)
    office.write("a", "b anew", "c")
    [note] = office.run()
    assert note.startswith("the input has changed: 2 lines are unchanged, 1 to ask; 1 job of")
    assert [office.client.status(job_id) for job_id in old] == [
        "succeeded",
        "cancelled",
        "succeeded",
    ]
    assert {office.job_of(one) for one in "ac"} == {old[0], old[2]}
    content = office.output["b"]["response"]["body"]["choices"][0]["message"]["content"]
    assert content == "answer to b anew"
    assert (office.summary().succeeded, office.summary().failed) == (3, 0)
