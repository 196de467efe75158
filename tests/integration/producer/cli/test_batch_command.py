"""`headgate batch` on a real Valkey and both databases, with a played worker."""

import json
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from headgate.shared.database.engine import open_engine
from headgate.shared.database.migrate import upgrade
from headgate.shared.database.tables import jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from tests.support.child import BUSY, wait_until
from tests.support.command import headgate, start
from tests.support.played_worker import PlayedWorker
from tests.support.servers import ValkeyServer


@pytest.fixture
def env(valkey: ValkeyServer, database_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the settings of an installation on external servers with its tables."""
    engine = open_engine(database_url)
    upgrade(engine)
    engine.dispose()
    return {
        "HEADGATE_REDIS_URL": valkey.url.replace("unix://", "redis+socket://"),
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_HOME": str(tmp_path / "home"),
    }


def worker_of(env: dict[str, str], **options: Any) -> PlayedWorker:
    """Return a played worker on the servers of `env`."""
    return PlayedWorker(env["HEADGATE_DATABASE_URL"], env["HEADGATE_REDIS_URL"], **options)


def prompts(path: Path, count: int) -> Path:
    """Write an input of `count` good lines."""
    path.write_text("".join(f'{{"prompt": "prompt {n}"}}\n' for n in range(1, count + 1)))
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of an output."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def jobs_on_record(env: dict[str, str]) -> int:
    """Return how many jobs there are."""
    engine = open_engine(env["HEADGATE_DATABASE_URL"])
    with engine.connect() as connection:
        count: int = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
    engine.dispose()
    return count


def has_lines(path: Path, count: int) -> bool:
    """Return whether the output has so many lines."""
    return path.exists() and path.read_bytes().count(b"\n") >= count


def each_line_once(path: Path, count: int) -> None:
    """Assert that every input line has exactly one line of output."""
    seen = Counter(line["headgate"]["line"] for line in lines_of(path))
    assert seen == Counter(range(1, count + 1))


def test_every_line_is_answered_once_and_the_summary_adds_up(
    env: dict[str, str], tmp_path: Path
) -> None:
    source, out = prompts(tmp_path / "in", 1200), tmp_path / "out"
    with worker_of(env):
        ended = headgate(["batch", "run", source, "-o", out, "--json"], env)
    assert ended.code == 0, ended.err
    each_line_once(out, 1200)
    assert all(
        line["response"]["body"]["choices"][0]["message"]["content"]
        == f"echo: prompt {line['headgate']['line']}"
        for line in lines_of(out)
    )
    summary = ended.document
    assert (summary["succeeded"], summary["failed"], summary["open"]) == (1200, 0, 0)
    assert summary["cost_usd"] == "0.003"
    assert (summary["input_tokens"], summary["output_tokens"]) == (3600, 4800)
    assert summary["p50_latency_ms"] == summary["p95_latency_ms"] == 20


def test_bad_lines_and_failed_jobs_are_lines_of_output_and_exit_code_1(
    env: dict[str, str], tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_bytes(
        b'{"prompt": "a"}\n{broken\n{"custom_id": "b", "prompt": "fail"}\n\xff\n'
        b'{"prompt": "c", "model": "no-such-model"}\n{"prompt": "d", "tier": "x"}\n'
    )

    def fails(envelope: Envelope) -> bool:
        return envelope.request.prompt == "fail"

    with worker_of(env, fails=fails):
        ended = headgate(["batch", "run", source, "-o", out, "--json"], env)
    assert ended.code == 1
    each_line_once(out, 6)
    codes = {line["headgate"]["line"]: line["error"] and line["error"]["code"]
             for line in lines_of(out)}  # fmt: skip
    assert codes == {
        1: None, 2: "invalid_request", 3: "provider_error", 4: "invalid_request",
        5: "unknown_model", 6: "invalid_request",
    }  # fmt: skip
    summary = ended.document
    assert (summary["succeeded"], summary["failed"], summary["bad_lines"]) == (1, 5, 4)
    again = headgate(["batch", "run", source, "-o", out, "--resume", "--json"], env)
    assert again.code == 1
    assert {**again.document, "seconds": 0} == {**summary, "seconds": 0}
    each_line_once(out, 6)


def test_a_killed_command_is_resumed_and_no_line_is_queued_twice(
    env: dict[str, str], tmp_path: Path
) -> None:
    source, out = prompts(tmp_path / "in", 3000), tmp_path / "out"
    with worker_of(env, at_once=100, pause_s=0.05):
        for wanted in (300, 1200):
            resume = ["--resume"] if out.exists() else []
            command = start(["batch", "run", source, "-o", out, *resume], env)
            wait_until(partial(has_lines, out, wanted), 60)
            command.send_signal(signal.SIGKILL)
            command.communicate()
            with out.open("ab") as torn:
                torn.write(b'{"id": "batch_req_torn')
        ended = headgate(["batch", "run", source, "-o", out, "--resume", "--json"], env)
    assert ended.code == 0, ended.err
    assert ended.document["succeeded"] == 3000
    each_line_once(out, 3000)
    assert jobs_on_record(env) == 3000


def test_a_killed_command_with_samples_is_resumed_and_no_sample_is_queued_twice(
    env: dict[str, str], tmp_path: Path
) -> None:
    source, out = prompts(tmp_path / "in", 300), tmp_path / "out"
    with source.open("a") as lines:
        lines.write('{"custom_id": "own", "prompt": "prompt 301", "samples": 5}\n{broken\n')
    wanted = {f"line-{n}#{k}" for n in (*range(1, 301), 302) for k in (1, 2, 3)}
    wanted |= {f"own#{k}" for k in range(1, 6)}
    run = ["batch", "run", str(source), "-o", str(out)]
    with worker_of(env, at_once=50, pause_s=0.05):
        command = start([*run, "--samples", "3"], env)
        wait_until(partial(has_lines, out, 200), 60)
        command.send_signal(signal.SIGKILL)
        command.communicate()
        other = headgate([*run, "--resume", "--samples", "4"], env)
        assert (other.code, "started with 3" in other.err) == (2, True)
        uncached = headgate([*run, "--resume", "--no-cache"], env)
        assert "--no-cache" in uncached.err
        assert "started without it" in uncached.err
        ended = headgate([*run, "--resume", "--json"], env)
    assert ended.code == 1, ended.err
    found = ended.document
    assert (found["lines"], found["succeeded"], found["failed"]) == (908, 905, 3)
    assert Counter(line["custom_id"] for line in lines_of(out)) == Counter(wanted)
    assert jobs_on_record(env) == 905
    by_sample = Counter(line["headgate"].get("sample", 1) for line in lines_of(out))
    assert by_sample == {1: 302, 2: 302, 3: 302, 4: 1, 5: 1}
    contents = [line["response"]["body"]["choices"][0]["message"]["content"]
                for line in lines_of(out) if line["custom_id"].startswith("own#")]  # fmt: skip
    assert contents == ["echo: prompt 301"] * 5


def test_the_steps_count_and_write_each_sample(env: dict[str, str], tmp_path: Path) -> None:
    source, out = prompts(tmp_path / "in", 10), tmp_path / "out"
    with source.open("a") as lines:
        lines.write("{broken\n")
    submitted = headgate(["batch", "submit", source, "--samples", "2", "--json"], env)
    [batch] = [json.loads(line) for line in submitted.out.splitlines()]
    assert batch["lines"] == 22
    assert "2 of 22 lines were refused" in submitted.err
    with worker_of(env):
        fetched = headgate(["batch", "fetch", batch["id"], "-o", out, "--wait", "--json"], env)
    assert (fetched.document["succeeded"], fetched.document["failed"]) == (20, 2)
    assert len({line["custom_id"] for line in lines_of(out)}) == 22


def test_jobs_that_ended_between_two_commands_are_written_by_resume(
    env: dict[str, str], tmp_path: Path
) -> None:
    source, out = prompts(tmp_path / "in", 500), tmp_path / "out"
    command = start(["batch", "run", source, "-o", out], env)
    wait_until(lambda: jobs_on_record(env) == 500, 30)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    hour_ago = now_ms() - 3_600_000
    with worker_of(env, clock_ms=lambda: hour_ago) as worker:
        wait_until(lambda: len(worker.ended) == 500, 30)
    out.unlink()
    ended = headgate(["batch", "run", source, "-o", out, "--resume"], env)
    assert ended.code == 0, ended.err
    each_line_once(out, 500)


def test_a_clock_that_was_set_back_loses_no_line(env: dict[str, str], tmp_path: Path) -> None:
    source, out = prompts(tmp_path / "in", 600), tmp_path / "out"
    calls = [0]

    def clock_ms() -> int:
        calls[0] += 1
        return now_ms() - (3_600_000 if calls[0] > 200 else 0)

    with worker_of(env, clock_ms=clock_ms, pause_s=0.1):
        ended = headgate(["batch", "run", source, "-o", out], env)
    assert ended.code == 0, ended.err
    each_line_once(out, 600)


def test_ctrl_c_ends_with_130_and_the_batch_can_be_resumed(
    env: dict[str, str], tmp_path: Path
) -> None:
    source, out = prompts(tmp_path / "in", 100), tmp_path / "out"
    command = start(["batch", "run", source, "-o", out], env)
    wait_until(lambda: jobs_on_record(env) == 100, 30)
    command.send_signal(signal.SIGINT)
    _, output = command.communicate(timeout=20 * BUSY)
    assert command.returncode == 130
    assert b"--resume" in output
    assert b"Traceback" not in output
    with worker_of(env):
        assert headgate(["batch", "run", source, "-o", out, "--resume"], env).code == 0
    each_line_once(out, 100)
    assert jobs_on_record(env) == 100


def test_max_in_flight_bounds_what_is_queued(env: dict[str, str], tmp_path: Path) -> None:
    source, out = prompts(tmp_path / "in", 300), tmp_path / "out"
    command = start(["batch", "run", source, "-o", out, "--max-in-flight", "40"], env)
    try:
        wait_until(lambda: jobs_on_record(env) == 40, 30)
        with worker_of(env, at_once=10, pause_s=0.02):
            command.communicate(timeout=60 * BUSY)
    finally:
        command.kill()
    assert command.returncode == 0
    each_line_once(out, 300)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["{other}", "-o", "{out}", "--resume"], "no line of it is as in the input of batch"),
        (["{first}", "-o", "{out}"], "--resume"),
        (["{first}", "-o", "{out}", "--resume", "--model", "gpt-4o"], "--model"),
        (["{first}", "-o", "{first}"], "the input itself"),
        (["{first}", "-o", "{folder}"], "folder"),
        (["{first}", "-o", "{folder}/no/out"], "no folder"),
        (["{first}", "-o", "{new}", "--model", "no-such-model"], "no-such-model"),
        (["{first}", "-o", "{new}", "--resume", "--overwrite"], "together"),
        (["{folder}", "-o", "{new}"], "no file"),
        (["{empty}", "-o", "{new}"], "has no lines"),
        (["{missing}", "-o", "{new}"], "No such file"),
        (["{first}"], "--output"),
        (["-", "-o", "{new}"], "standard input"),
        (["{first}", "-o", "-"], "standard output"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_queued(
    env: dict[str, str], tmp_path: Path, arguments: list[str], fault: str
) -> None:
    (tmp_path / "empty").touch()
    names = {
        "folder": tmp_path, "first": prompts(tmp_path / "first", 3), "out": tmp_path / "out",
        "in": prompts(tmp_path / "in", 4), "new": tmp_path / "new", "empty": tmp_path / "empty",
        "missing": tmp_path / "missing", "other": tmp_path / "other",
    }  # fmt: skip
    names["other"].write_text('{"prompt": "another"}\n')
    with worker_of(env):
        assert headgate(["batch", "run", names["first"], "-o", names["out"]], env).code == 0
    ended = headgate(["batch", "run", *(word.format(**names) for word in arguments)], env)
    assert ended.code == 2, ended.err
    assert fault in ended.err
    assert "Traceback" not in ended.err
    assert jobs_on_record(env) == 3


def test_a_full_output_ends_the_command_with_a_message_and_no_traceback(
    env: dict[str, str], tmp_path: Path
) -> None:
    source = prompts(tmp_path / "in", 50)
    with worker_of(env):
        ended = headgate(["batch", "run", source, "-o", "/dev/full"], env)
    assert ended.code == 1
    assert "No space left" in ended.err
    assert "--resume" in ended.err


def test_the_steps_do_the_same_as_run(env: dict[str, str], tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_text('{"prompt": "a"}\n{broken\n{"prompt": "c"}\n')
    submitted = headgate(["batch", "submit", source], env)
    assert submitted.code == 0
    assert "line 2" in submitted.err
    batch_id = submitted.out.strip()
    status = headgate(["batch", "status", batch_id, "--json"], env)
    assert status.document["jobs"] == {"queued": 2}
    assert status.document["summary"]["open"] == 2
    waits = status.document["waiting_for"]
    assert (waits["kind"], waits["jobs"], waits["looked_at"]) == ("no_worker", 2, 2)
    told = headgate(["batch", "status", batch_id], env).out
    assert "2 of 2 waiting jobs that were looked at are waiting for a worker that serves" in told
    with worker_of(env):
        fetched = headgate(["batch", "fetch", batch_id, "-o", out, "--wait"], env)
    assert fetched.code == 1, fetched.err
    each_line_once(out, 3)
    cancelled = headgate(["batch", "cancel", batch_id], env)
    assert (cancelled.code, cancelled.out) == (1, "")
    assert "had ended before" in cancelled.err
    [listed] = headgate(["batch", "list", "--json"], env).out.splitlines()
    assert (json.loads(listed)["id"], json.loads(listed)["state"]) == (batch_id, "ended")


def test_a_cancelled_batch_writes_every_line(env: dict[str, str], tmp_path: Path) -> None:
    source, out = prompts(tmp_path / "in", 200), tmp_path / "out"
    command = start(["batch", "run", source, "-o", out, "--max-in-flight", "50"], env)
    wait_until(lambda: jobs_on_record(env) == 50, 30)
    listed = headgate(["batch", "list", "--json"], env)
    cancelled = headgate(["batch", "cancel", json.loads(listed.out)["id"]], env)
    assert cancelled.code == 0
    command.communicate(timeout=60 * BUSY)
    assert command.returncode == 1
    each_line_once(out, 200)
    assert {line["error"]["code"] for line in lines_of(out)} == {"cancelled"}


def test_an_unknown_batch_is_wrong_use(env: dict[str, str], tmp_path: Path) -> None:
    for arguments in (["status", "x"], ["cancel", "x"], ["fetch", "x", "-o", tmp_path / "out"]):
        ended = headgate(["batch", *arguments], env)
        assert ended.code == 2
        assert "no batch 'x'" in ended.err
