"""One Redis belongs to one database: no job is paid twice because of a second one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from headgate import Client
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer

WITHIN_S = 60


@pytest.mark.slow
def test_a_second_machine_with_a_database_of_its_own_is_refused(
    valkey: ValkeyServer,
    database_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "300")
    first = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": "5",
        "HEADGATE_SWEEP_S": "1",
    }
    second = first | {"HEADGATE_HOME": str(tmp_path / "second")}
    del second["HEADGATE_DATABASE_URL"]
    assert headgate(["db", "upgrade"], first).code == 0
    settings = Settings(redis_url=valkey.url, database_url=database_url, home=tmp_path)
    ours = installation.worker_process(first, tmp_path, "ours")
    theirs = installation.worker_process(second, tmp_path, "theirs")
    with installation.ended_afterwards(ours, theirs), Client(settings) as client:
        ours.start()
        ids = client.submit_many(
            {"prompt": f"prompt number {n:06d}", "model": installation.MODEL,
             "params": {"max_tokens": 5}} for n in range(40)
        )  # fmt: skip
        command = installation.command(["worker"], second, tmp_path / "command.log")
        plain = installation.command([], second, tmp_path / "celery.log")
        plain.argv = list(theirs.argv)  # stock `celery -A`, which opens nothing before its worker
        with installation.ended_afterwards(command, plain):
            command.start()
            plain.start()
            for refused in (command, plain):
                assert installation.exit_code(refused, WITHIN_S) == 2, refused.log_end()
                assert "belongs to another database" in refused.log()
        for words in (["submit", "hello"], ["health"]):
            ended = headgate(words, second)
            assert ended.code == 2, ended
            assert "headgate db adopt" in ended.err
        wait_until(lambda: installation.count_ended(database_url) == 40, WITHIN_S, "all jobs")
        assert {client.result(one).status for one in ids} == {"succeeded"}
        installation.the_books_agree(database_url, simulator, 40, unknown=0)

        # On purpose: the worker of the database before notices, and ends; the other may start.
        adopted = headgate(["db", "adopt", "--yes"], second)
        assert adopted.code == 0, adopted
        assert "workers alive on the database before" in adopted.err
        assert installation.exit_code(ours, WITHIN_S) == 2, ours.log_end()
        assert "takes no more jobs and ends" in ours.log()
        assert "Traceback" not in ours.log(), ours.log_from("Traceback")
        theirs.start()
        health = headgate(["health", "--json"], second)
        assert next(iter(health.document["strays"])).startswith("ours@"), health
        answer = headgate(["submit", "--wait", "hello"], second)
        assert answer.code == 0, answer
        assert theirs.stop(30) == 0


@pytest.mark.slow
def test_a_worker_whose_sqlite_file_is_deleted_ends_and_saves_what_it_paid_for(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "4000")
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_SWEEP_S": "1",
    }
    settings = Settings(redis_url=valkey.url, database_url=sqlite_url, home=tmp_path)
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        worker.start()
        with Client(settings) as client:
            ids = client.submit_many([f"prompt {n}" for n in range(5)])
        wait_until(
            lambda: installation.read_books(sqlite_url).attempts.get("open") == 5,
            WITHIN_S, "all to be asked",
        )  # fmt: skip
        file.unlink()
        # A command that comes meanwhile makes a new file, and is refused.
        refused = headgate(["health"], env)
        assert refused.code == 2, refused
        assert "it was deleted or replaced" in refused.err
        assert installation.exit_code(worker, WITHIN_S) == 2, worker.log_end()
        assert "Traceback" not in worker.log(), worker.log_from("Traceback")
    [saved] = file.parent.glob("headgate.db.saved-*")
    assert str(saved) in worker.log()
    assert str(saved) in headgate(["submit", "hello"], env).err
    assert installation.read_books(f"sqlite:///{saved}").jobs == {"succeeded": 5}

    # What was saved is put back, and all is as if nothing had happened.
    for ending in ("", "-wal", "-shm"):
        Path(f"{file}{ending}").unlink(missing_ok=True)
    saved.rename(file)
    with Client(settings) as client:
        assert {client.result(one).status for one in ids} == {"succeeded"}
    assert simulator.stats()["answered"] == 5
    engine = open_engine(sqlite_url)
    with reading(engine) as connection:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
    engine.dispose()
