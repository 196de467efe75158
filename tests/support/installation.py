"""What the system tests share: commands and workers as processes, and the books to compare.

Prompts made here all cost the same, so that money can be counted to the last answer.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import attempts, audit, jobs
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import ChildProcess, wait_until
from tests.support.command import PROGRAM
from tests.support.servers import Simulator

PICO = Decimal("1e-12")
MODEL = "gpt-4o-mini"


def write_prompts(path: Path, count: int, first: int = 1) -> Path:
    """A file of `count` prompts, no two equal, all of one length and one price."""
    body = {"model": MODEL, "max_tokens": 5}
    with path.open("w") as file:
        for n in range(first, first + count):
            message = {"role": "user", "content": f"prompt number {n:06d}"}
            line = {
                "custom_id": f"id-{n}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {**body, "messages": [message]},
            }
            file.write(json.dumps(line) + "\n")
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of an output; each is whole."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def count_lines(path: Path) -> int:
    """How many whole lines an output holds; 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def each_is_answered_once(path: Path, count: int) -> None:
    """Every custom_id of `write_prompts` stands exactly once in the output, with an answer."""
    lines = lines_of(path)
    assert Counter(line["custom_id"] for line in lines) == Counter(
        f"id-{n}" for n in range(1, count + 1)
    )
    assert [line for line in lines if line["error"] is not None] == []
    assert all(line["response"]["body"]["choices"][0]["message"]["content"] for line in lines)


def worker_process(
    env: Mapping[str, str], folder: Path, name: str = "one", *flags: str, level: str = "INFO"
) -> WorkerProcess:
    """A worker, not started yet; its log is `worker-<name>.log` in the folder."""
    argv = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "headgate.workers.app",
        "worker",
        "--loglevel",
        level,
    ]
    argv += ["--hostname", f"{name}@%h", *flags]
    return WorkerProcess(argv, log_path=folder / f"worker-{name}.log", env=env)


def command(
    arguments: Sequence[str | Path], env: Mapping[str, str], log_path: Path, cwd: Path | None = None
) -> ChildProcess:
    """A command of `headgate`, not started yet; both its streams go to the log."""
    child = ChildProcess([*PROGRAM, *map(str, arguments)], env=env, log_path=log_path, cwd=cwd)
    child.forks = child.may_end = True
    return child


@contextmanager
def ended_afterwards(*children: ChildProcess) -> Iterator[None]:
    """None of the children runs any more, whatever happened."""
    try:
        yield
    finally:
        for child in children:
            child.kill()


def exit_code(child: ChildProcess, within_s: float = 60) -> int | None:
    """The exit code of a command that comes to its end by itself."""
    try:
        wait_until(lambda: not child.running, within_s, f"{child.argv} to end")
    except TimeoutError as error:
        raise AssertionError(f"{error}; its log:\n{child.log_end()}") from None
    return child.exit_code()


def processes_of(home: Path) -> list[str]:
    """The commands of all living processes that were told of this home, detached ones included."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            told = str(home) in words or process.environ().get("HEADGATE_HOME") == str(home)
            if told and process.status() != psutil.STATUS_ZOMBIE:
                found.append(words)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def nothing_is_left(home: Path, within_s: float = 30) -> None:
    """No process of this home lives any more; the keeper of its server lingers a few seconds."""
    try:
        wait_until(lambda: not processes_of(home), within_s, "all to end")
    except TimeoutError as error:
        raise AssertionError(f"{error}; left: {processes_of(home)}") from None


def database_url(env: Mapping[str, str]) -> str:
    """The record of an installation, as the settings in `env` name it."""
    return env.get("HEADGATE_DATABASE_URL") or f"sqlite:///{env['HEADGATE_HOME']}/headgate.db"


@dataclass(frozen=True, slots=True)
class Books:
    """All that the record says of the jobs and their attempts."""

    jobs: dict[str, int]
    audit_lines: int
    attempts: dict[str, int]
    ledger_usd: Decimal
    audit_usd: Decimal
    jobs_with_unknown: int


def read_books(url: str) -> Books:
    """The record as it stands."""
    engine = open_engine(url)
    try:
        with reading(engine) as connection:

            def counts(column: Any) -> dict[str, int]:
                query = select(column, func.count()).group_by(column)
                return {name: int(n) for name, n in connection.execute(query)}

            def money(column: Any) -> Decimal:
                return int(connection.scalar(select(func.coalesce(func.sum(column), 0)))) * PICO

            unknown = select(func.count(attempts.c.job_id.distinct()))
            return Books(
                jobs=counts(jobs.c.status),
                audit_lines=int(connection.scalar(select(func.count()).select_from(audit)) or 0),
                attempts=_outcomes(connection),
                ledger_usd=money(attempts.c.cost_pico_usd),
                audit_usd=money(audit.c.cost_pico_usd),
                jobs_with_unknown=int(
                    connection.scalar(unknown.where(attempts.c.state == "unknown")) or 0
                ),
            )
    finally:
        engine.dispose()


def _outcomes(connection: Connection) -> dict[str, int]:
    """How many attempts have which state; "unsent" are those stopped before their call."""
    pair = (attempts.c.state, attempts.c.code)
    found: Counter[str] = Counter()
    for state, code, n in connection.execute(select(*pair, func.count()).group_by(*pair)):
        found["unsent" if (state, code) == ("failed", "cancelled") else state] += n
    return dict(found)


def count_ended(url: str) -> int:
    """How many jobs have ended; 0 while there is no record yet."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return 0
    try:
        return read_books(url).audit_lines
    except OperationalError:  # the tables are being made
        return 0


def the_books_agree(url: str, simulator: Simulator, count: int, unknown: int) -> None:
    """Each of `count` equal-priced jobs ended once; only `unknown` attempts may be paid in vain."""
    books, stats = read_books(url), simulator.stats()
    assert books.jobs == {"succeeded": count}
    assert books.audit_lines == count
    assert books.attempts.get("answered") == count
    assert books.attempts.get("unknown", 0) == unknown
    # A worker that is told to stop may have opened a line whose call it has not sent.
    assert set(books.attempts) <= {"answered", "unknown", "unsent"}
    assert books.jobs_with_unknown <= unknown
    assert stats["prompts"]["distinct"] == count
    assert stats["prompts"]["repeats"] == stats["requests"] - count
    assert 0 <= stats["prompts"]["repeats"] <= unknown
    assert 0 <= stats["answered"] - count <= unknown
    assert stats["prompts"]["paid_again"] <= books.jobs_with_unknown
    one = books.ledger_usd / count
    assert one > 0
    assert Decimal(stats["money"]["billed_usd"]) == stats["answered"] * one
    assert books.audit_usd == books.ledger_usd
